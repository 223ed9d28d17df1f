"""Settings of ``kind: gray_scott``: checked at load, without PETSc."""

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

__all__ = ["GrayScottConfig"]

# How far the classical Runge-Kutta scheme is stable on the negative real axis.
_REAL_LIMIT = 2.785
# Largest v^2 + F, the rate at which u is used up where it meets v: v stays below 0.5.
_REACTION = 0.3


class GrayScottConfig(SteppedConfig):
    """Settings of ``kind: gray_scott``; their meaning is in the docstring of its solver."""

    target = "solvers.pdes.gray_scott:GrayScott"
    summary = "two reacting and diffusing species that form patterns, 2-D and periodic"

    kind: Literal["gray_scott"] = "gray_scott"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="points (y, x), at least 3 each [1]"
    )
    steps: Count = Field(default=1000, description="solver steps of a member [1]")
    dt: Positive = Field(default=0.5, description="time step, dimensionless [1]")
    length: tuple[Positive, Positive] = Field(
        default=(0.5, 0.5), description="period (y, x), dimensionless [1]"
    )
    diffusion_u: Positive = Field(default=2e-5, description="diffusivity of u [1]")
    diffusion_v: Positive = Field(default=1e-5, description="diffusivity of v [1]")
    spots: StrictInt = Field(
        default=2, ge=1, le=1000, description="spots of v in the initial state [1]"
    )
    spot_width: Positive = Field(
        default=0.05, description="standard deviation of a spot, dimensionless [1]"
    )
    seed: StrictInt = Field(
        default=0, ge=0, description="where the spots lie, the same for every member [1]"
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the time stepper, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ts_type cn -ksp_type gmres"))

    @model_validator(mode="after")
    def _stable(self) -> Self:
        # Another scheme has another limit, and an implicit one has none.
        chosen = {"-ts_type", "-ts_rk_type"} & set(self.petsc_options.split())
        hy, hx = self.spec().spacing
        diffusion = max(self.diffusion_u, self.diffusion_v)
        limit = _REAL_LIMIT / (16 / 3 * diffusion * (1 / hy**2 + 1 / hx**2) + _REACTION)
        if not chosen and self.dt > limit:
            raise ValueError(
                f"dt={self.dt:g} is unstable for the classical Runge-Kutta scheme: need "
                f"dt <= {_REAL_LIMIT} / (16/3 D (1/hy^2 + 1/hx^2) + {_REACTION}) = {limit:.3g} "
                f"(hy={hy:.3g}, hx={hx:.3g}, D={diffusion:g}). Reduce dt or the grid, or choose "
                "an implicit scheme: petsc_options: '-ts_type cn'"
            )
        return self

    def parameters(self) -> tuple[Parameter, ...]:
        """The two rates that select the pattern."""
        return (
            Parameter(
                name="F", unit="1", low=0.03, high=0.05,
                description="feed rate: u comes in, u and v are washed out",
            ),
            Parameter(
                name="k", unit="1", low=0.058, high=0.063,
                description="kill rate: v turns into what does not react",
            ),
        )  # fmt: skip

    def spec(self) -> FieldSpec:
        """Two channels, the concentrations at the grid points."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("u", "v"), units=("1", "1"), shape=self.grid, spacing=(ly / ny, lx / nx)
        )
