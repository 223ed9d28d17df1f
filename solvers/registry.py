"""Finds a solver by its kind, and loads PETSc only when one is really built.

1. ``SOLVERS`` names every built-in solver; an unknown kind is refused with the known ones.
2. Importing this module, ``known`` and ``describe`` import neither PETSc nor the solver's module.
3. ``describe`` is the solver's own docstring and its config: nothing is written twice.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast, get_args

from pydantic import BaseModel

from solvers.base import Solver
from solvers.config import AnySolverConfig
from solvers.configs.burgers import BurgersConfig
from solvers.configs.cavity import CavityConfig
from solvers.configs.darcy import DarcyConfig
from solvers.configs.gray_scott import GrayScottConfig
from solvers.configs.heat import HeatConfig
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.configs.lorenz import LorenzConfig
from solvers.configs.navier_stokes import NavierStokesConfig
from solvers.configs.own import OwnConfig
from solvers.configs.program import ProgramConfig
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.configs.wave import WaveConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverKind:
    """One built-in solver.

    Attributes:
        config: Its settings.
        target: ``module:Class``, imported on demand; the class takes the config alone.
        summary: What it simulates, in one line.
        distributed: Whether it is a ``solvers.base.Distributed``: runs on several mpi_ranks.
    """

    config: type[AnySolverConfig]
    target: str
    summary: str
    distributed: bool = True


SOLVERS: dict[str, SolverKind] = {
    "heat": SolverKind(
        config=HeatConfig,
        target="solvers.pdes.heat:Heat",
        summary="heat conduction in 1-D, 2-D or 3-D between walls of constant temperature",
    ),
    "burgers": SolverKind(
        config=BurgersConfig,
        target="solvers.pdes.burgers:Burgers",
        summary="Burgers' equation with diffusion, dispersion and forcing on a periodic line",
    ),
    "kuramoto_sivashinsky": SolverKind(
        config=KuramotoSivashinskyConfig,
        target="solvers.pdes.kuramoto_sivashinsky:KuramotoSivashinsky",
        summary="the Kuramoto-Sivashinsky equation on a periodic line",
    ),
    "wave": SolverKind(
        config=WaveConfig,
        target="solvers.pdes.wave:Wave",
        summary="waves on a 2-D membrane",
    ),
    "gray_scott": SolverKind(
        config=GrayScottConfig,
        target="solvers.pdes.gray_scott:GrayScott",
        summary="two reacting and diffusing species that form patterns, 2-D and periodic",
    ),
    "cavity": SolverKind(
        config=CavityConfig,
        target="solvers.pdes.cavity:Cavity",
        summary="flow in a 2-D cavity whose lid slides, steady or unsteady",
    ),
    "navier_stokes": SolverKind(
        config=NavierStokesConfig,
        target="solvers.pdes.navier_stokes:NavierStokes",
        summary="forced 2-D flow on a periodic rectangle, from random initial vorticity",
    ),
    "darcy": SolverKind(
        config=DarcyConfig,
        target="solvers.pdes.darcy:Darcy",
        summary="steady pressure in a 2-D porous medium of random permeability",
    ),
    "lorenz": SolverKind(
        config=LorenzConfig,
        target="solvers.pdes.lorenz:Lorenz",
        summary="the Lorenz system, three ordinary differential equations",
        distributed=False,
    ),
    "shallow_water": SolverKind(
        config=ShallowWaterConfig,
        target="solvers.pdes.shallow_water:ShallowWater",
        summary="shallow water over a bottom: breaking dams and tsunamis, 2-D",
    ),
    "program": SolverKind(
        config=ProgramConfig,
        target="solvers.program.solver:Program",
        summary="any PETSc program, unmodified, streaming through a named pipe",
        distributed=False,
    ),
    "own": SolverKind(
        config=OwnConfig,
        target="solvers.own.solver:Own",
        distributed=False,
        summary="a class in your own Python file, around a petsc4py TS that you already have",
    ),
}


def known(kind: str) -> SolverKind:
    """The solver of that kind.

    Raises:
        ValueError: There is none; the message lists those that there are.
    """
    if kind not in SOLVERS:
        raise ValueError(f"solver kind {kind!r} is not known: use one of {', '.join(SOLVERS)}")
    return SOLVERS[kind]


def build(config: AnySolverConfig) -> Solver:
    """A solver ready to run members; this imports PETSc."""
    module, _, name = known(config.kind).target.partition(":")
    return cast("Solver", getattr(import_module(module), name)(config))


def describe(kind: str) -> str:
    """What the solver computes, its parameters and its settings, for a person to read."""
    return describe_config(known(kind).config(), value="default")


def describe_config(config: AnySolverConfig, *, value: str = "value") -> str:
    """The same for a solver with the settings of a study; ``value`` heads their column."""
    entry = known(config.kind)
    parameters = [
        (p.name, p.unit, f"[{p.low:g}, {p.high:g}]", p.description) for p in config.parameters()
    ]
    about, arguments = _docstring(entry.target), []
    if isinstance(config, OwnConfig) and config.announced.parameters:
        about = config.announced.about
        arguments = [
            (name, text, "argument of __init__") for name, text in config.announced.settings.items()
        ]
    return "\n".join(
        (
            about,
            "",
            "Parameters (under `parameters:`)",
            *_table(("name", "unit", "range", "what it is"), parameters),
            "",
            f"Settings (under `solver:`, with `kind: {config.kind}`)",
            *_settings(config, value, arguments),
        )
    )


def _settings(
    model: BaseModel, value: str, arguments: Sequence[tuple[str, str, str]] = ()
) -> Iterator[str]:
    """Every setting with its value; below them those of the sections that are among them."""
    fields = type(model).model_fields
    own = [
        (field.alias or name, _plain(getattr(model, name)), field.description)
        for name, field in fields.items()
        if field.description is not None
    ]
    yield from _table(("name", value, "what it is [unit]"), [*own, *arguments])
    for name, field in fields.items():
        if isinstance(getattr(model, name), BaseModel):
            for choice in get_args(field.annotation):
                default = getattr(model, name)
                section = default if isinstance(default, choice) else choice()
                yield ""
                yield f"Settings of `{name}`, with `kind: {section.kind}`"
                yield from _settings(section, value)


def _docstring(target: str) -> str:
    """Of the module, read from its file without importing it."""
    root, module = Path(__file__).parents[1], target.partition(":")[0]
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring is not None, f"{file} has no docstring"
    return docstring


def _plain(value: object) -> str:
    """A default as it is written in a study."""
    if isinstance(value, BaseModel):
        return f"{{kind: {getattr(value, 'kind', '?')}, ...}}"
    if isinstance(value, float):
        return f"{value:.6g}" if value != round(value) else str(value)
    if isinstance(value, tuple):
        return str(list(value))
    return '""' if value == "" else str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
