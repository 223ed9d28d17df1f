"""The public door: what a script, a notebook, or a solver of one's own needs, by one import.

1. Nothing is imported before it is asked for: a solver's file that takes ``Parameter`` from here
   loads neither torch nor Ray (``tests/unit/test_headrace.py``).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.record.reader import open_record
    from pipeline.run import resume, run
    from pipeline.study.load import check, load
    from solvers.base import FieldSpec, Parameter, Snapshot, Solver
    from solvers.stepping import stream
    from trainers.surrogate.export import load_surrogate
    from trainers.surrogate.surrogate import Surrogate

__all__ = [
    "FieldSpec",
    "Parameter",
    "Snapshot",
    "Solver",
    "Surrogate",
    "check",
    "load",
    "load_surrogate",
    "open_record",
    "resume",
    "run",
    "stream",
]

_HOMES = {
    "pipeline.record.reader": ("open_record",),
    "pipeline.run": ("resume", "run"),
    "pipeline.study.load": ("check", "load"),
    "solvers.base": ("FieldSpec", "Parameter", "Snapshot", "Solver"),
    "solvers.stepping": ("stream",),
    "trainers.surrogate.export": ("load_surrogate",),
    "trainers.surrogate.surrogate": ("Surrogate",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever has that name
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"headrace has no {name!r}, but {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
