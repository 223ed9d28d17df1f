"""Says what a study may set about ``kind: cavity``, and what each member is told."""

from typing import Literal

from pydantic import Field, StrictInt, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like, three_points


class CavityConfig(SteppedConfig):
    """Settings of ``kind: cavity``; what they mean is in ``solvers/pdes/cavity.py``."""

    target = "solvers.pdes.cavity:Cavity"
    summary = "flow in a 2-D cavity whose lid slides, steady or unsteady"

    kind: Literal["cavity"] = "cavity"
    mode: Literal["unsteady", "steady"] = Field(
        default="unsteady",
        description="unsteady: in time, from rest; steady: the flows at growing lid speed [1]",
    )
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(63, 63), description="points (y, x) between the walls, at least 3 each [1]"
    )
    steps: Count = Field(
        default=100, description="solver steps of a member; steady: lid speeds [1]"
    )
    dt: Positive = Field(default=0.05, description="time step; not used if steady [s]")
    length: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0), description="size of the cavity (y, x) [m]"
    )
    lid: Literal["uniform", "regularised"] = Field(
        default="uniform", description="speed along the lid; regularised: 0 in its corners [1]"
    )
    petsc_options: str = Field(
        default="", description="PETSc options of SNES, KSP and PC, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ksp_type gmres -pc_type ilu"))

    @property
    def end_time(self) -> float:
        """Time of the last snapshot [s]; steady: the whole lid speed is reached [1]."""
        return self.time_of(self.steps)

    def time_of(self, step: int) -> float:
        """Time of a snapshot [s]; steady: the share of the lid speed that is reached [1]."""
        return step * self.dt if self.mode == "unsteady" else step / self.steps

    def parameters(self) -> tuple[Parameter, ...]:
        """The two numbers that tell one member from another; the viscosity follows from them."""
        return (
            Parameter(
                name="reynolds", unit="1", low=10.0, high=1000.0,
                description="lid speed times length x over kinematic viscosity",
            ),
            Parameter(
                name="lid_speed", unit="m/s", low=0.5, high=2.0,
                description="speed of the lid, towards growing x",
            ),
        )  # fmt: skip

    def spec(self) -> FieldSpec:
        """Velocity and vorticity at the grid points, none of which lies on a wall."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("u", "v", "vorticity"),
            units=("m/s", "m/s", "1/s"),
            shape=self.grid,
            spacing=(ly / (ny + 1), lx / (nx + 1)),
        )
