"""Asks somebody's own solver what it is, in a process of its own, before anything else is started.

1. The answer comes within ``LIMIT_SECONDS``, or is an error.
2. It says the same wherever it is asked: nothing but the file and the settings goes in.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solvers.configs.own import OWN_KEYS, Announced
from solvers.own.apart import answer, ask_apart
from solvers.own.ask import announced
from solvers.own.load import Unusable, load_class, make

LIMIT_SECONDS = 120.0


def with_announcement(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The section of a study with an absolute path, and with what the class announces.

    Args:
        section: With ``path`` and ``class``, or with ``path: FILE:CLASS``.
        folder: What a relative path is relative to.

    Raises:
        Unusable: With everything that is wrong.
    """
    path, name = section.get("path"), section.get("class")
    if not isinstance(path, str) or not path:
        line = f"solver.path={json.dumps(path, default=str)}: required. Write 'path: ./FILE.py'"
        raise Unusable([line])
    if name is None:
        path, _, name = path.partition(":")
    file = Path(os.path.abspath(folder / Path(path).expanduser()))
    if not isinstance(name, str) or not name:
        line = (
            "solver.class=nothing: required, but missing. Add 'class: NAME', the class in "
            f"{file.name} that simulates"
        )
        raise Unusable([line])
    settings = {key: value for key, value in section.items() if key not in OWN_KEYS}
    settings = json.loads(json.dumps(settings, default=str))  # as they lie in a run directory
    announced = ask_apart(
        "solvers.own.announce",
        (file, name, settings),
        what=f"solver.path={file}: {name}",
        limit=LIMIT_SECONDS,
        remedy="Leave long work to run()",
    )
    return {
        "kind": "own",
        "path": str(file),
        "class": name,
        **settings,
        "announced": announced,
    }


def ask(file: Path, name: str, settings: Mapping[str, Any]) -> Announced:
    """What a class says of itself with these settings, asked in this process.

    Raises:
        Unusable: With everything that is wrong with the file, the class or the settings.
    """
    return announced(make(load_class(file, name), settings, file), settings, file)


if __name__ == "__main__":
    answer(lambda question: ask(*question).model_dump())
