"""Finds a solver by its kind, and loads PETSc only when one is really built.

1. ``SOLVERS`` names every built-in solver; an unknown kind is refused with the known ones.
2. Importing this module, ``known`` and ``describe`` import neither PETSc nor the solver's module.
3. ``describe`` is the solver's own docstring and its config: nothing is written twice.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast, get_args

from pydantic import BaseModel

from solvers.base import Solver
from solvers.config import AnySolverConfig
from solvers.configs.own import OwnConfig

SOLVERS: dict[str, type[AnySolverConfig]] = {
    config.model_fields["kind"].default: config for config in get_args(AnySolverConfig)
}

_NO_UNIT = "-"  # in place of "1", the unit of a quantity without dimension


def known(kind: str) -> type[AnySolverConfig]:
    """The config of a kind of solver, which says where its class lies.

    Raises:
        ValueError: There is none; the message lists those that there are.
    """
    if kind not in SOLVERS:
        raise ValueError(f"solver kind {kind!r} is not known: use one of {', '.join(SOLVERS)}")
    return SOLVERS[kind]


def build(config: AnySolverConfig) -> Solver:
    """A solver ready to run members; this imports PETSc."""
    module, _, name = config.target.partition(":")
    return cast("Solver", getattr(import_module(module), name)(config))


def describe(kind: str) -> str:
    """What the solver computes, its parameters and its settings, for a person to read."""
    return describe_config(known(kind)(), value="default")


def describe_config(config: AnySolverConfig, *, value: str = "value") -> str:
    """The same for a solver with the settings of a study; ``value`` heads their column."""
    parameters = [
        (p.name, _NO_UNIT if p.unit == "1" else p.unit, f"[{p.low:g}, {p.high:g}]", p.description)
        for p in config.parameters()
    ]
    about, arguments = _docstring(config.target), []
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
    """Docstring of the module, read from its file without importing it."""
    root, module = Path(__file__).parents[1], target.partition(":")[0]
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring is not None, f"{file} has no docstring"
    return docstring


def _plain(value: object) -> str:
    """A default as it is written in a study."""
    if isinstance(value, BaseModel):
        if hasattr(value, "kind"):
            return f"{{kind: {value.kind}, ...}}"
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
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
