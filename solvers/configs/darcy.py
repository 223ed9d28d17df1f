"""Says what a study may set about ``kind: darcy``, and what each member is told."""

from typing import Literal

from pydantic import Field, StrictInt, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import BaseConfig, Positive
from solvers.configs.checks import options_like, three_points
from solvers.configs.random_fields import PositiveFieldConfig, TwoPhaseFieldConfig

__all__ = ["DarcyConfig"]

# 12 where N(0, (-lap + 9)^(-2)) is positive, 3 elsewhere.
_BENCHMARK = TwoPhaseFieldConfig(length_scale=1 / 3, smoothness=2.0, low=3.0, contrast=4.0)


class DarcyConfig(BaseConfig):
    """Settings of ``kind: darcy``; what they mean is in the docstring of ``solvers.pdes.darcy``."""

    target = "solvers.pdes.darcy:Darcy"
    summary = "steady pressure in a 2-D porous medium of random permeability"

    kind: Literal["darcy"] = "darcy"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="cells (y, x), at least 3 each [1]"
    )
    length: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0), description="size of the domain (y, x) [m]"
    )
    coefficient: PositiveFieldConfig = Field(
        default=_BENCHMARK,
        description="two_phase, voronoi or lognormal; contrast or log_std may be null [m^2/(Pa s)]",
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the linear solver, as on a command line"
    )

    _points = field_validator("grid")(three_points)
    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type gamg"))

    @property
    def max_snapshots(self) -> int:
        """Two: before, without pressure, and the solution."""
        return 2

    @property
    def end_time(self) -> float:
        """Time of the solution, which has none: 1, as that of other steady solutions [1]."""
        return 1.0

    @property
    def strength(self) -> str | None:
        """The setting of the coefficient that each member says for itself, if one is null."""
        name = "log_std" if self.coefficient.kind == "lognormal" else "contrast"
        return name if getattr(self.coefficient, name) is None else None

    def parameters(self) -> tuple[Parameter, ...]:
        """The source, the draw of the coefficient, and what the coefficient leaves open."""
        always = (
            Parameter(
                name="forcing", unit="1/s", low=0.5, high=2.0,
                description="source f, the same everywhere; 1 in the benchmark",
            ),
            Parameter(
                name="seed", unit="1", low=0.0, high=1e6, seed=True,
                description="draws the coefficient; its whole part counts",
            ),
        )  # fmt: skip
        if self.strength == "log_std":
            return (
                *always,
                Parameter(
                    name="log_std", unit="1", low=0.1, high=2.0,
                    description="standard deviation of the coefficient's logarithm",
                ),
            )  # fmt: skip
        if self.strength == "contrast":
            return (
                *always,
                Parameter(
                    name="contrast", unit="1", low=2.0, high=1e4,
                    description="largest coefficient over the smallest; best {loguniform: [...]}",
                ),
            )  # fmt: skip
        return always

    def spec(self) -> FieldSpec:
        """Two channels at the cell centres; the coefficient is given."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("pressure", "coefficient"),
            units=("Pa", "m^2/(Pa s)"),
            shape=self.grid,
            spacing=(ly / ny, lx / nx),
            inputs=("coefficient",),
        )
