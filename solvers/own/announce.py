"""Asks somebody's own solver what it is, in a process of its own, before anything else is started.

1. The file never runs in the process that asks: it may import PETSc and start MPI, print, crash, or
   take for ever, and the study's driver knows nothing of it.
2. The answer comes within ``LIMIT_SECONDS``, or is an error.
3. It says the same wherever it is asked: nothing but the file and the settings goes in.
"""

import contextlib
import json
import logging
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

_log = logging.getLogger(__name__)

LIMIT_SECONDS = 120.0
PROGRESS_SECONDS = 5.0
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
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    question = json.dumps([str(file), name, dict(settings)], default=str)
    what = f"solver.path={file}: {name}"
    with tempfile.TemporaryDirectory(prefix="headrace-announce-") as folder:
        answer, output = Path(folder) / "answer.json", Path(folder) / "output"
        (Path(folder) / "question.json").write_text(question, encoding="utf-8")
        # Into a file: what the user's file leaves running would hold a pipe open.
        with output.open("wb") as printed:
            process = subprocess.Popen(
                # -P: the folder that a study is started in may have packages of our names.
                [sys.executable, "-P", "-m", "solvers.own.announce", folder],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        _wait(process, what)
        if not answer.exists():
            text = output.read_text(encoding="utf-8", errors="replace")
            said = " | ".join(text.strip().splitlines()[-_SHOWN_LINES:])
            line = (
                f"solver.path={file}: the process that loaded it ended with status "
                f"{process.returncode}: {said or 'it said nothing'}. Run the file by itself"
            )
            raise Unusable([line])
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "problems" in found:
        raise Unusable(found["problems"])
    return dict(found["announced"])


def _wait(process: subprocess.Popen[bytes], what: str) -> None:
    """Wait for an answer, and say so while that takes long.

    Raises:
        Unusable: It took too long; the process is ended.
    """
    waited = 0.0
    try:
        while waited < LIMIT_SECONDS:
            if waited:
                late = "%s is not loaded and made after %g s; it is given up after %g s"
                _log.warning(late, what, waited, LIMIT_SECONDS)
            step = min(PROGRESS_SECONDS, LIMIT_SECONDS - waited)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step)
                return
            waited += step
    finally:
        process.kill()
        process.wait()
    line = f"{what} took longer than {LIMIT_SECONDS:g} s to be loaded and made"
    raise Unusable([f"{line}. Leave long work to run()"])


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


def _main(folder: Path) -> None:
    """Read the question from a file in the folder, and write the answer into another."""
    path, name, settings = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    try:
        found: dict[str, Any] = {"announced": ask(Path(path), name, settings).model_dump()}
    except Unusable as error:
        found = {"problems": error.problems}
    part = folder / "answer.part"
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(folder / "answer.json")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
