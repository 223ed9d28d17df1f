"""Settings of ``kind: shallow_water``: checked at load, without PETSc."""

from typing import Literal

from pydantic import Field, StrictInt, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import Count, Positive, SteppedConfig
from solvers.configs.checks import three_points

__all__ = ["ShallowWaterConfig"]


class ShallowWaterConfig(SteppedConfig):
    """Settings of ``kind: shallow_water``; their meaning is in the docstring of its solver."""

    target = "solvers.pdes.shallow_water:ShallowWater"
    summary = "shallow water over a bottom: breaking dams and tsunamis, 2-D"

    kind: Literal["shallow_water"] = "shallow_water"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="cells (y, x), at least 3 each [1]"
    )
    steps: Count = Field(default=100, description="snapshots after the initial one [1]")
    dt: Positive = Field(default=0.25, description="time between two snapshots [s]")
    length: tuple[Positive, Positive] = Field(
        default=(100.0, 100.0), description="size of the basin (y, x) [m]"
    )
    initial: Literal["dam", "hump"] = Field(
        default="hump",
        description="'dam' stands along y and breaks, 'hump' is raised water in the open",
    )
    bottom: Literal["flat", "bump", "slope"] = Field(
        default="bump",
        description="'bump' is a round hill, 'slope' a beach that rises to the east",
    )
    boundary: Literal["walls", "periodic"] = Field(
        default="walls", description="'walls' reflect, 'periodic' joins opposite sides"
    )
    gravity: Positive = Field(default=9.81, description="acceleration [m/s^2]")
    thin: Positive = Field(
        default=1e-4, description="depth below which water stops with the depth [m]"
    )
    max_substeps: Count = Field(
        default=200, description="most steps of the scheme between two snapshots [1]"
    )

    _points = field_validator("grid")(three_points)

    def parameters(self) -> tuple[Parameter, ...]:
        """Where the water is at first, and then the shape of the bottom."""
        ly, lx = self.length
        shorter = min(ly, lx)
        of_initial = {
            "dam": (
                ("level_left", 1.0, 2.0, "surface west of the dam, above the lowest bottom"),
                ("level_right", 0.0, 0.8, "surface east of the dam; dry where the bottom is above"),
                ("dam_position", 0.3 * lx, 0.7 * lx, "distance of the dam from the west wall"),
            ),
            "hump": (
                ("level", 0.5, 1.5, "surface far away, above the lowest bottom"),
                ("height", 0.1, 0.5, "of the hump, above that surface"),
                ("x", 0.25 * lx, 0.75 * lx, "centre of the hump, from the west wall"),
                ("y", 0.25 * ly, 0.75 * ly, "centre of the hump, from the south wall"),
                ("width", 0.05 * shorter, 0.1 * shorter, "standard deviation of the hump, > 0"),
            ),
        }
        of_bottom = {
            "flat": (),
            "bump": (
                ("bottom_height", 0.1, 0.8, "of the hill"),
                ("bottom_x", 0.25 * lx, 0.75 * lx, "centre of the hill, from the west wall"),
                ("bottom_y", 0.25 * ly, 0.75 * ly, "centre of the hill, from the south wall"),
                (
                    "bottom_width", 0.05 * shorter, 0.15 * shorter,
                    "standard deviation of the hill, > 0",
                ),
            ),
            "slope": (
                ("bottom_height", 1.0, 2.5, "of the beach at the east wall"),
                ("bottom_start", 0.4 * lx, 0.7 * lx, "foot of the beach, < length x"),
            ),
        }  # fmt: skip
        return tuple(
            Parameter(name=name, unit="m", low=low, high=high, description=description)
            for name, low, high, description in (
                *of_initial[self.initial],
                *of_bottom[self.bottom],
            )
        )

    def spec(self) -> FieldSpec:
        """Depth, discharges in x and y, and the given bottom, at the cell centres."""
        (ny, nx), (ly, lx) = self.grid, self.length
        return FieldSpec(
            names=("depth", "discharge_x", "discharge_y", "bottom"),
            units=("m", "m^2/s", "m^2/s", "m"),
            shape=self.grid,
            spacing=(ly / ny, lx / nx),
            inputs=("bottom",),
        )
