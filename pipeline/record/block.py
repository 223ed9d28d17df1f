"""What a record copies out of the slots: the rows of one chunk, until they are written."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from pipeline.record import direct_file
from pipeline.record.layout import RecordLayout

Index = slice | Int64[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recordable:
    """What a record keeps of samples, by slot.

    Attributes:
        fields: Samples.
        members: Member of each.
        samples: Its number within its member.
        steps: Solver step of its first snapshot.
        inputs: Parameters, then times.
    """

    fields: Float[np.ndarray, " slot window channel *grid"]
    members: Int64[np.ndarray, " slot"]
    samples: Int64[np.ndarray, " slot"]
    steps: Int64[np.ndarray, " slot"]
    inputs: Float64[np.ndarray, " slot inputs"]


@final
class Block:
    """Samples of one chunk; ``filled`` of its rows hold one."""

    def __init__(self, layout: RecordLayout) -> None:
        rows, sample = layout.block_rows, layout.sample
        shape = (rows, sample.window, *sample.grid)
        self.fields = [direct_file.aligned(shape, sample.dtype) for _ in range(sample.channels)]
        self.numbers = np.empty((3, rows), np.int64)  # member, number, step
        self.inputs = np.empty((rows, sample.num_inputs), np.float64)  # parameters, times
        self.filled = 0
        self.copied = 0  # rows whose numbers and inputs the writer has taken
        self.first = 0  # row of the group

    def stable(self, channel: int, filled: int) -> Shaped[np.ndarray, " row window *grid"]:
        """The first rows of a channel, with nobody writing into the others meanwhile.

        A file system that keeps checksums computes them while the disk reads the memory.
        """
        whole = self.fields[channel]
        if filled == len(whole):
            return whole
        part = direct_file.aligned(whole.shape, str(whole.dtype))
        part[:filled] = whole[:filled]
        return part

    def take(self, held: Recordable, slots: Index, count: int) -> None:
        """Copy samples behind those that are there, which does not count them yet."""
        into = slice(self.filled, self.filled + count)
        fields = held.fields[slots]
        for channel, own in enumerate(self.fields):
            own[into] = fields[:, :, channel]
        self.numbers[0, into] = held.members[slots]
        self.numbers[1, into] = held.samples[slots]
        self.numbers[2, into] = held.steps[slots]
        self.inputs[into] = held.inputs[slots]
