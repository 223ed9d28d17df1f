"""Tries somebody's own network in a process of its own, before anything else is started.

1. The file never runs in the process that asks; it may print, crash, or take for ever.
2. The answer comes within ``LIMIT_SECONDS``, or is an error.
3. Without torch, as on a login node, nothing can be said of the network, and nothing is.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline.guards import project_root
from solvers.own.load import user_part
from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.configs.models import OwnModelConfig

LIMIT_SECONDS: Final = 300.0  # torch alone takes a minute to load from a busy shared disk
_SHOWN_LINES: Final = 5


def network_problems(config: TrainerConfig, problem: Problem) -> list[str]:
    """What is wrong with the network and its task on two samples; nothing where it is not own."""
    if not isinstance(config.model, OwnModelConfig) or find_spec("torch") is None:
        return []
    what = f"trainer.model: {config.model.path}"
    paths = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="headrace-network-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            done = subprocess.run(
                # -P: the folder that a study is started in may have packages of our names.
                [sys.executable, "-P", "-m", "pipeline.study.own_network", str(answer)],
                input=pickle.dumps((config, problem)),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            late = f"{config.model.class_name} took longer than {LIMIT_SECONDS:g} s for two samples"
            return [f"{what}: {late}. Make it smaller, or leave long work out of the file"]
        if answer.exists():
            return list(json.loads(answer.read_text(encoding="utf-8")))
        text = (done.stdout + done.stderr).decode(errors="replace").strip()
        said = " | ".join(text.splitlines()[-_SHOWN_LINES:])
    line = f"{what}: the process that tried it ended with status {done.returncode}: "
    return [f"{line}{said or 'it said nothing'}. Run the file by itself"]


def _main(answer: Path) -> None:
    """Read the question from standard input, and write the answer into a file."""
    from trainers.tasks.trial import try_out

    config, problem = pickle.load(sys.stdin.buffer)
    problems = []
    try:
        try_out(config, problem)
    except Exception as error:  # noqa: BLE001 - theirs may raise anything
        line = str(error)
        if not line.startswith("trainer."):
            what, _ = user_part(error, Path(config.model.path))
            line = f"trainer.model: {config.model.class_name} cannot be trained: {what}. Correct it"
        problems = [line]
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(problems), encoding="utf-8")
    part.replace(answer)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
