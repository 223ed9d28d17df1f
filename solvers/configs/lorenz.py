"""Settings of ``kind: lorenz``."""

from typing import Literal

from pydantic import Field, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like


class LorenzConfig(SteppedConfig):
    """Settings of ``kind: lorenz``; what they mean is in ``solvers/pdes/lorenz.py``."""

    target = "solvers.pdes.lorenz:Lorenz"
    summary = "the Lorenz system, three ordinary differential equations"
    distributed = False

    kind: Literal["lorenz"] = "lorenz"
    steps: Count = Field(default=1000, description="solver steps of a member [1]")
    dt: Positive = Field(default=0.01, description="time step [1]")
    petsc_options: str = Field(
        default="", description="PETSc options of the time stepper, as on a command line"
    )

    _options = field_validator("petsc_options")(options_like("-ts_type bdf -ts_bdf_order 3"))

    def parameters(self) -> tuple[Parameter, ...]:
        """The three coefficients and the three initial values."""
        return tuple(
            Parameter(name=name, unit="1", low=low, high=high, description=description)
            for name, low, high, description in (
                ("sigma", 5.0, 15.0, "Prandtl number"),
                ("rho", 0.0, 50.0, "Rayleigh number over its critical value"),
                ("beta", 1.0, 4.0, "shape of the convection roll"),
                ("x", -20.0, 20.0, "x at time 0: speed of the convection"),
                ("y", -25.0, 25.0, "y at time 0: temperature across the roll"),
                ("z", 0.0, 50.0, "z at time 0: temperature along the height"),
            )
        )

    def spec(self) -> FieldSpec:
        """Three channels at a single point."""
        return FieldSpec(names=("x", "y", "z"), units=("1", "1", "1"), shape=(1,), spacing=(1.0,))
