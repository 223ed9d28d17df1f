"""Frozen statistics of every part: what the progress display, the metrics and the report read.

1. Counters only grow; a rate is the reader's business.
2. Everything here turns into JSON with ``as_json`` and holds no array.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.reservoir.bookkeeping import ReservoirCounts
from pipeline.stats.breakeven import Breakeven, Cost
from pipeline.stats.regions import ErrorsOf
from pipeline.stream.intake import IntakeStats
from trainers.results import Errors, QueryTime, Spread, TrainStats

Phase = Literal["starting", "filling", "training", "draining", "done", "failed", "stopped"]
Waiting = Literal["nobody", "trainer", "solvers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberCounts:
    """How far the ensemble is; training and validation members together.

    Attributes:
        total: Members asked for.
        waiting: To be started, maybe again.
        running: Under way.
        completed: All of their samples are stored.
        failed: Given up.
        retries: Attempts after the first.
        redrawn: Of the failed, those that another member follows.
    """

    total: int
    waiting: int
    running: int
    completed: int
    failed: int
    retries: int
    redrawn: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservoirStats(ReservoirCounts, IntakeStats):
    """One reservoir, by number of samples unless said otherwise.

    Attributes:
        rank: The torch.distributed rank it feeds.
        trainer_blocked_seconds: Time the rank waited for a lease.
        validation_held: Validation samples stored.
        recorded: Samples taken into the record.
        record_dropped: Samples that the record should have, and has not.
        record_bytes: Written to the record.
        record_queue_bytes: Waiting to be written to it.
        record_problem: Why the record is incomplete; None while nothing has failed.
    """

    rank: int
    trainer_blocked_seconds: float
    validation_held: int
    recorded: int = 0
    record_dropped: int = 0
    record_bytes: int = 0
    record_queue_bytes: int = 0
    record_problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyStats:
    """The whole study at one moment; one line of ``metrics.jsonl``.

    Attributes:
        elapsed_seconds: Since the study was started.
        phase: What the study is doing.
        members: How far the ensemble is.
        reservoirs: One per rank.
        ranks: Newest report of each rank that has reported.
        samples_expected: Training samples the ensemble will yield at most.
        samples_inserted_per_second: Over the last few seconds.
        samples_drawn_per_second: Over the last few seconds.
        reuse_mean: Draws per inserted sample so far.
        waiting: Who waits for whom, judged over the last few seconds.
        solver_wait_seconds: Sum over finished attempts.
        remaining_seconds: Estimate of the time left; None while unknown.
        cost: What solvers and ranks have taken so far.
        breakeven: When that has paid, by the newest figures; None while unknown.
    """

    elapsed_seconds: float
    phase: Phase
    members: MemberCounts
    reservoirs: tuple[ReservoirStats, ...]
    ranks: tuple[TrainStats, ...]
    samples_expected: int
    samples_inserted_per_second: float
    samples_drawn_per_second: float
    reuse_mean: float
    waiting: Waiting
    solver_wait_seconds: float
    remaining_seconds: float | None
    cost: Cost = field(default_factory=Cost)
    breakeven: Breakeven | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a study leaves in ``summary.json``.

    Attributes:
        samples_inserted: Training samples stored.
        samples_unique: Of those, drawn at least once.
        samples_drawn: Draws.
        reuse_mean: ``samples_drawn / samples_inserted``.
        wall_seconds: From the start of the study to its end.
        first_step_seconds: From the start of the study to the first train step.
        trainer_wait_seconds: Time ranks waited for batches after their first step, mean over ranks.
        solver_wait_seconds: Time solvers waited for room in the reservoirs, sum over members.
        bytes_streamed: Field bytes stored in slots.
        notes: What a person should know of how it was trained: that it stopped early, say.
        one_step: Errors of single predictions over the validation members; None without them.
        rollout: Errors of their rollouts; None for tasks that do not step.
        errors_by_region: The members' errors by each parameter, the strongest effect first.
        query: How long the surrogate takes for a member.
        cost: What solvers and ranks have taken.
        breakeven: When that has paid.
        samples_recorded: Samples in the record.
        record_dropped: Samples that the record should have, and has not.
        record_problem: Why it is incomplete, if it is for another reason.
        draws_by_tenth: Mean draws per sample of each tenth of the stream, mean over ranks.
        effective_share: How even the draws were, see ``ReservoirStats``; mean over ranks.
    """

    name: str
    members_completed: int
    members_failed: int
    samples_inserted: int
    samples_unique: int
    samples_drawn: int
    reuse_mean: float
    train_steps: int
    wall_seconds: float
    first_step_seconds: float | None
    trainer_wait_seconds: float
    solver_wait_seconds: float
    bytes_streamed: int
    notes: tuple[str, ...] = ()
    one_step: Errors | None = None
    rollout: Errors | None = None
    errors_by_region: tuple[ErrorsOf, ...] = ()
    query: QueryTime | None = None
    cost: Cost | None = None
    breakeven: Breakeven | None = None
    samples_recorded: int = 0
    record_dropped: int = 0
    record_problem: str | None = None
    draws_by_tenth: tuple[float, ...] = ()
    effective_share: float | None = None

    @property
    def validation_error(self) -> float | None:
        """What the training was judged by: mean of the fields' errors, in standard deviations."""
        return None if self.one_step is None else self.one_step.nrmse

    @property
    def validation_mse(self) -> float | None:
        """Mean squared error, where there is one field."""
        return _of_one_field(self.one_step, "mse")

    @property
    def validation_relative_l2(self) -> float | None:
        """Mean relative error of the validation samples, where there is one field."""
        return _of_one_field(self.one_step, "relative_l2")

    @property
    def one_step_spread(self) -> Spread | None:
        """How the errors of the members' single predictions differ."""
        return None if self.one_step is None else self.one_step.spread

    @property
    def rollout_mse(self) -> float | None:
        """Mean squared error of the rollouts, where there is one field."""
        return _of_one_field(self.rollout, "mse")

    @property
    def rollout_relative_l2(self) -> float | None:
        """Mean relative error of the rollouts, where there is one field."""
        return _of_one_field(self.rollout, "relative_l2")

    @property
    def rollout_spread(self) -> Spread | None:
        """How the errors of the members' rollouts differ."""
        return None if self.rollout is None else self.rollout.spread

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists; the properties stand beside the attributes."""
        shown = {
            name: getattr(self, name) for name, value in vars(Summary).items()
            if isinstance(value, property)
        }  # fmt: skip
        spreads = {name: asdict(each) for name, each in shown.items() if isinstance(each, Spread)}
        return asdict(self) | {"notes": list(self.notes)} | shown | spreads


def _of_one_field(errors: Errors | None, name: str) -> float | None:
    if errors is None or len(errors.fields) > 1:
        return None
    return float(getattr(errors.fields[0], name))
