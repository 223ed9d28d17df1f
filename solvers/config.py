"""Says which PDE a study simulates and how finely: one frozen model per solver, checked at load.

1. Nothing heavy is imported: a study is checked on a machine without PETSc.
2. Every number says its unit, and every refused value says the limit and what to do.
3. ``parameters()`` and ``spec()`` are known before anything runs.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictInt,
    field_validator,
)

from solvers.base import FieldSpec, Parameter, SolverFailed
from solvers.configs.burgers import BurgersConfig
from solvers.configs.cavity import CavityConfig
from solvers.configs.checks import options_like, three_points
from solvers.configs.gray_scott import GrayScottConfig
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.configs.lorenz import LorenzConfig
from solvers.configs.own import OwnConfig
from solvers.configs.program import ProgramConfig
from solvers.configs.wave import WaveConfig

# Fields are yielded as float32, which ends at 3.4e38: this leaves room for the walls' source terms.
_LARGEST_VALUE = 1e30

_Positive = Annotated[FiniteFloat, Field(gt=0)]


class HeatConfig(BaseModel):
    """Settings of ``kind: heat``; what they mean is in the docstring of ``solvers.heat``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["heat"] = "heat"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="cells (y, x), at least 3 each [1]"
    )
    steps: StrictInt = Field(default=100, ge=1, description="solver steps of a member [1]")
    dt: FiniteFloat = Field(default=0.01, gt=0, description="time step [s]")
    length: tuple[_Positive, _Positive] = Field(
        default=(1.0, 1.0), description="size of the plate (y, x) [m]"
    )
    diffusivity: FiniteFloat = Field(default=0.1, gt=0, description="thermal diffusivity [m^2/s]")
    petsc_options: str = Field(
        default="", description="PETSc options of the linear solver, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type gamg"))

    @property
    def max_snapshots(self) -> int:
        """Snapshots of one member, the initial state included."""
        return self.steps + 1

    @property
    def end_time(self) -> float:
        """Time of the last snapshot [s]."""
        return self.steps * self.dt

    def parameters(self) -> tuple[Parameter, ...]:
        """The five temperatures that tell one member from another."""
        return tuple(
            Parameter(name=name, unit="K", low=100.0, high=500.0, description=description)
            for name, description in (
                ("initial", "temperature of the whole plate at time 0"),
                ("west", "temperature of the wall at x = 0"),
                ("east", "temperature of the wall at x = length x"),
                ("south", "temperature of the wall at y = 0"),
                ("north", "temperature of the wall at y = length y"),
            )
        )

    def spec(self) -> FieldSpec:
        """One channel, the temperature at the cell centres."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("temperature",), units=("K",), shape=self.grid, spacing=(ly / ny, lx / nx)
        )


AnySolverConfig = (
    HeatConfig
    | BurgersConfig
    | KuramotoSivashinskyConfig
    | WaveConfig
    | GrayScottConfig
    | CavityConfig
    | LorenzConfig
    | ProgramConfig
    | OwnConfig
)

SolverConfig = Annotated[AnySolverConfig, Field(discriminator="kind")]


def member_values(announced: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, float]:
    """The parameters of one member as plain floats, exactly those that the solver announces.

    Raises:
        ValueError: A name is missing or unknown; the caller is wrong, not the member.
        SolverFailed: A value cannot be computed with.
    """
    names = [parameter.name for parameter in announced]
    if set(given) != set(names):
        raise ValueError(
            f"parameters={sorted(given)}: this solver needs exactly {names} "
            f"(missing: {sorted(set(names) - set(given))}, "
            f"unknown: {sorted(set(given) - set(names))})"
        )
    values = {name: float(given[name]) for name in names}
    for parameter in announced:
        value = values[parameter.name]
        if not abs(value) <= _LARGEST_VALUE:  # written so that NaN is refused too
            raise SolverFailed(
                f"{parameter.name}={value:g} {parameter.unit}: not a finite number of magnitude "
                f"<= {_LARGEST_VALUE:g}; meant for [{parameter.low:g}, {parameter.high:g}]"
            )
    return values
