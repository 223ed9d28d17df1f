"""Settings of ``kind: kuramoto_sivashinsky``."""

from math import ceil
from typing import Literal

from pydantic import (
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like

# A stencil reaches three points to either side, and may not meet itself round the line.
_FEWEST_POINTS = 8
# Waves shorter than 2 pi are damped: nine points for the shortest that is not.
_LARGEST_SPACING = 0.7


class KuramotoSivashinskyConfig(SteppedConfig):
    """Settings of ``kind: kuramoto_sivashinsky``; see the docstring of its solver's module."""

    target = "solvers.pdes.kuramoto_sivashinsky:KuramotoSivashinsky"
    summary = "the Kuramoto-Sivashinsky equation on a periodic line"

    kind: Literal["kuramoto_sivashinsky"] = "kuramoto_sivashinsky"
    grid: tuple[StrictInt] = Field(
        default=(128,), description="points (x), at least 8, and at most 0.7 apart [1]"
    )
    steps: Count = Field(default=200, description="snapshots after the initial one [1]")
    dt: Positive = Field(default=0.25, description="time between snapshots [1]")
    length: Positive = Field(default=64.0, description="length of the line [1]")
    terms: StrictInt = Field(default=5, ge=1, le=1000, description="sines in an initial state [1]")
    waves: Count = Field(default=4, description="most waves of a sine on the line [1]")
    petsc_options: str = Field(
        default="", description="PETSc options of the time stepper, as on a command line"
    )

    @field_validator("grid")
    @classmethod
    def _enough_points(cls, grid: tuple[int]) -> tuple[int]:
        if grid[0] < _FEWEST_POINTS:
            raise ValueError(
                f"need at least {_FEWEST_POINTS} points. Give at least [{_FEWEST_POINTS}]"
            )
        return grid

    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type jacobi"))

    @model_validator(mode="after")
    def _damps_the_shortest_waves(self) -> "KuramotoSivashinskyConfig":
        spacing = self.length / self.grid[0]
        if spacing > _LARGEST_SPACING:
            raise ValueError(
                f"grid={list(self.grid)} is too coarse for length={self.length:g}: the spacing is "
                f"{spacing:.3g}, and above {_LARGEST_SPACING:g} the chaos is not that of the "
                f"equation. Give at least {ceil(self.length / _LARGEST_SPACING)} points, or a "
                "shorter line"
            )
        return self

    def parameters(self) -> tuple[Parameter, ...]:
        """What chooses the initial state."""
        return (
            Parameter(
                name="amplitude",
                unit="1",
                low=0.1,
                high=1.0,
                description="largest amplitude of a sine of the initial state",
            ),
            Parameter(
                name="seed",
                unit="1",
                low=0.0,
                high=1e6,
                description="draws the initial state; its whole part counts",
                seed=True,
            ),
        )

    def spec(self) -> FieldSpec:
        """One channel, u at the points."""
        return FieldSpec(
            names=("u",), units=("1",), shape=self.grid, spacing=(self.length / self.grid[0],)
        )
