"""Says which class of which file simulates a study, and what that class has announced.

1. Nothing of the file is loaded here: ``announced`` holds what the class said of itself when the
   study was checked, so that a resolved study is read anywhere, without the file.
2. Settings of the class stand beside ``path`` and ``class``; ``solvers.own.announce`` checks them.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import BaseConfig

# Keys of the section that no setting of a class can have.
OWN_KEYS = ("kind", "path", "class", "announced")


class AnnouncedParameter(BaseModel):
    """A ``solvers.base.Parameter`` as plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    low: FiniteFloat
    high: FiniteFloat
    description: str
    seed: bool = False


class Announced(BaseModel):
    """What a class said of itself with the settings of the study.

    Attributes:
        about: Its docstring.
        settings: Every setting with its value, as Python writes it.
        parameters: What tells one member from another.
        names: One per channel.
        units: SI units, one per channel.
        shape: Grid points.
        spacing: Grid spacing [m].
        inputs: The channels that are given.
        max_snapshots: Snapshots of one member, the initial state included.
        end_time: Time of the last one [s].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = "Your equation."
    settings: dict[str, str] = {}
    parameters: tuple[AnnouncedParameter, ...] = ()
    names: tuple[str, ...] = ("u",)
    units: tuple[str, ...] = ("1",)
    shape: tuple[int, ...] = (64,)
    spacing: tuple[float, ...] = (1.0,)
    inputs: tuple[str, ...] = ()
    max_snapshots: int = 101
    end_time: float = 1.0


class OwnConfig(BaseConfig):
    """Settings of ``kind: own``; what they mean is in the docstring of ``solvers.own.solver``.

    Without any setting it is an example, for ``headrace describe``.
    """

    model_config = ConfigDict(frozen=True, extra="allow", serialize_by_alias=True)

    target = "solvers.own.solver:Own"
    summary = "a class in your own Python file, around a petsc4py TS that you already have"
    distributed = False

    kind: Literal["own"] = "own"
    path: str = Field(default="./advection.py", description="your Python file")
    class_: str = Field(
        default="Advection",
        alias="class",
        description="the class in it; other keys are arguments of its __init__",
    )
    announced: Announced = Announced()

    @property
    def settings(self) -> dict[str, Any]:
        """What the study says to the class, with lists as lists."""
        plain: dict[str, Any] = json.loads(json.dumps(self.model_extra or {}, default=str))
        return plain

    @property
    def file(self) -> Path:
        """Where the class lies."""
        return Path(self.path)

    @property
    def max_snapshots(self) -> int:
        """Snapshots of one member, the initial state included."""
        return self.announced.max_snapshots

    @property
    def end_time(self) -> float:
        """Time of the last snapshot [s]."""
        return self.announced.end_time

    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the class."""
        return tuple(Parameter(**each.model_dump()) for each in self.announced.parameters)

    def spec(self) -> FieldSpec:
        """That of the class."""
        said = self.announced
        return FieldSpec(
            names=said.names,
            units=said.units,
            shape=said.shape,
            spacing=said.spacing,
            inputs=said.inputs,
        )
