"""Where the value of one parameter comes from: the entries under ``parameters:`` of a study.

A distribution maps a place in the unit interval to a value, so that every design (random, low
discrepancy, grid) works with every distribution.

Invariants (``tests/unit/pipeline/study/test_distributions.py``):

1. ``at`` never leaves ``[lowest, highest]``.
2. ``at`` does not decrease.
3. A reversed, empty or non-finite range is refused when it is read.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag, model_validator

Quantiles = Float64[np.ndarray, " points"]

SYNTAX = "{uniform: [low, high]}, {loguniform: [low, high]}, {values: [a, b, ...]} or {constant: x}"


class _Distribution(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # Whether a network sees the value or its logarithm, unless trainer.parameter_scales says.
    scale: ClassVar[Literal["linear", "log"]] = "linear"

    @property
    def levels(self) -> int | None:
        """Number of different values; None for a range."""
        return None

    @property
    def lowest(self) -> float:
        """No value lies below it."""
        return min(self._numbers)

    @property
    def highest(self) -> float:
        """No value lies above it."""
        return max(self._numbers)

    @property
    def _numbers(self) -> tuple[float, ...]:
        """What was written under the only key."""
        (numbers,) = vars(self).values()
        return numbers if isinstance(numbers, tuple) else (numbers,)


def _ordered(key: str, low: float, high: float) -> None:
    if low > high:
        raise ValueError(
            f"the range is reversed, because low={low:g} must be below high={high:g}. "
            f"Write {key}: [{high:g}, {low:g}]"
        )
    if low == high:
        raise ValueError(
            f"the range is empty, because low={low:g} must be below high={high:g}. "
            f"Write {{constant: {low:g}}} for a value that does not vary"
        )


class Uniform(_Distribution):
    """Every value between two ends is equally likely."""

    uniform: tuple[FiniteFloat, FiniteFloat] = Field(description="[low, high]")

    @model_validator(mode="after")
    def _check(self) -> "Uniform":
        _ordered("uniform", *self.uniform)
        return self

    def at(self, quantiles: Quantiles) -> Quantiles:
        """Values at places in [0, 1]."""
        low, high = self.uniform
        # Not low + (high - low) * q: the difference of two large ends may overflow.
        return np.clip(low * (1.0 - quantiles) + high * quantiles, low, high)


class LogUniform(_Distribution):
    """The logarithm is uniform: for a parameter that spans orders of magnitude."""

    scale = "log"
    loguniform: tuple[FiniteFloat, FiniteFloat] = Field(description="[low, high], both above 0")

    @model_validator(mode="after")
    def _check(self) -> "LogUniform":
        low, high = self.loguniform
        _ordered("loguniform", low, high)
        if low <= 0.0:
            raise ValueError(
                f"low={low:g} must be above 0, since its logarithm is taken. "
                "Raise it, or use uniform"
            )
        return self

    def at(self, quantiles: Quantiles) -> Quantiles:
        """Values at places in [0, 1]."""
        low, high = self.loguniform
        exponents = math.log(low) * (1.0 - quantiles) + math.log(high) * quantiles
        return np.clip(np.exp(exponents), low, high)


class Values(_Distribution):
    """One of a list, each equally likely."""

    values: tuple[FiniteFloat, ...] = Field(min_length=1, description="[a, b, ...]")

    @model_validator(mode="after")
    def _check(self) -> "Values":
        if len(set(self.values)) < len(self.values):
            raise ValueError(
                f"each value may stand once, but {len(self.values) - len(set(self.values))} of "
                f"{len(self.values)} repeat another. Remove the repeated ones"
            )
        return self

    @property
    def levels(self) -> int:
        """Number of different values."""
        return len(self.values)

    def at(self, quantiles: Quantiles) -> Quantiles:
        """Values at places in [0, 1], in ascending order."""
        count = len(self.values)
        places = np.minimum((quantiles * count).astype(np.int64), count - 1)
        return np.sort(np.array(self.values, np.float64))[places]


class Constant(_Distribution):
    """The same value in every member."""

    constant: FiniteFloat = Field(description="x")

    @property
    def levels(self) -> int:
        """Number of different values."""
        return 1

    def at(self, quantiles: Quantiles) -> Quantiles:
        """Values at places in [0, 1]."""
        return np.full(quantiles.shape, self.constant)


def _key(value: object) -> str | None:
    if isinstance(value, dict):
        return next((key for key in value if key in KEYS), None)
    return next((key for key in KEYS if hasattr(value, key)), None)


KEYS = ("uniform", "loguniform", "values", "constant")

AnyDistribution = Uniform | LogUniform | Values | Constant

Distribution = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Values, Tag("values")]
    | Annotated[Constant, Tag("constant")],
    Discriminator(_key),
]


def grid_levels(distributions: Sequence[AnyDistribution], members: int) -> int | None:
    """Levels that every range of a full factorial grid of ``members`` points has; None: impossible.

    Where there is no range, 1.
    """
    points, ranges = fixed_points(distributions), count_ranges(distributions)
    if ranges == 0:
        return 1 if points == members else None
    levels = round((members / points) ** (1.0 / ranges))
    return levels if levels >= 1 and points * levels**ranges == members else None


def nearest_grids(distributions: Sequence[AnyDistribution], members: int) -> list[int]:
    """Numbers of members just below and above ``members`` that a full factorial grid can have."""
    points, ranges = fixed_points(distributions), count_ranges(distributions)
    if ranges == 0:
        return [points]
    below = max(1, math.floor((members / points) ** (1.0 / ranges)))
    return [points * below**ranges, points * (below + 1) ** ranges]


def fixed_points(distributions: Sequence[AnyDistribution]) -> int:
    """Combinations of all listed values."""
    return math.prod(each.levels for each in distributions if each.levels is not None)


def count_ranges(distributions: Sequence[AnyDistribution]) -> int:
    """How many of them are ranges."""
    return sum(each.levels is None for each in distributions)
