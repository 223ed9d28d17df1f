"""Validation: errors in physical units over members that are never trained on.

Each rank holds a share of every member's samples; the errors are summed over the ranks.

Invariants (``tests/unit/test_trainer_evaluate.py``, ``tests/integration/test_ddp.py``):

1. The result does not depend on how the samples are spread over the ranks.
2. A rank without a sample takes part in every collective call.
3. Memory is bounded: ``CHUNK_BYTES`` of predictions at once, ``KEPT_BYTES`` in a rank's file.
4. No training batch is drawn, and the network is left in training mode.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from trainers.base import BatchSource, Held, ValidationResult
from trainers.distributed import LockStep
from trainers.staging import tensor_over
from trainers.tasks import Direct

CHUNK_BYTES: Final = 64 * 2**20
KEPT_BYTES: Final = 256 * 2**20
COLUMNS: Final = 5  # of the rows that ranks exchange


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

    def __init__(
        self, source: BatchSource, task: Direct, model: nn.Module, ranks: LockStep
    ) -> None:
        self._source, self._task, self._model, self._ranks = source, task, model, ranks
        self._held: Held | None = None

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
        """Write this rank's samples of the best, the median and the worst member, as ``.npz``.

        Members with too many bytes are thinned out evenly.
        """
        held = self._hold()
        rows = np.concatenate(
            [np.flatnonzero(held.members == member) for member in telling_members(result)]
        )
        most = max(1, KEPT_BYTES // (2 * held.fields[:1].nbytes or 1))
        rows = rows[:: -(-len(rows) // most) or 1]
        window = held.fields.shape[1]
        predicted = self._task.field_shape[0]
        prediction = np.empty((len(rows), *self._task.field_shape), np.float32)
        for part in _parts(len(rows), held.fields[:1].nbytes):
            prediction[part] = self._predict(held, rows[part])[:, 0].cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            members=held.members[rows],
            steps=held.steps[rows],
            times=held.inputs[rows, held.inputs.shape[1] - window],
            truth=held.fields[rows, 0, :predicted],
            prediction=prediction,
        )

    def _hold(self) -> Held:
        """What has arrived; asked for again only until it is complete."""
        if self._held is None or not self._held.complete:
            self._held = self._source.held_validation()
        return self._held

    def _measure(self, held: Held, train_step: int) -> ValidationResult | None:
        errors = self._errors(held)
        rows = _per_member(held.members, errors)
        padded = np.full((self._ranks.most(len(rows)), COLUMNS), -1.0)
        padded[: len(rows)] = rows
        everyone = self._ranks.gather(padded).reshape(-1, COLUMNS)
        return _result(everyone[everyone[:, 0] >= 0], train_step)

    def _errors(self, held: Held) -> SampleErrors:
        count = len(held.members)
        squared, relative = np.empty(count), np.empty(count)
        predicted = self._task.field_shape[0]
        for part in _parts(count, held.fields[:1].nbytes):
            prediction = self._predict(held, part)
            truth = tensor_over(held.fields[part]).to(prediction.device).float()[:, :, :predicted]
            error = (prediction - truth).square().flatten(1).mean(1, dtype=torch.float64)
            size = truth.square().flatten(1).mean(1, dtype=torch.float64)
            squared[part] = error.cpu().numpy()
            ratio = torch.where(size > 0, torch.sqrt(error / size), torch.nan)
            relative[part] = ratio.cpu().numpy()
        return SampleErrors(squared=squared, relative=relative)

    def _predict(
        self, held: Held, rows: slice | Int64[np.ndarray, " sample"]
    ) -> Float32[Tensor, " sample window channel *grid"]:
        device = self._task.device
        inputs = tensor_over(held.inputs[rows]).to(device)
        given = tensor_over(held.fields[rows][:, :, self._task.field_shape[0] :]).to(device)
        self._model.eval()
        try:
            with torch.inference_mode():
                return self._task.predict(self._model, inputs, given)
        finally:
            self._model.train()


def telling_members(result: ValidationResult) -> list[int]:
    """The best, the median and the worst member; fewer when there are fewer."""
    ordered = sorted(result.member_mse, key=lambda member: (result.member_mse[member], member))
    telling = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    return list(dict.fromkeys(telling))


def _parts(count: int, sample_bytes: int) -> list[slice]:
    step = max(1, CHUNK_BYTES // max(1, sample_bytes))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _per_member(
    members: Int64[np.ndarray, " sample"], errors: SampleErrors
) -> Float64[np.ndarray, " member columns"]:
    """Rows of member, samples, sum of squared errors, and number and sum of relative ones."""
    numbers, places = np.unique(members, return_inverse=True)
    known = ~np.isnan(errors.relative)

    def total(weights: Float64[np.ndarray, " sample"]) -> Float64[np.ndarray, " member"]:
        sums = np.bincount(places, weights=weights, minlength=len(numbers))
        return sums.astype(np.float64)  # bincount of nothing is of integers

    columns = (
        numbers.astype(np.float64),
        total(np.ones(len(members))),
        total(errors.squared),
        total(known.astype(np.float64)),
        total(np.where(known, errors.relative, 0.0)),
    )
    return np.stack(columns, axis=1)


def _result(rows: Float64[np.ndarray, " row columns"], train_step: int) -> ValidationResult | None:
    """Add up the rows of all ranks."""
    if len(rows) == 0:
        return None
    members, places = np.unique(rows[:, 0], return_inverse=True)
    samples = np.bincount(places, weights=rows[:, 1])
    squared = np.bincount(places, weights=rows[:, 2])
    total, known = samples.sum(), rows[:, 3].sum()
    return ValidationResult(
        train_step=train_step,
        samples=int(total),
        mse=float(squared.sum() / total),
        relative_l2=float(rows[:, 4].sum() / known) if known else math.nan,
        member_mse={
            int(member): float(mse) for member, mse in zip(members, squared / samples, strict=True)
        },
    )
