"""What a record copies out of the slots: the rows of one chunk, until they are written."""

from typing import final

import numpy as np
from jaxtyping import Int64, Shaped

from pipeline.record import direct_file
from pipeline.record.layout import RecordLayout
from pipeline.slots.memory import SlotArrays

Index = slice | Int64[np.ndarray, " _"]


@final
class Block:
    """Samples of one chunk; ``filled`` of its rows hold one."""

    def __init__(self, layout: RecordLayout) -> None:
        rows, sample = layout.block_rows, layout.sample
        shape = (rows, sample.window, *sample.grid)
        self.fields = [direct_file.aligned(shape, sample.dtype) for _ in range(sample.channels)]
        self.numbers = np.empty((3, rows), np.int64)  # member, number, step
        self.inputs = np.empty((rows, sample.num_inputs), np.float64)  # parameters, times
        self.num_parameters = sample.num_parameters
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

    def take(self, held: SlotArrays, slots: Index, count: int) -> None:
        """Copy samples behind those that are there, which does not count them yet."""
        into = slice(self.filled, self.filled + count)
        fields = np.asarray(held.fields[slots])
        for channel, own in enumerate(self.fields):
            own[into] = fields[:, :, channel]
        self.numbers[0, into] = held.members[slots]
        self.numbers[1, into] = held.samples[slots]
        self.numbers[2, into] = held.steps[slots]
        self.inputs[into] = held.inputs[slots]

    def short(self, start: int, stop: int) -> list[Shaped[np.ndarray, " row ..."]]:
        """The values of these rows, array by array as ``RecordLayout.numbers`` has them."""
        rows, parameters = slice(start, stop), self.num_parameters
        inputs = self.inputs[rows]
        return [*self.numbers[:, rows], inputs[:, parameters:], *inputs[:, :parameters].T]
