"""Settings of ``kind: heat``: checked at load, without PETSc."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    field_validator,
    model_validator,
)

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import options_like, three_points

__all__ = ["HeatConfig"]


# The walls of each axis, x first.
WALLS = (("west", "east"), ("south", "north"), ("bottom", "top"))
_WHOLE = {1: "rod", 2: "plate", 3: "block"}


class HeatConfig(SteppedConfig):
    """Settings of ``kind: heat``; what they mean is in the docstring of ``solvers.pdes.heat``."""

    target = "solvers.pdes.heat:Heat"
    summary = "heat conduction in 1-D, 2-D or 3-D between walls of constant temperature"

    kind: Literal["heat"] = "heat"
    grid: tuple[StrictInt, ...] = Field(
        default=(64, 64), description="cells (x), (y, x) or (z, y, x), at least 3 each [1]"
    )
    steps: Count = Field(default=100, description="solver steps of a member [1]")
    dt: Positive = Field(default=0.01, description="time step [s]")
    length: tuple[Positive, ...] = Field(
        default=(1.0, 1.0),
        description="size between the walls, in the order of grid; 1 each by default [m]",
    )
    diffusivity: Positive = Field(default=0.1, description="thermal diffusivity [m^2/s]")
    source: Literal["none", "gaussian"] = Field(
        default="none",
        description="'gaussian' heats a spot, and adds the parameters source_*",
    )
    source_field: StrictBool = Field(
        default=False,
        description="whether the heating rate is a channel too, the same in every snapshot [K/s]",
    )
    petsc_options: str = Field(
        default="", description="PETSc options of the linear solver, as on a command line"
    )

    _options = field_validator("petsc_options")(options_like("-ksp_type cg -pc_type gamg"))

    @field_validator("grid")
    @classmethod
    def _one_to_three_axes(cls, grid: tuple[int, ...]) -> tuple[int, ...]:
        if not 1 <= len(grid) <= 3:
            raise ValueError(
                f"{len(grid)} axes: need 1 to 3. Give the cells as [x], [y, x] or [z, y, x]"
            )
        return three_points(grid)

    @model_validator(mode="before")
    @classmethod
    def _one_metre_each(cls, given: object) -> object:
        if isinstance(given, Mapping) and "length" not in given:
            grid = given.get("grid")
            if isinstance(grid, list | tuple):
                return {**given, "length": (1.0,) * len(grid)}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.length) != len(self.grid):
            raise ValueError(
                f"length={list(self.length)}: need one number per axis of grid={list(self.grid)}. "
                f"Give {len(self.grid)}, or leave length out for 1 m each"
            )
        if self.source_field and self.source == "none":
            raise ValueError(
                "source_field=true, but there is no source to show. Write source: gaussian, or "
                "leave source_field out"
            )
        return self

    def parameters(self) -> tuple[Parameter, ...]:
        """The temperatures that tell one member from another, then the source, if there is one."""
        axes = len(self.grid)
        described = [("initial", f"temperature of the whole {_WHOLE[axes]} at time 0")]
        for axis, (first, last) in zip("xyz"[:axes], WALLS, strict=False):
            described.append((first, f"temperature of the wall at {axis} = 0"))
            described.append((last, f"temperature of the wall at {axis} = length {axis}"))
        temperatures = tuple(
            Parameter(name=name, unit="K", low=100.0, high=500.0, description=description)
            for name, description in described
        )
        return temperatures if self.source == "none" else temperatures + self._gaussian()

    def _gaussian(self) -> tuple[Parameter, ...]:
        """A spot away from the walls that warms its place by some hundred kelvin at most."""
        shorter = min(self.length)
        # The steady rise is about rate * width^2 / diffusivity.
        rate = 1e4 * self.diffusivity / shorter**2
        ranges = [("source_rate", "K/s", 0.0, rate, "heating rate at the centre of the source")]
        for axis, side in zip("xyz", self.length[::-1], strict=False):
            place = f"centre of the source on the {axis} axis"
            ranges.append((f"source_{axis}", "m", 0.25 * side, 0.75 * side, place))
        width = "standard deviation of the source, > 0"
        ranges.append(("source_width", "m", 0.05 * shorter, 0.15 * shorter, width))
        return tuple(
            Parameter(name=name, unit=unit, low=low, high=high, description=description)
            for name, unit, low, high, description in ranges
        )

    def spec(self) -> FieldSpec:
        """The temperature at the cell centres, and the heating rate there if it is asked for."""
        inputs = ("source",) if self.source_field else ()
        return FieldSpec(
            names=("temperature", *inputs),
            units=("K", "K/s")[: 1 + len(inputs)],
            shape=self.grid,
            spacing=tuple(side / cells for side, cells in zip(self.length, self.grid, strict=True)),
            inputs=inputs,
        )
