"""Says which random field a solver draws from a seed: a coefficient, an initial state, a forcing.

What the settings mean is in the docstring of ``solvers.numerics.random_fields``.

1. Nothing heavy is imported: a study is checked on a machine without PETSc.
2. Every number says its unit; ``[unit]`` is that of the field.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt

__all__ = [
    "AnyFieldConfig", "GaussianFieldConfig", "LognormalFieldConfig", "PositiveFieldConfig",
    "SinesFieldConfig", "SmoothFieldConfig", "TwoPhaseFieldConfig", "VoronoiFieldConfig",
]  # fmt: skip


class _FieldConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _SeriesConfig(_FieldConfig):
    """What makes the covariance of a Gaussian field."""

    length_scale: FiniteFloat = Field(
        default=0.2,
        gt=0,
        description="length 1 / tau, beyond which values hardly belong together [m]",
    )
    smoothness: FiniteFloat = Field(
        default=2.0,
        gt=1,
        le=10,
        description="exponent of the covariance; the larger, the smoother [1]",
    )
    modes: StrictInt = Field(
        default=32, ge=1, le=512, description="most waves (walls: half waves) along an axis [1]"
    )

    @property
    def finest(self) -> int:
        """Most waves, or half waves between walls, along an axis."""
        return self.modes


class GaussianFieldConfig(_SeriesConfig):
    """``kind: gaussian``: a Gaussian random field."""

    kind: Literal["gaussian"] = "gaussian"
    mean: FiniteFloat = Field(default=0.0, description="mean of every draw over the box [unit]")
    std: FiniteFloat = Field(default=1.0, ge=0, description="standard deviation [unit]")


class LognormalFieldConfig(_SeriesConfig):
    """``kind: lognormal``: the exponential of a Gaussian field."""

    kind: Literal["lognormal"] = "lognormal"
    median: FiniteFloat = Field(default=1.0, gt=0, description="median [unit]")
    log_std: FiniteFloat | None = Field(
        default=1.0,
        ge=0,
        description="standard deviation of the logarithm; null: a parameter of each member [1]",
    )


class TwoPhaseFieldConfig(_SeriesConfig):
    """``kind: two_phase``: one value where a Gaussian field is large, another where it is not."""

    kind: Literal["two_phase"] = "two_phase"
    low: FiniteFloat = Field(default=1.0, gt=0, description="the smaller value [unit]")
    contrast: FiniteFloat | None = Field(
        default=4.0,
        ge=1,
        description="the larger value over the smaller; null: a parameter of each member [1]",
    )
    share: FiniteFloat = Field(
        default=0.5, gt=0, lt=1, description="of the box with the larger value, on average [1]"
    )


class VoronoiFieldConfig(_FieldConfig):
    """``kind: voronoi``: constant on cells, each of which is what lies next to a random point."""

    kind: Literal["voronoi"] = "voronoi"
    cells: StrictInt = Field(default=20, ge=1, le=10_000, description="number of cells [1]")
    low: FiniteFloat = Field(default=1.0, gt=0, description="smallest value [unit]")
    contrast: FiniteFloat | None = Field(
        default=100.0,
        ge=1,
        description="largest value over the smallest; null: a parameter of each member [1]",
    )


class SinesFieldConfig(_FieldConfig):
    """``kind: sines``: a few sines with random amplitudes, directions, lengths and phases."""

    kind: Literal["sines"] = "sines"
    amplitude: FiniteFloat = Field(default=1.0, ge=0, description="largest of a sine [unit]")
    waves: StrictInt = Field(
        default=3, ge=1, le=512, description="most waves (walls: half waves) along an axis [1]"
    )
    terms: StrictInt = Field(default=5, ge=1, le=1000, description="number of sines [1]")

    @property
    def finest(self) -> int:
        """Most waves, or half waves between walls, along an axis."""
        return self.waves


SmoothFieldConfig = Annotated[GaussianFieldConfig | SinesFieldConfig, Field(discriminator="kind")]
PositiveFieldConfig = Annotated[
    TwoPhaseFieldConfig | VoronoiFieldConfig | LognormalFieldConfig, Field(discriminator="kind")
]
AnyFieldConfig = (
    GaussianFieldConfig
    | SinesFieldConfig
    | LognormalFieldConfig
    | TwoPhaseFieldConfig
    | VoronoiFieldConfig
)
