"""Says what a study may set about ``kind: navier_stokes``, and what each member is told."""

from typing import Literal, Self

from pydantic import (
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like, three_points
from solvers.configs.random_fields import GaussianFieldConfig, SmoothFieldConfig

__all__ = ["NavierStokesConfig"]

# N(0, 7^(3/2) (-lap + 49)^(-5/2)) on the unit square, as far as waves up to 16 make it.
_BENCHMARK = GaussianFieldConfig(length_scale=1 / 7, smoothness=2.5, std=0.043, modes=16)


class NavierStokesConfig(SteppedConfig):
    """Settings of ``kind: navier_stokes``; see the docstring of ``solvers.pdes.navier_stokes``."""

    target = "solvers.pdes.navier_stokes:NavierStokes"
    summary = "forced 2-D flow on a periodic rectangle, from random initial vorticity"

    kind: Literal["navier_stokes"] = "navier_stokes"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="points (y, x), at least 3 each [1]"
    )
    steps: Count = Field(default=50, description="snapshots after the initial one [1]")
    dt: Positive = Field(default=1.0, description="time between snapshots [s]")
    length: tuple[Positive, Positive] = Field(default=(1.0, 1.0), description="period (y, x) [m]")
    initial: SmoothFieldConfig = Field(
        default=_BENCHMARK, description="vorticity at time 0: gaussian or sines, mean 0 [1/s]"
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the Poisson solver, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type gamg"))

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if 2 * self.initial.finest > min(self.grid):
            name = "modes" if self.initial.kind == "gaussian" else "waves"
            raise ValueError(
                f"initial.{name}={self.initial.finest} does not fit on grid={list(self.grid)}: a "
                f"wave needs at least two points. Give at most {min(self.grid) // 2}, or a grid of "
                f"at least {2 * self.initial.finest} points per axis"
            )
        return self

    @field_validator("initial")
    @classmethod
    def _without_a_mean(cls, initial: SmoothFieldConfig) -> SmoothFieldConfig:
        if initial.kind == "gaussian" and initial.mean != 0:
            raise ValueError(
                f"mean={initial.mean:g}: the vorticity of a periodic flow has mean 0. Leave it out"
            )
        return initial

    def parameters(self) -> tuple[Parameter, ...]:
        """Fluid, force, and the draw of the initial state."""
        return (
            Parameter(
                name="viscosity", unit="m^2/s", low=1e-5, high=1e-3,
                description="kinematic viscosity; best drawn from {loguniform: [...]}",
            ),
            Parameter(
                name="forcing", unit="1/s^2", low=0.0, high=0.2,
                description="amplitude of the force's curl; 0.1 in the benchmark",
            ),
            Parameter(
                name="seed", unit="1", low=0.0, high=1e6, seed=True,
                description="draws the initial vorticity; its whole part counts",
            ),
        )  # fmt: skip

    def spec(self) -> FieldSpec:
        """One channel, the vorticity at the grid points."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("vorticity",), units=("1/s",), shape=self.grid, spacing=(ly / ny, lx / nx)
        )
