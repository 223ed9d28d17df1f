"""Says which foreign PETSc program a study runs, how parameters reach it, and what it streams.

1. Nothing heavy is imported, and no program is looked for: a study is checked on any machine.
2. Every number says its unit, and every refused value says the limit and what to do.
3. ``parameters()`` and ``spec()`` come from here alone: the program is never asked.
"""

import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from solvers.base import FieldSpec, Parameter
from solvers.configs.base import BaseConfig, Count, Positive

_WIDEST = (-1e30, 1e30)
_NEEDED = ("command", "components", "grid", "steps")
_Points = Annotated[StrictInt, Field(ge=1)]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error}). Close the quotation") from error


def _require_fields(template: str, field: str, *, example: str, trial: float) -> None:
    """Only ``{field}`` may be filled in, at least once, and it must take a number."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        if names == {field}:
            for word in _split(template):
                word.format(**{field: trial})
            return
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"cannot be filled in ({error}). Write for example '{example}'") from error
    raise ValueError(
        f"needs {{{field}}} and takes nothing else (found: {sorted(names)}). Write for example "
        f"'{example}'"
    )


class ProgramOption(BaseModel):
    """How one parameter is written on the program's command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    option: str = Field(description="with {value}, or {value:.0f} where a whole number must stand")
    unit: str = Field(default="1", description="SI unit")
    range: tuple[FiniteFloat, FiniteFloat] = Field(
        default=_WIDEST, description="what the program is meant for, in that unit"
    )
    description: str = Field(default="", description="what it is, in a few words")

    @field_validator("option")
    @classmethod
    def _takes_the_value(cls, option: str) -> str:
        _require_fields(option, "value", example="-nu {value}", trial=1.0)
        if not option.lstrip().startswith("-"):
            raise ValueError("an option starts with '-'. Write for example '-nu {value}'")
        return option

    @field_validator("range")
    @classmethod
    def _low_first(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if limits[0] > limits[1]:
            raise ValueError(f"the lower end comes first. Write {[limits[1], limits[0]]}")
        return limits

    def words(self, value: float) -> list[str]:
        """The option with its value, as arguments of a command."""
        return [word.format(value=value) for word in shlex.split(self.option)]


def _option(given: object) -> object:
    return {"option": given} if isinstance(given, str) else given


class ProgramConfig(BaseConfig):
    """Settings of ``kind: program``; what they mean is in ``solvers/program/solver.py``.

    Without any setting it is an example, for ``headrace describe``.
    """

    target = "solvers.program.solver:Program"
    summary = "any PETSc program, unmodified, streaming through a named pipe"
    distributed = False

    kind: Literal["program"] = "program"
    command: str = Field(
        default="./diffusion -ts_type bdf",
        description="program and arguments; words with ./ or ../ are paths from root",
    )
    root: str = Field(default=".", description="where relative paths start: the study's folder")
    options: dict[str, Annotated[ProgramOption, BeforeValidator(_option)]] = Field(
        default={"diffusivity": ProgramOption(option="-nu {value}", unit="m^2/s", range=(0.1, 1))},
        description="parameter: option, or {option, unit, range, description}",
    )
    options_by: Literal["command", "file"] = Field(
        default="command", description="options on the command line, or in an -options_file"
    )
    mpi_ranks: StrictInt = Field(default=1, ge=1, le=65536, description="ranks of a member [1]")
    launcher: str = Field(
        default="mpiexec -n {mpi_ranks}", description="put before it from 2 mpi_ranks on"
    )
    stream: Literal[
        "ts_monitor_solution", "snes_view_solution", "ksp_view_solution", "vec_view"
    ] = Field(default="ts_monitor_solution", description="PETSc's option that writes the vectors")
    prefix: str = Field(default="", description="options prefix of the object that writes")
    components: dict[str, str] = Field(
        default={"u": "1"}, min_length=1, description="name: unit of each channel, in order"
    )
    grid: tuple[_Points, ...] = Field(
        default=(64, 64), min_length=1, max_length=3, description="points (x,), (y, x), (z, y, x)"
    )
    spacing: tuple[Positive, ...] | None = Field(
        default=None, description="grid spacing, one per axis of grid, 1 by default [m]"
    )
    ordering: str = Field(
        default="interlaced",
        description="interlaced, blocked, or axes, the slowest first: yxc, cyx, xyc",
    )
    steps: StrictInt = Field(
        default=100, ge=0, description="most vectors after the first; 0 for one steady solve [1]"
    )
    dt: Positive = Field(
        default=0.01, description="time of a step, or their mean if they are unequal [s]"
    )
    every: Count = Field(default=1, description="keep every n-th vector [1]")
    step_timeout: Positive = Field(
        default=300.0, le=86400, description="longest wait for a vector, or for the end [s]"
    )
    folder: str = Field(default="", description="holds the working folders; empty: temporary files")
    keep_folders: bool = Field(default=False, description="leave the members' working folders")
    petsc_options: str = Field(
        default="", description="more PETSc options, as on a command line; they win"
    )

    @model_validator(mode="before")
    @classmethod
    def _says_what_has_no_default(cls, settings: object) -> object:
        if isinstance(settings, Mapping) and settings:
            missing = [name for name in _NEEDED if name not in settings]
            if missing:
                raise ValueError(
                    f"{', '.join(missing)} must be said: only you know the program. See "
                    "'headrace describe program'"
                )
        return settings

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, command: str) -> str:
        if not _split(command):
            raise ValueError("there is no program. Write for example './diffusion -ts_type bdf'")
        return command

    @field_validator("launcher")
    @classmethod
    def _takes_the_ranks(cls, launcher: str) -> str:
        _require_fields(launcher, "mpi_ranks", example="mpiexec -n {mpi_ranks}", trial=2)
        return launcher

    @field_validator("petsc_options")
    @classmethod
    def _starts_with_a_dash(cls, options: str) -> str:
        words = _split(options)
        if words and not words[0].startswith("-"):
            raise ValueError(
                "PETSc options start with '-'. Write for example '-ksp_type cg -pc_type gamg'"
            )
        return options

    @field_validator("prefix")
    @classmethod
    def _is_a_prefix(cls, prefix: str) -> str:
        if prefix.startswith("-") or any(map(str.isspace, prefix)):
            raise ValueError("write it as the program gives it to PETSc, for example 'flow_'")
        return prefix

    @field_validator("folder")
    @classmethod
    def _fits_into_an_option(cls, folder: str) -> str:
        if ":" in folder or any(map(str.isspace, folder)):
            raise ValueError(
                "PETSc ends a file name at ':' and at blanks. Take a folder without them"
            )
        return folder

    @model_validator(mode="after")
    def _fits_together(self) -> "ProgramConfig":
        if self.spacing is not None and len(self.spacing) != len(self.grid):
            raise ValueError(
                f"spacing={list(self.spacing)}: grid={list(self.grid)} needs {len(self.grid)}"
            )
        if sorted(self.axes) != sorted(self._grid_axes + "c"):
            raise ValueError(
                f"ordering={self.ordering!r}: must be 'interlaced' (PETSc's DMDA), 'blocked', or "
                f"the letters of '{self._grid_axes}c', the slowest axis first and c for components"
            )
        if self.stream == "ts_monitor_solution" and self.steps == 0:
            raise ValueError("steps=0: a TS takes at least 1. Give its greatest number of steps")
        return self

    @property
    def _grid_axes(self) -> str:
        return "zyx"[-len(self.grid) :]

    @property
    def axes(self) -> str:
        """The axes of a vector, the slowest first, ``c`` for the components."""
        named = {"interlaced": self._grid_axes + "c", "blocked": "c" + self._grid_axes}
        return named.get(self.ordering, self.ordering)

    @property
    def length(self) -> int:
        """Values in every vector."""
        return len(self.components) * math.prod(self.grid)

    @property
    def timed(self) -> bool:
        """Whether PETSc tells the time of every vector."""
        return self.stream == "ts_monitor_solution"

    @property
    def max_snapshots(self) -> int:
        """Most snapshots of one member, the first vector included."""
        return self.steps // self.every + 1

    @property
    def end_time(self) -> float:
        """Time of the last vector [s]."""
        return self.steps * self.dt

    def command_words(self) -> list[str]:
        """The program and its arguments, with relative paths made absolute."""
        return [
            self.path(word) if word.startswith(("./", "../")) else word
            for word in shlex.split(self.command)
        ]

    def path(self, word: str) -> str:
        """A path as it is written in the study, made absolute."""
        return os.path.normpath(Path(self.root).absolute() / Path(word).expanduser())

    def parameters(self) -> tuple[Parameter, ...]:
        """One for each option."""
        return tuple(
            Parameter(
                name=name,
                unit=each.unit,
                low=each.range[0],
                high=each.range[1],
                description=each.description or f"{each.option} of the program",
            )
            for name, each in self.options.items()
        )

    def spec(self) -> FieldSpec:
        """The components, on the program's grid."""
        spacing = self.spacing if self.spacing is not None else (1.0,) * len(self.grid)
        return FieldSpec(
            names=tuple(self.components),
            units=tuple(self.components.values()),
            shape=self.grid,
            spacing=spacing,
        )
