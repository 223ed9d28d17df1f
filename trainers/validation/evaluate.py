"""Validation: errors of each field over members that are never trained on.

Each rank holds a share of every member's samples; the errors are summed over the ranks. Those of
each member go into a table, ``validation.jsonl``: a line for each validation, and nowhere else.

Invariants (``tests/unit/trainers/validation/test_evaluate.py``, ``tests/integration/test_ddp.py``):

1. The result does not depend on how the members are spread over the ranks.
2. A rank without a sample takes part in every collective call.
3. Memory is bounded: ``CHUNK_BYTES`` of predictions at once, ``KEPT_BYTES`` in a rank's file.
4. No training batch is drawn, and the network is left in training mode.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import nn

from trainers.base import BatchSource, Held
from trainers.durable import append_line
from trainers.loop.lockstep import LockStep
from trainers.loop.staging import tensor_over
from trainers.results import QueryTime, ValidationResult
from trainers.tasks.build import Task
from trainers.tasks.direct import Compared
from trainers.tasks.stepping import Stepping
from trainers.validation.members import add_up, compare_rows, sum_by_member
from trainers.validation.speed import query_time
from trainers.validation.trajectories import Trajectory, trajectories

CHUNK_BYTES: Final = 64 * 2**20
KEPT_BYTES: Final = 256 * 2**20

_log = logging.getLogger(__name__)


@final
class Validation:
    """Measures one network against what a source holds for validation.

    Args:
        source: Holds this rank's share of the samples.
        task: How the network is used.
        model: The network.
        ranks: The collectives of the training.
        table: File that the members' errors are appended to; None: they are not kept.
    """

    def __init__(
        self,
        source: BatchSource,
        task: Task,
        model: nn.Module,
        ranks: LockStep,
        table: Path | None = None,
    ) -> None:
        self._source, self._task, self._model, self._ranks = source, task, model, ranks
        self._table = table
        self._newest: dict[int, list[float]] = {}  # errors of each member, one a field
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

    def write(self, path: Path) -> None:
        """Write this rank's snapshots of the best, the median and the worst member, as ``.npz``.

        Tasks that step are shown as rollouts. Snapshots of large members are thinned out evenly.
        """
        held = self._hold()
        wanted = [member for member in telling_members(self._newest) if member in held.members]
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
        mine = sum_by_member(held.members, self._errors(held), self._rollout_errors(held))
        padded = np.full((self._ranks.most(len(mine)), mine.shape[1]), -1.0)
        padded[: len(mine)] = mine
        everyone = self._ranks.gather(padded).reshape(-1, mine.shape[1])
        rows = everyone[everyone[:, 0] >= 0]
        if len(rows) == 0:
            return None
        one_step, rollout = add_up(rows)
        self._newest = rollout.nrmse or one_step.nrmse
        problem = self._task.problem
        if self._table is not None:
            line = {
                "train_step": train_step,
                "fields": problem.field_names[: problem.num_predicted],
                "std": one_step.std.tolist(),
                "one_step": one_step.nrmse,
                "rollout": rollout.nrmse,
            }
            try:
                append_line(self._table, line)
            except OSError as error:  # a full disk must not end the training
                _log.warning("the errors of the validation members are not kept: %s", error)
        errors = one_step.errors(problem)
        assert errors is not None
        return ValidationResult(
            train_step=train_step,
            samples=int(one_step.samples.sum()),
            one_step=errors,
            rollout=rollout.errors(problem),
            query=self._query_time(),
        )

    def _query_time(self) -> QueryTime:
        """Measured once: training does not change how long a network takes."""
        if self._query is None:
            with evaluating(self._model):
                self._query = query_time(self._task, self._model)
        return self._query

    def _errors(self, held: Held) -> Float64[np.ndarray, " 4 sample channel"]:
        found = np.empty((4, len(held.members), self._task.problem.num_predicted))
        for part in _parts(len(held.members), held.fields[:1].nbytes):
            found[:, part] = compare_rows(*self._compare(held, part))
        return found

    def _rollout_errors(self, held: Held) -> dict[int, Float64[np.ndarray, " 2 channel"]]:
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
                    torch.from_numpy(each[known].astype(np.float32))[None]
                    for each in (prediction, truth)
                )
                errors[trajectory.member] = compare_rows(*pair)[:2, 0]
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


def telling_members(errors: Mapping[int, Sequence[float]]) -> list[int]:
    """The best, the median and the worst member; fewer when there are fewer."""
    ordered = sorted(errors, key=lambda member: (sum(errors[member]), member))
    telling = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return list(dict.fromkeys(telling))


def _parts(count: int, sample_bytes: int) -> list[slice]:
    step = max(1, CHUNK_BYTES // max(1, sample_bytes))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
