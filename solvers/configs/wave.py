"""Settings of ``kind: wave``: checked at load, without PETSc."""

from math import hypot, sqrt
from typing import Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like, three_points

__all__ = ["WaveConfig"]

# Where (speed dt)^2 times the largest eigenvalue of the stencil, 16/3 (1 / hx^2 + 1 / hy^2), is 6.
_LIMIT = sqrt(9 / 8)


class WaveConfig(SteppedConfig):
    """Settings of ``kind: wave``; what they mean is in the docstring of ``solvers.pdes.wave``."""

    target = "solvers.pdes.wave:Wave"
    summary = "waves on a 2-D membrane"

    kind: Literal["wave"] = "wave"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="cells (y, x), at least 3 each [1]"
    )
    steps: Count = Field(default=200, description="solver steps of a member [1]")
    dt: Positive = Field(default=0.01, description="time step [s]")
    length: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0), description="size of the membrane (y, x) [m]"
    )
    speed: Positive = Field(default=1.0, description="wave speed [m/s]")
    walls: Literal["fixed", "free"] = Field(
        default="fixed",
        description="'fixed' holds the edge at 0 m and turns a wave over, 'free' leaves it loose",
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the linear solver, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type gamg"))

    @model_validator(mode="after")
    def _stable(self) -> Self:
        hy, hx = self.spec().spacing
        limit = _LIMIT / (self.speed * hypot(1 / hx, 1 / hy))
        if self.dt > limit:
            raise ValueError(
                f"dt={self.dt:g} s is unstable: need dt <= {_LIMIT:.3g} / (speed sqrt(1 / hx^2 + "
                f"1 / hy^2)) = {limit:.3g} s (hx={hx:.3g} m, hy={hy:.3g} m, speed={self.speed:g} "
                "m/s). Reduce dt, or take fewer cells"
            )
        return self

    def parameters(self) -> tuple[Parameter, ...]:
        """The bump that a member starts from; it stays 3.75 widths away from the walls."""
        ly, lx = self.length
        shorter = min(ly, lx)
        return tuple(
            Parameter(name=name, unit="m", low=low, high=high, description=description)
            for name, low, high, description in (
                ("x", 0.3 * lx, 0.7 * lx, "centre of the bump, from the west wall"),
                ("y", 0.3 * ly, 0.7 * ly, "centre of the bump, from the south wall"),
                ("width", 0.04 * shorter, 0.08 * shorter, "standard deviation of the bump, > 0"),
                ("height", 0.5, 1.5, "displacement at the centre of the bump"),
            )
        )

    def spec(self) -> FieldSpec:
        """Two channels, displacement and velocity at the cell centres."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("displacement", "velocity"),
            units=("m", "m/s"),
            shape=self.grid,
            spacing=(ly / ny, lx / nx),
        )
