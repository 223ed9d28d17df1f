"""Settings of ``kind: burgers``."""

from typing import Literal

from pydantic import Field, FiniteFloat, StrictInt, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like

# A stencil reaches three cells to either side, and may not meet itself round the line.
_FEWEST_CELLS = 8


class BurgersConfig(SteppedConfig):
    """Settings of ``kind: burgers``; what they mean is in ``solvers/pdes/burgers.py``."""

    target = "solvers.pdes.burgers:Burgers"
    summary = "Burgers' equation with diffusion, dispersion and forcing on a periodic line"

    kind: Literal["burgers"] = "burgers"
    grid: tuple[StrictInt] = Field(default=(100,), description="cells (x), at least 8 [1]")
    steps: Count = Field(default=250, description="snapshots after the initial one [1]")
    dt: Positive = Field(default=0.016, description="time between snapshots [1]")
    length: Positive = Field(default=16.0, description="length of the line [1]")
    terms: StrictInt = Field(default=5, ge=1, le=1000, description="sines in a forcing [1]")
    waves: Count = Field(default=3, description="most waves of a sine on the line, l [1]")
    frequency: FiniteFloat = Field(
        default=0.4, ge=0, description="largest angular frequency of a sine, omega [1]"
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the time stepper, as on a command line"
    )

    @field_validator("grid")
    @classmethod
    def _enough_cells(cls, grid: tuple[int]) -> tuple[int]:
        if grid[0] < _FEWEST_CELLS:
            raise ValueError(
                f"need at least {_FEWEST_CELLS} cells. Give at least [{_FEWEST_CELLS}]"
            )
        return grid

    _options = field_validator("petsc_options")(options_like("-ksp_type gmres -pc_type ilu"))

    def parameters(self) -> tuple[Parameter, ...]:
        """The three coefficients, and what chooses the forcing."""
        return tuple(
            Parameter(
                name=name,
                unit="1",
                low=0.0,
                high=high,
                description=description,
                seed=name == "seed",
            )
            for name, high, description in (
                ("alpha", 3.0, "of u^2: steepens, not negative"),
                ("beta", 0.4, "of u_x: diffuses, not negative"),
                ("gamma", 1.0, "of u_xx: disperses"),
                ("amplitude", 0.5, "largest amplitude of a sine of the forcing"),
                ("seed", 1e6, "draws the forcing; its whole part counts"),
            )
        )

    def spec(self) -> FieldSpec:
        """One channel, the mean of u over each cell."""
        return FieldSpec(
            names=("u",), units=("1",), shape=self.grid, spacing=(self.length / self.grid[0],)
        )
