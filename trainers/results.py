"""What a training says of itself: errors, times of queries, and how far each rank is.

1. What is not finite is null in strict JSON; ``from_json`` reads it back as it was.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float64

# With fewer members such a quantile would be little else than the largest error.
P95_MEMBERS: Final = 20
P99_MEMBERS: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How an error differs over the members: surrogates fail in the tail.

    Attributes:
        members: Members that were measured.
        diverged: Those among them whose prediction is not finite; their error is infinite.
        mean: Mean error.
        median: Median error, interpolated as the other quantiles are.
        p95: Error that 95 % of the members stay below; None with fewer than ``P95_MEMBERS``.
        p99: Error that 99 % of the members stay below; None with fewer than ``P99_MEMBERS``.
        max: Largest error.
        std: Standard deviation of the errors.
    """

    members: int
    diverged: int
    mean: float
    median: float
    p95: float | None
    p99: float | None
    max: float
    std: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of one error a member; None where there is no member."""
        errors = np.sort(np.fromiter(values, np.float64))  # nan last
        if errors.size == 0:
            return None
        diverged = int(np.count_nonzero(~np.isfinite(errors)))
        errors[errors.size - diverged :] = math.inf
        return cls(
            members=errors.size,
            diverged=diverged,
            mean=float(errors.mean()),
            median=_quantile(errors, 0.5),
            p95=_quantile(errors, 0.95) if errors.size >= P95_MEMBERS else None,
            p99=_quantile(errors, 0.99) if errors.size >= P99_MEMBERS else None,
            max=float(errors[-1]),
            std=math.inf if diverged else float(errors.std()),
        )


def _quantile(errors: Float64[np.ndarray, " member"], share: float) -> float:
    """Interpolate between two of the sorted errors, of which the last may be infinite."""
    below, part = divmod(share * (errors.size - 1), 1.0)
    low, high = errors[int(below)], errors[math.ceil(share * (errors.size - 1))]
    return float(low) if low == high else float(low + part * (high - low))


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
class FieldError:
    """How wrong the prediction of one field is.

    Attributes:
        name: Name of the field.
        unit: SI unit of the field.
        mse: Mean squared error in the unit squared; infinite where a member has diverged.
        relative_l2: Mean of ||prediction - truth|| / ||truth||, without the samples whose truth is
            zero everywhere; nan when there are no others.
        nrmse: Root mean squared error, as a share of the field's standard deviation over the
            validation members; of its size where it is constant.
    """

    name: str
    unit: str
    mse: float
    relative_l2: float
    nrmse: float

    @property
    def rmse(self) -> float:
        """Root mean squared error, in the field's unit."""
        return math.sqrt(self.mse)


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Errors of one kind: of single predictions, or of rollouts.

    Attributes:
        fields: Errors of each predicted field, over all members.
        spread: How the members' errors differ: of each, the mean of its fields' ``nrmse``.
    """

    fields: tuple[FieldError, ...]
    spread: Spread

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Read back strict JSON, in which null stands for what is not finite."""
        fewest, members = {"p95": P95_MEMBERS, "p99": P99_MEMBERS}, tree["spread"]["members"]
        fields: list[dict[str, Any]] = [
            {name: math.inf if value is None else value for name, value in one.items()}
            | ({"relative_l2": math.nan} if one["relative_l2"] is None is not one["mse"] else {})
            for one in tree["fields"]
        ]
        spread: dict[str, Any] = {
            name: math.inf if value is None and members >= fewest.get(name, 0) else value
            for name, value in tree["spread"].items()
        }
        return cls(fields=tuple(FieldError(**one) for one in fields), spread=Spread(**spread))

    @property
    def nrmse(self) -> float:
        """Mean over the fields, so that none drowns in another's unit."""
        return sum(each.nrmse for each in self.fields) / len(self.fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationResult:
    """Errors over all validation samples of all ranks.

    Attributes:
        train_step: Train step after which they were measured.
        samples: Number of samples they are over.
        one_step: Errors of single predictions, from the truth before them where the task steps.
        rollout: Errors of whole members, predicted from their first snapshots on; None for tasks
            that do not step.
        query: How long the network takes, on the rank that says so.
    """

    train_step: int
    samples: int
    one_step: Errors
    rollout: Errors | None = None
    query: QueryTime | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Read back strict JSON."""
        rollout, query = tree["rollout"], tree["query"]
        return cls(
            train_step=tree["train_step"],
            samples=tree["samples"],
            one_step=Errors.from_json(tree["one_step"]),
            rollout=None if rollout is None else Errors.from_json(rollout),
            query=None if query is None else QueryTime(**query),
        )

    @property
    def error(self) -> float:
        """What trainings are judged by."""
        return self.one_step.nrmse

    @property
    def shown(self) -> Errors:
        """Errors as the surrogate will be used: rollouts where the task steps."""
        return self.one_step if self.rollout is None else self.rollout


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
