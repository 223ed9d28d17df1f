"""Asks somebody's own solver what it is, in a process of its own, before anything else is started.

1. The file never runs in the process that asks: it may import PETSc and start MPI, print, crash, or
   take for ever, and the study's driver knows nothing of it.
2. The answer comes within ``LIMIT_SECONDS``, or is an error.
3. It says the same wherever it is asked: nothing but the file and the settings goes in.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solvers.configs.own import OWN_KEYS, Announced
from solvers.own.ask import announced
from solvers.own.load import Unusable, load_class, make

LIMIT_SECONDS = 120.0
_SHOWN_LINES = 5


def announce(file: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the class says of itself with these settings: ``Announced``, as plain data.

    Args:
        file: Absolute.
        name: Of the class.
        settings: Arguments of its ``__init__``, as YAML has them.

    Raises:
        Unusable: With everything that is wrong with the file, the class or the settings.
    """
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    question = json.dumps([str(file), name, dict(settings)], default=str)
    with tempfile.TemporaryDirectory(prefix="headrace-announce-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            done = subprocess.run(
                # -P: the folder that a study is started in may have packages of our names.
                [sys.executable, "-P", "-m", "solvers.own.announce", str(answer)],
                input=question,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            line = (
                f"solver.path={file}: {name} took longer than {LIMIT_SECONDS:g} s to be loaded "
                "and made. Leave long work to run()"
            )
            raise Unusable([line]) from None
        if not answer.exists():
            said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_SHOWN_LINES:])
            line = (
                f"solver.path={file}: the process that loaded it ended with status "
                f"{done.returncode}: {said or 'it said nothing'}. Run the file by itself"
            )
            raise Unusable([line])
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "problems" in found:
        raise Unusable(found["problems"])
    return dict(found["announced"])


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
    return {
        "kind": "own",
        "path": str(file),
        "class": name,
        **settings,
        "announced": announce(file, name, settings),
    }


def ask(file: Path, name: str, settings: Mapping[str, Any]) -> Announced:
    """Like ``announce``, but in this process."""
    return announced(make(load_class(file, name), settings, file), settings, file)


def _main(answer: Path) -> None:
    """Read the question from standard input, and write the answer into a file."""
    path, name, settings = json.load(sys.stdin)
    try:
        found: dict[str, Any] = {"announced": ask(Path(path), name, settings).model_dump()}
    except Unusable as error:
        found = {"problems": error.problems}
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(answer)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
