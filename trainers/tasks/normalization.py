"""Normalisation: from statistics of what was simulated so far to numbers of order one.

Invariants (``tests/unit/trainers/tasks/test_normalization.py``):

1. Merged moments are those of all samples taken together, in whatever parts they came.
2. Every rank normalises alike: what is merged depends on the order of the ranks alone.
3. A constant input or channel is shifted, not scaled: nothing is divided by zero.
4. A normalisation read back from its own JSON is the same to the last bit.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float64

from trainers.base import Moments, Problem

_Vector = Float64[np.ndarray, " n"]

MISFIT: Final = 2.0  # times the standard deviation that was taken
FEW: Final = 30  # samples say little of a standard deviation


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """``normalised = (physical - offset) / scale``, per channel and per input.

    Attributes:
        field_offset: Mean of each channel, in its unit.
        field_scale: Standard deviation of each channel, in its unit.
        input_offset: Middle of each parameter's range, then of the times, in their units; where
            the network sees the logarithm of a parameter, the middle of its logarithms.
        input_scale: Half the width of each range, of logarithms as for ``input_offset``.
        step_scale: Root mean square change of each channel from one snapshot to the next.
    """

    field_offset: Float64[np.ndarray, " channel"]
    field_scale: Float64[np.ndarray, " channel"]
    input_offset: Float64[np.ndarray, " inputs"]
    input_scale: Float64[np.ndarray, " inputs"]
    step_scale: Float64[np.ndarray, " channel"]

    @classmethod
    def of(cls, moments: Moments, problem: Problem) -> Self:
        """Fields by what was simulated, inputs by the ranges they are drawn from.

        The ranges are known, while the first members say little about a parameter: their mean
        would differ from study to study.
        """
        low, high = np.array([each.ends for each in (*problem.parameters, problem.time)]).T
        half = (high - low) / 2
        deviation = np.sqrt(moments.field_m2 / max(1, moments.field_count))
        change = np.sqrt(moments.step_m2 / max(1, moments.step_count))
        return cls(
            field_offset=moments.field_mean,
            field_scale=_scale(deviation, moments.field_mean),
            input_offset=(low + high) / 2,
            input_scale=np.where(half > 0.0, half, 1.0),
            step_scale=_scale(change, moments.field_mean),
        )

    def misfits(self, later: Moments, problem: Problem) -> list[str]:
        """What to say of channels that have come to vary far more, or less, than when it was made.

        Args:
            later: Statistics of what has been trained on since.
            problem: Names of the channels.
        """
        if later.count < FEW:
            return []
        shift, variance = later.field_mean - self.field_offset, later.field_m2 / later.field_count
        spread = np.sqrt(variance)
        size = np.sqrt(variance + shift**2)  # of the normalised field, were the scale 1
        constant = (self.field_scale == 1.0) & (spread > 1e-6 * np.abs(later.field_mean))
        wide, narrow = size > MISFIT * self.field_scale, spread * MISFIT < self.field_scale
        narrow &= spread > 0
        return [
            f"field {name!r}: normalised by a standard deviation of {used:.3g} around "
            f"{offset:.3g} in the first members{', which is that of a constant' if was else ''}, "
            f"but of {std:.3g} around {mean:.3g} in what was trained on last. The network sees "
            "it too large or too small: add validation members, which fields are normalised by"
            for name, used, offset, std, mean, was, misfit in zip(
                problem.field_names, self.field_scale, self.field_offset, spread, later.field_mean,
                constant, constant | wide | narrow, strict=True,
            )
            if misfit
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Plain lists; ``from_json`` reads them back."""
        return {name: values.tolist() for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Self:
        """Read back what ``as_json`` made."""
        return cls(**{each.name: np.array(tree[each.name], np.float64) for each in fields(cls)})


def _scale(width: _Vector, offset: _Vector) -> _Vector:
    """The width, or 1 where it is nothing but rounding of float32 values around ``offset``."""
    rounding = 1e-6 * np.abs(offset)
    return np.where(width > rounding, width, 1.0)
