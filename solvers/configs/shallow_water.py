"""Settings of ``kind: shallow_water``: checked at load, without PETSc."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, field_validator

from solvers.base import FieldSpec, Parameter
from solvers.configs.checks import three_points

__all__ = ["ShallowWaterConfig"]

_Positive = Annotated[FiniteFloat, Field(gt=0)]


class ShallowWaterConfig(BaseModel):
    """Settings of ``kind: shallow_water``; their meaning is in the docstring of its solver."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["shallow_water"] = "shallow_water"
    grid: tuple[StrictInt, StrictInt] = Field(
        default=(64, 64), description="cells (y, x), at least 3 each [1]"
    )
    steps: StrictInt = Field(default=100, ge=1, description="snapshots after the initial one [1]")
    dt: FiniteFloat = Field(default=0.25, gt=0, description="time between two snapshots [s]")
    length: tuple[_Positive, _Positive] = Field(
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
    gravity: FiniteFloat = Field(default=9.81, gt=0, description="acceleration [m/s^2]")
    thin: FiniteFloat = Field(
        default=1e-4, gt=0, description="depth below which water stops with the depth [m]"
    )
    max_substeps: StrictInt = Field(
        default=200, ge=1, description="most steps of the scheme between two snapshots [1]"
    )

    _points = field_validator("grid")(three_points)

    @property
    def max_snapshots(self) -> int:
        """Snapshots of one member, the initial state included."""
        return self.steps + 1

    @property
    def end_time(self) -> float:
        """Time of the last snapshot [s]."""
        return self.steps * self.dt

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
