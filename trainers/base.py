"""What a trainer is fed with and what it says: the vocabulary of this package.

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
7. A checkpoint keeps what is held when ``begin_checkpoint`` returns. Batches that were leased and
   not trained on until then count as never drawn in it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How something differs over the members: surrogates fail in the tail."""

    mean: float
    median: float
    p95: float
    p99: float
    max: float
    std: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Of one value a member; quantiles are interpolated. None where there is no value."""
        array = np.fromiter(values, np.float64)
        array = array[np.isfinite(array)]
        if array.size == 0:
            return None
        median, p95, p99 = (float(np.quantile(array, share)) for share in (0.5, 0.95, 0.99))
        return cls(
            mean=float(array.mean()),
            median=median,
            p95=p95,
            p99=p99,
            max=float(array.max()),
            std=float(array.std()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryTime:
    """How long a surrogate takes for what a solver takes a member for.

    A query is all snapshots of one member: at once for tasks that map times to fields, one after
    the other for those that step.

    Attributes:
        device: Where it was measured, as torch names it.
        snapshots: Of a query.
        alone_seconds: For one query.
        batch: Queries that are computed together.
        batched_seconds: For one query among so many.
    """

    device: str
    snapshots: int
    alone_seconds: float
    batch: int
    batched_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationResult:
    """Errors over all validation samples of all ranks, in physical units.

    Attributes:
        train_step: Train step after which they were measured.
        samples: Number of samples they are over.
        mse: Mean squared error, unit of the field squared.
        relative_l2: Mean over samples of ||prediction - truth|| / ||truth||, without the samples
            whose truth is zero everywhere; nan when there are no others.
        member_mse: Member number -> its mean squared error.
        member_relative_l2: Member number -> mean relative error of its samples.
        rollout_mse: Mean squared error of whole trajectories, each predicted from its first
            snapshots on; None for tasks that do not step.
        rollout_relative_l2: Mean over members of ||prediction - truth|| / ||truth|| of those.
        member_rollout: Member number -> that relative error.
        spread: Of the members' relative errors; of their rollouts where the task steps.
        one_step_spread: Of the members' relative errors without rollouts; the same as ``spread``
            for tasks that do not step.
        query: How long the network takes, on the rank that says so.
    """

    train_step: int
    samples: int
    mse: float
    relative_l2: float
    member_mse: dict[int, float] = field(default_factory=dict)
    member_relative_l2: dict[int, float] = field(default_factory=dict)
    rollout_mse: float | None = None
    rollout_relative_l2: float | None = None
    member_rollout: dict[int, float] = field(default_factory=dict)
    spread: Spread | None = None
    one_step_spread: Spread | None = None
    query: QueryTime | None = field(default=None, compare=False)

    @property
    def error(self) -> float:
        """What trainings are judged by: ``relative_l2``, or ``mse`` where that is not a number."""
        return self.mse if math.isnan(self.relative_l2) else self.relative_l2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStats:
    """What a rank says of itself, every ``log_every`` train steps and at the end.

    Attributes:
        rank: torch.distributed rank.
        train_step: Train steps taken so far.
        loss: Mean loss since the last report, of the normalised fields.
        learning_rate: Of the next train step.
        wait_seconds: Total time this rank waited for batches so far, from its first step on.
        first_step_seconds: From the start of the loop to the first train step; None before it.
        validation: Newest result; None before the first.
        checkpoint: Train step of the newest checkpoint; None before the first.
        checkpoints_failed: Checkpoints that could not be written.
        notes: What a person should know of how it was trained, a sentence each.
    """

    rank: int
    train_step: int
    loss: float
    learning_rate: float
    wait_seconds: float
    first_step_seconds: float | None
    validation: ValidationResult | None
    checkpoint: int | None = None
    checkpoints_failed: int = 0
    notes: tuple[str, ...] = ()


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

    def give_back(self, lease_id: int, losses: Sequence[Float32[np.ndarray, " batch"]]) -> None:
        """End a lease, with the loss of each sample of each batch that was trained on."""
        ...

    def held_validation(self) -> Held:
        """Validation samples that have arrived so far."""
        ...

    def report(self, stats: TrainStats) -> None:
        """Tell whoever watches; never waits."""
        ...

    @property
    def stop_asked(self) -> bool:
        """Whether the training is to end here, after a checkpoint."""
        ...

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Begin to write what is held into ``folder``, beside what else goes on.

        Args:
            folder: Of the checkpoint, not complete yet.
            batches: How many of this source were trained on.
        """
        ...

    def checkpoint_done(self) -> bool:
        """Whether that is written, and listed in ``folder``.

        Raises:
            OSError: It cannot be written.
        """
        ...
