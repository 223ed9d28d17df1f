"""Validation: errors in physical units over members that are never trained on.

Each rank holds a share of every member's samples; the errors are summed over the ranks.

Invariants (``tests/unit/trainers/validation/test_evaluate.py``, ``tests/integration/test_ddp.py``):

1. The result does not depend on how the members are spread over the ranks.
2. A rank without a sample takes part in every collective call.
3. Memory is bounded: ``CHUNK_BYTES`` of predictions at once, ``KEPT_BYTES`` in a rank's file.
4. No training batch is drawn, and the network is left in training mode.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from trainers.base import BatchSource, Held, QueryTime, Spread, ValidationResult
from trainers.loop.lockstep import LockStep
from trainers.loop.staging import tensor_over
from trainers.tasks.base import Compared, Task
from trainers.tasks.stepping import Stepping
from trainers.validation.speed import query_time
from trainers.validation.trajectories import Trajectory, trajectories

CHUNK_BYTES: Final = 64 * 2**20
KEPT_BYTES: Final = 256 * 2**20
COLUMNS: Final = 7  # of the rows that ranks exchange


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleErrors:
    """Of each sample held by a rank.

    Attributes:
        squared: Mean squared error, unit of the field squared.
        relative: ||prediction - truth|| / ||truth||; nan where the truth is zero everywhere.
    """

    squared: Float64[np.ndarray, " sample"]
    relative: Float64[np.ndarray, " sample"]


@final
class Validation:
    """Measures one network against what a source holds for validation."""

    def __init__(self, source: BatchSource, task: Task, model: nn.Module, ranks: LockStep) -> None:
        self._source, self._task, self._model, self._ranks = source, task, model, ranks
        self._held: Held | None = None
        self._query: QueryTime | None = None

    def measure(self, train_step: int) -> ValidationResult | None:
        """Errors over all ranks; None while samples are still to come. Called by all ranks."""
        held = self._hold()
        if not self._ranks.all(held.complete):
            return None
        return self._measure(held, train_step)

    def measure_what_is_there(self, train_step: int) -> ValidationResult | None:
        """The same over what has arrived; None when nothing has. Called by all ranks."""
        return self._measure(self._hold(), train_step)

    def write(self, path: Path, result: ValidationResult) -> None:
        """Write this rank's snapshots of the best, the median and the worst member, as ``.npz``.

        Tasks that step are shown as rollouts. Snapshots of large members are thinned out evenly.
        """
        held = self._hold()
        wanted = [member for member in telling_members(result) if member in held.members]
        kept = max(1, KEPT_BYTES // (2 * held.fields[:1, :1].nbytes or 1))
        rows = []
        if isinstance(self._task, Stepping):
            for trajectory in trajectories(held, self._task, wanted):
                (prediction,) = self._rollouts([trajectory])
                rows += trajectory.rows(prediction, self._task.history)
        else:
            which = np.flatnonzero(np.isin(held.members, wanted))
            times = held.inputs[:, held.inputs.shape[1] - held.fields.shape[1]]
            for part in _parts(len(which), held.fields[:1].nbytes):
                compared = self._compare(held, which[part])
                rows += [
                    (held.members[row], held.steps[row], times[row], truth[0], prediction[0])
                    for row, truth, prediction in zip(
                        which[part],
                        compared.truth.numpy(),
                        compared.prediction.numpy(),
                        strict=True,
                    )
                ]
        rows = rows[:: -(-len(rows) // kept) or 1]
        grid = self._task.problem.field_shape
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            members=np.array([row[0] for row in rows], np.int64),
            steps=np.array([row[1] for row in rows], np.int64),
            times=np.array([row[2] for row in rows], np.float64),
            truth=np.array([row[3] for row in rows], np.float32).reshape(-1, *grid),
            prediction=np.array([row[4] for row in rows], np.float32).reshape(-1, *grid),
        )

    def _hold(self) -> Held:
        """What has arrived; asked for again only until it is complete."""
        if self._held is None or not self._held.complete:
            self._held = self._source.held_validation()
        return self._held

    def _measure(self, held: Held, train_step: int) -> ValidationResult | None:
        rows = _per_member(held.members, self._errors(held), self._rollout_errors(held))
        padded = np.full((self._ranks.most(len(rows)), COLUMNS), -1.0)
        padded[: len(rows)] = rows
        everyone = self._ranks.gather(padded).reshape(-1, COLUMNS)
        result = _result(everyone[everyone[:, 0] >= 0], train_step)
        return None if result is None else replace(result, query=self._query_time())

    def _query_time(self) -> QueryTime:
        """Measured once: training does not change how long a network takes."""
        if self._query is None:
            with evaluating(self._model):
                self._query = query_time(self._task, self._model)
        return self._query

    def _errors(self, held: Held) -> SampleErrors:
        count = len(held.members)
        squared, relative = np.empty(count), np.empty(count)
        for part in _parts(count, held.fields[:1].nbytes):
            compared = self._compare(held, part)
            squared[part], relative[part] = _of_rows(compared.prediction, compared.truth)
        return SampleErrors(squared=squared, relative=relative)

    def _rollout_errors(self, held: Held) -> dict[int, tuple[float, float]]:
        """Member -> mean square and relative error of its trajectory; empty where nothing steps."""
        if not isinstance(self._task, Stepping):
            return {}
        errors = {}
        every = trajectories(held, self._task, np.unique(held.members).tolist())
        for part in _parts(len(every), every[0].fields.nbytes if every else 1):
            together = every[part]
            for trajectory, prediction in zip(together, self._rollouts(together), strict=True):
                known = trajectory.known[self._task.history :]
                truth = trajectory.fields[self._task.history :, : prediction.shape[1]]
                pair = (
                    torch.from_numpy(each[known].astype(np.float32)).flatten()[None]
                    for each in (prediction, truth)
                )
                (squared,), (relative,) = _of_rows(*pair)
                errors[trajectory.member] = float(squared), float(relative)
        return errors

    def _rollouts(
        self, together: Sequence[Trajectory]
    ) -> list[Float32[np.ndarray, " steps channel *grid"]]:
        """Trajectories from their first snapshots on, as long as each is known."""
        task = self._task
        assert isinstance(task, Stepping)
        device, predicted = task.device, task.problem.num_predicted
        steps = max(len(each.fields) for each in together) - task.history
        start = torch.from_numpy(
            np.stack([each.fields[: task.history] for each in together]).astype(np.float32)
        ).to(device)
        with evaluating(self._model):
            prediction = task.rollout(
                self._model,
                torch.tensor(np.stack([each.parameters for each in together]), device=device),
                torch.tensor([each.times[task.history - 1] for each in together], device=device),
                start[:, :, :predicted],
                start[:, 0, predicted:],
                steps=steps,
            )
        lengths = [len(each.fields) - task.history for each in together]
        arrays = prediction.cpu().numpy()
        return [array[:length] for array, length in zip(arrays, lengths, strict=True)]

    def _compare(self, held: Held, rows: slice | Int64[np.ndarray, " sample"]) -> Compared:
        device = self._task.device
        with evaluating(self._model):
            compared = self._task.one_step(
                self._model,
                tensor_over(held.inputs[rows]).to(device),
                tensor_over(held.fields[rows]).to(device),
            )
        return Compared(compared.prediction.cpu(), compared.truth.cpu())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The network as it is used, and without gradients, while the block lasts."""
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train()


def _of_rows(
    prediction: Float32[Tensor, " row *rest"], truth: Float32[Tensor, " row *rest"]
) -> tuple[Float64[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
    """Mean squared and relative error of each row; nan where the truth is zero everywhere."""
    error = (prediction - truth).square().flatten(1).mean(1, dtype=torch.float64)
    size = truth.square().flatten(1).mean(1, dtype=torch.float64)
    ratio = torch.where(size > 0, torch.sqrt(error / size), torch.nan)
    return error.numpy(), ratio.numpy()


def telling_members(result: ValidationResult) -> list[int]:
    """The best, the median and the worst member; fewer when there are fewer."""
    ordered = sorted(result.member_mse, key=lambda member: (result.member_mse[member], member))
    telling = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return list(dict.fromkeys(telling))


def _parts(count: int, sample_bytes: int) -> list[slice]:
    step = max(1, CHUNK_BYTES // max(1, sample_bytes))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _per_member(
    members: Int64[np.ndarray, " sample"],
    errors: SampleErrors,
    rollouts: Mapping[int, tuple[float, float]],
) -> Float64[np.ndarray, " member columns"]:
    """Rows of member, samples, sum of squared errors, number and sum of relative ones, ...

    ... and of the rollout's mean square and relative error, nan where there is none.
    """
    numbers, places = np.unique(members, return_inverse=True)
    known = ~np.isnan(errors.relative)

    def total(weights: Float64[np.ndarray, " sample"]) -> Float64[np.ndarray, " member"]:
        sums = np.bincount(places, weights=weights, minlength=len(numbers))
        return sums.astype(np.float64)  # bincount of nothing is of integers

    none = (math.nan, math.nan)
    columns = (
        numbers.astype(np.float64),
        total(np.ones(len(members))),
        total(errors.squared),
        total(known.astype(np.float64)),
        total(np.where(known, errors.relative, 0.0)),
        np.array([rollouts.get(int(number), none)[0] for number in numbers], np.float64),
        np.array([rollouts.get(int(number), none)[1] for number in numbers], np.float64),
    )
    return np.stack(columns, axis=1)


def _result(rows: Float64[np.ndarray, " row columns"], train_step: int) -> ValidationResult | None:
    """Add up the rows of all ranks."""
    if len(rows) == 0:
        return None
    members, places = np.unique(rows[:, 0], return_inverse=True)
    names = [int(member) for member in members]

    def total(column: int) -> Float64[np.ndarray, " member"]:
        return np.bincount(places, weights=rows[:, column])

    samples, squared, known, relative = (total(column) for column in (1, 2, 3, 4))
    with np.errstate(invalid="ignore"):
        of_member = relative / known  # nan for a member whose truth is zero everywhere
    rolled = rows[~np.isnan(rows[:, 5])]
    rollout = {int(row[0]): float(row[6]) for row in rolled}
    return ValidationResult(
        train_step=train_step,
        samples=int(samples.sum()),
        mse=float(squared.sum() / samples.sum()),
        relative_l2=float(relative.sum() / known.sum()) if known.sum() else math.nan,
        member_mse=dict(zip(names, (squared / samples).tolist(), strict=True)),
        member_relative_l2=dict(zip(names, of_member.tolist(), strict=True)),
        rollout_mse=float(rolled[:, 5].mean()) if len(rolled) else None,
        rollout_relative_l2=float(np.nanmean(rolled[:, 6])) if len(rolled) else None,
        member_rollout=rollout,
        spread=Spread.of(rollout.values() if rollout else of_member.tolist()),
        one_step_spread=Spread.of(of_member.tolist()),
    )
