"""What a trainer is fed with: the problem, the samples and the batches.

A ``BatchSource`` is NumPy only, so that the training loop can be run, tested and measured on a
plain array, on shared memory, or behind a live reservoir, with the same code.

Invariants of every source (``tests/contract/test_batch_source_contract.py``):

1. Slots named by a lease keep their content until that lease is given back.
2. ``lease`` never returns more batches than asked for, and never waits longer than ``timeout``.
3. Once a lease says ``finished`` there is nothing left to draw; later leases are empty and
   finished too.
4. ``replay`` never runs dry: it draws again from what is held, so that ranks whose streams end
   unevenly take the same number of steps.
5. ``lease``, ``replay`` and ``give_back`` are called by one thread, everything else by another.
6. Leases are given back in the order they were drawn in; an empty one is not given back. What was
   given back reaches the reservoir with the next call of ``lease`` at the latest, and the trainer
   ends with a call of ``lease``; one that stops before the end of the stream keeps the last ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int64


class TrainingDiverged(Exception):
    """The loss or a gradient is not finite; the message says at which train step and what to do."""


class PeerFailed(Exception):
    """Another rank failed, so this one stops too; its own message is on that rank."""


class NothingToTrainOn(Exception):
    """The stream is over and a rank has not got a single sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One physical input of a surrogate.

    Attributes:
        name: Name of a parameter, or ``"time"``.
        unit: SI unit, ``"1"`` when dimensionless.
        low: Lower end of the range that is trained on.
        high: Upper end of that range.
        learnt: Whether the network sees it; it does not see the seed of a random draw.
        log: Whether the network sees its logarithm.
    """

    name: str
    unit: str
    low: float
    high: float
    learnt: bool = True
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(
                f"input {self.name!r}: the range [{self.low:g}, {self.high:g}] {self.unit} is "
                "reversed or not a number. Give the lower end first"
            )
        if self.log and self.low <= 0.0:
            raise ValueError(f"input {self.name!r}: {self.low:g} {self.unit} has no logarithm")

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the range, as logarithms where those are what the network sees."""
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is learnt: names, units and shapes of inputs and fields.

    Attributes:
        field_names: One per channel of a sample.
        field_units: One SI unit per channel.
        input_fields: The last of ``field_names``, as far as they are given: what an operator maps
            to the others.
        shape: Grid points, one number per axis, without channels.
        spacing: Grid spacing in metres, one per axis of ``shape``.
        parameters: In the order in which they stand in a sample's inputs.
        time: Times in seconds that are trained on.
        snapshots: Of one member, at most.
        window: Consecutive snapshots in a sample.
        time_step: Seconds from one snapshot of a window to the next.
        step_every: Solver steps from one snapshot of a window to the next.
    """

    field_names: tuple[str, ...]
    field_units: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    parameters: tuple[Input, ...]
    time: Input
    snapshots: int = 1
    window: int = 1
    time_step: float = 1.0
    step_every: int = 1
    input_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.field_units) != len(self.field_names):
            raise ValueError(
                f"one unit per channel: names={self.field_names}, units={self.field_units}"
            )
        if len(self.spacing) != len(self.shape):
            raise ValueError(
                f"one spacing per grid axis: shape={self.shape}, spacing={self.spacing}"
            )
        if self.input_fields != self.field_names[self.num_predicted :]:
            raise ValueError(
                f"input_fields={self.input_fields} must be the last of {self.field_names}"
            )

    def with_times(self, low: float, high: float) -> "Problem":
        """The same for the times that were seen; as announced where they are that to rounding."""
        near = 1e-6 * max(abs(low), abs(high))
        if max(abs(low - self.time.low), abs(high - self.time.high)) <= near:
            return self
        return replace(self, time=replace(self.time, low=low, high=high))

    @property
    def num_predicted(self) -> int:
        """Channels that are predicted; the others are given."""
        return len(self.field_names) - len(self.input_fields)

    @property
    def field_shape(self) -> tuple[int, ...]:
        """Of what is predicted for one time: ``(channel, *grid)``."""
        return (self.num_predicted, *self.shape)

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Of the input fields: ``(channel, *grid)``, with no channel where there are none."""
        return (len(self.input_fields), *self.shape)

    @property
    def learnt(self) -> tuple[Input, ...]:
        """Parameters that the network sees."""
        return tuple(each for each in self.parameters if each.learnt)

    @property
    def num_inputs(self) -> int:
        """Inputs of a sample: parameters, then the time of each snapshot in the window."""
        return len(self.parameters) + self.window


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Index batches over the slots, promised to one rank until given back.

    Attributes:
        id: Names the lease when it is given back.
        indices: Slot numbers, one row per batch.
        finished: The stream is over for this rank and everything was drawn.
        stop_asked: Somebody wants the training to end here: take a checkpoint, then leave.
    """

    id: int
    indices: Int64[np.ndarray, " batches batch"]
    finished: bool
    stop_asked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Count, mean and summed squared deviation per channel, and range of times; they merge exactly.

    Attributes:
        count: Samples that were looked at.
        field_count: Field values per channel that were looked at.
        field_mean: Mean per channel, in the field's unit.
        field_m2: Sum of squared deviations from it.
        step_count: Values per channel of the change from one snapshot of a window to the next.
        step_m2: Sum of the squares of those changes.
        time_low: The first time, in seconds; infinite where there is no sample.
        time_high: The last time.
    """

    count: int
    field_count: int
    field_mean: Float64[np.ndarray, " channel"]
    field_m2: Float64[np.ndarray, " channel"]
    step_count: int
    step_m2: Float64[np.ndarray, " channel"]
    time_low: float
    time_high: float

    def merge(self, other: Self) -> Self:
        """Moments of both together (Chan, Golub, LeVeque 1979)."""
        field_count = self.field_count + other.field_count
        share = other.field_count / max(1, field_count)
        shift = other.field_mean - self.field_mean
        between = shift**2 * (self.field_count * share)
        return type(self)(
            count=self.count + other.count,
            field_count=field_count,
            field_mean=self.field_mean + shift * share,
            field_m2=self.field_m2 + other.field_m2 + between,
            step_count=self.step_count + other.step_count,
            step_m2=self.step_m2 + other.step_m2,
            time_low=min(self.time_low, other.time_low),
            time_high=max(self.time_high, other.time_high),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Validation samples that have arrived at this rank so far.

    Attributes:
        fields: ``(sample, window, channel, *grid)``, in the fields' units.
        inputs: Parameters, then the time of each snapshot in the window.
        members: Member number of each sample.
        steps: Solver step of each sample's first snapshot.
        complete: No further validation sample will come.
    """

    fields: Float[np.ndarray, " sample window channel *grid"]
    inputs: Float64[np.ndarray, " sample inputs"]
    members: Int64[np.ndarray, " sample"]
    steps: Int64[np.ndarray, " sample"]
    complete: bool


@runtime_checkable  # so that the test run can check it where it is passed
class BatchSource(Protocol):
    """Where one rank's batches come from."""

    @property
    def fields(self) -> Float[np.ndarray, " slot window channel *grid"]:
        """The slots. Only rows named by a live lease may be read."""
        ...

    @property
    def inputs(self) -> Float64[np.ndarray, " slot inputs"]:
        """Parameters, then the time of each snapshot in the window, for each slot."""
        ...

    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        ...

    def moments(self) -> Moments:
        """Statistics of what is held; before the first lease of whole members, if there are any.

        Call it after the watermark.
        """
        ...

    def lease(self, batches: int, *, timeout: float) -> Lease:
        """Draw up to ``batches`` batches; wait up to ``timeout`` seconds for the first."""
        ...

    def replay(self, batches: int) -> Lease:
        """Draw exactly ``batches`` batches again after the stream has finished."""
        ...

    def give_back(self, lease_id: int) -> None:
        """End a lease: its batches were trained on."""
        ...

    def held_validation(self) -> Held:
        """Validation samples that have arrived so far."""
        ...
