"""The validation members' errors: from the samples that each rank holds to one table of all.

1. Squares are taken and summed in float64, where those of float32 values neither overflow nor
   vanish; nothing is summed with cancellation.
2. A member whose prediction is not finite has an infinite error; it is never left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from trainers.base import Problem
from trainers.results import Errors, FieldError, Spread

ROUNDING = 1e-7  # relative; what deviates by less is constant in float32
# A row of a rank: member, samples, rollouts, then eight sums for each channel: squared errors,
# samples with a relative error and their relative errors, the same three of rollouts, and means and
# squared deviations of the truth.
_HEAD, _SUMS = 3, 8
_ByChannel = Float64[np.ndarray, " member channel"]
_Channels = Float64[np.ndarray, " channel"]


def compare_rows(
    prediction: Float32[Tensor, " row snapshot channel *grid"],
    truth: Float32[Tensor, " row snapshot channel *grid"],
) -> Float64[np.ndarray, " 4 row channel"]:
    """Mean squared error, relative error, and mean and variance of the truth.

    The relative error is nan where the truth is zero everywhere.
    """
    said, right = (each.double().transpose(1, 2).flatten(2) for each in (prediction, truth))
    squared = (said - right).square().mean(2)
    squared = torch.where(squared.isfinite(), squared, torch.inf)
    size = right.square().mean(2)
    relative = torch.where(size > 0, torch.sqrt(squared / size), torch.nan)
    return torch.stack([squared, relative, right.mean(2), right.var(2, correction=0)]).numpy()


def sum_by_member(
    members: Int64[np.ndarray, " sample"],
    compared: Float64[np.ndarray, " 4 sample channel"],
    rollouts: Mapping[int, Float64[np.ndarray, " 2 channel"]],
) -> Float64[np.ndarray, " member columns"]:
    """What a rank tells the others: a row for each member of which it holds samples."""
    numbers, places = np.unique(members, return_inverse=True)
    sums = np.zeros((_SUMS, len(numbers), compared.shape[2]))
    mean, variance = compared[2:]
    for total, values in zip(sums, _terms(compared[:2]), strict=False):
        np.add.at(total, places, values)
    counts = np.bincount(places, minlength=len(numbers))
    np.add.at(sums[6], places, mean)
    centre = sums[6] / counts[:, None]
    np.add.at(sums[7], places, variance + (mean - centre[places]) ** 2)
    rolled = np.isin(numbers, list(rollouts))
    for row in np.flatnonzero(rolled):
        sums[3:6, row] = _terms(rollouts[int(numbers[row])])
    by_member = np.moveaxis(sums, 1, 0).reshape(len(numbers), _SUMS * compared.shape[2])
    return np.column_stack([numbers, counts, rolled, by_member])


def _terms(pair: Float64[np.ndarray, " 2 *any"]) -> Float64[np.ndarray, " 3 *any"]:
    """Squared error, whether the relative error is known, and that, or zero."""
    known = ~np.isnan(pair[1])
    return np.stack([pair[0], known, np.where(known, pair[1], 0.0)])


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kind:
    """Errors of one kind, single predictions or rollouts; members are rows.

    Attributes:
        members: Their numbers, ascending.
        samples: Number of samples, or of rollouts, of each.
        mse: Mean squared errors.
        relative: Mean relative error of all samples; nan where the truth is zero everywhere.
        std: Standard deviation of each field over all samples.
    """

    members: Int64[np.ndarray, " member"]
    samples: Float64[np.ndarray, " member"]
    mse: _ByChannel
    relative: _Channels
    std: _Channels

    @property
    def nrmse(self) -> dict[int, list[float]]:
        """Root mean squared errors of each member, as shares of the standard deviations."""
        return dict(
            zip(self.members.tolist(), (np.sqrt(self.mse) / self.std).tolist(), strict=True)
        )

    def errors(self, problem: Problem) -> Errors | None:
        """All members together; None where there is none."""
        spread = Spread.of(map(np.mean, self.nrmse.values()))
        if spread is None:
            return None
        mse = np.average(self.mse, axis=0, weights=self.samples)
        columns = (each.tolist() for each in (mse, self.relative, np.sqrt(mse) / self.std))
        fields = tuple(
            FieldError(name=name, unit=unit, mse=one, relative_l2=share, nrmse=scaled)
            for name, unit, one, share, scaled in zip(
                problem.field_names, problem.field_units, *columns, strict=False
            )
        )
        return Errors(fields=fields, spread=spread)


def add_up(rows: Float64[np.ndarray, " row columns"]) -> tuple[Kind, Kind]:
    """Errors of single predictions and of rollouts, from the rows of all ranks."""
    members, places = np.unique(rows[:, 0].astype(np.int64), return_inverse=True)
    counts, sums = np.zeros((2, len(members))), rows[:, _HEAD:].reshape(len(rows), _SUMS, -1)
    np.add.at(counts.T, places, rows[:, 1:_HEAD])
    totals = np.zeros((len(members), *sums.shape[1:]))
    np.add.at(totals, places, sums)
    std, kinds = _deviation(rows[:, 1:2], sums[:, 6], sums[:, 7]), []
    for samples, (squared, known, relative) in zip(
        counts, np.split(np.moveaxis(totals[:, :6], 1, 0), 2), strict=True
    ):
        there = known.sum(0)
        kinds.append(
            Kind(
                members=members[samples > 0],
                samples=samples[samples > 0],
                mse=squared[samples > 0] / samples[samples > 0, None],
                relative=np.where(there > 0, relative.sum(0) / np.maximum(there, 1), math.nan),
                std=std,
            )
        )
    return kinds[0], kinds[1]


def _deviation(
    counts: Float64[np.ndarray, " row 1"],
    sums: Float64[np.ndarray, " row channel"],
    squares: Float64[np.ndarray, " row channel"],
) -> _Channels:
    """Of the truth, merged from those of the rows; its size where a field is constant."""
    mean = sums.sum(0) / counts.sum()
    between = (counts * (sums / counts - mean) ** 2).sum(0)
    std, size = np.sqrt((squares.sum(0) + between) / counts.sum()), np.abs(mean)
    return np.where(std > ROUNDING * size, std, np.where(size > 0, size, 1.0))
