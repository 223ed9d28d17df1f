"""Runs somebody's own file in a process of its own, and waits for what that says.

1. The file never runs in the process that asks: it may import PETSc and start MPI, print, crash, or
   take for ever, and the study's driver knows nothing of it.
2. The answer comes within a limit, or is an error; while it takes long, that is said.
3. The answer is plain data, as JSON: what somebody's file has made is never unpickled here.
"""

import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from solvers.own.load import Unusable

_log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0
_SHOWN_LINES = 5


def ask_apart(module: str, question: object, *, what: str, limit: float, remedy: str) -> Any:  # noqa: ANN401 - the module's
    """What a module of ours answers, run as a program that calls ``answer``.

    Args:
        module: Its full name.
        question: Of ours, pickled; the answer comes as JSON.
        what: Which file it runs, for messages.
        limit: Longest time [s].
        remedy: What to do where it takes longer.

    Raises:
        Unusable: It said so, took too long, or ended without an answer.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="headrace-apart-") as folder:
        asked, answered, output = (Path(folder) / name for name in ("asked", "answered", "output"))
        asked.write_bytes(pickle.dumps(question))
        # Into a file: what the user's file leaves running would hold a pipe open.
        with output.open("wb") as printed:
            process = subprocess.Popen(
                # -P: the folder that a study is started in may have packages of our names.
                [sys.executable, "-P", "-m", module, folder],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        if not _has_ended(process, what, limit):
            raise Unusable([f"{what}: took longer than {limit:g} s. {remedy}"])
        if answered.exists():
            said = json.loads(answered.read_text(encoding="utf-8"))
            if "problems" in said:
                raise Unusable(said["problems"])
            return said["answer"]
        text = output.read_text(encoding="utf-8", errors="replace")
    last = " | ".join(text.strip().splitlines()[-_SHOWN_LINES:]) or "it said nothing"
    line = f"{what}: the process that tried it ended with status {process.returncode}: {last}"
    raise Unusable([f"{line}. Run the file by itself"])


def answer(give: Callable[[Any], object]) -> None:
    """In the process that was started: read the question, and leave the answer, or ``Unusable``."""
    folder = Path(sys.argv[1])
    try:
        said = {"answer": give(pickle.loads((folder / "asked").read_bytes()))}
    except Unusable as error:
        said = {"problems": error.problems}
    (folder / "part").write_text(json.dumps(said), encoding="utf-8")
    (folder / "part").replace(folder / "answered")


def _has_ended(process: subprocess.Popen[bytes], what: str, limit: float) -> bool:
    """Wait for the process to end by itself; it is over afterwards in any case."""
    waited = 0.0
    try:
        while waited < limit:
            if waited:
                _log.warning("%s: no answer after %g s; given up at %g s", what, waited, limit)
            step = min(PROGRESS_SECONDS, limit - waited)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(step)
                return True
            waited += step
        return False
    finally:
        process.kill()
        process.wait()
