"""Nodes for a drill: several on this machine, of which the last can be lost and added again.

1. They end with the drill, however that ends.
2. Whoever else is on this machine cannot join them.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final, final

import psutil

from deploy.drill.victims import descendants
from pipeline.errors import StudyFailed
from pipeline.guards import project_root
from pipeline.study.config import StudyConfig

END_SECONDS: Final = 60.0


def cpus_of(study: StudyConfig, nodes: int) -> list[int]:
    """CPUs of each node: the first could hold the whole study alone, which outlives the others."""
    ensemble = study.ensemble
    all_of_it = ensemble.concurrent * ensemble.mpi_ranks + study.trainer.ranks
    return [all_of_it, *[max(2, ensemble.mpi_ranks)] * (nodes - 1)]


@final
class Nodes:
    """Ray nodes that run.

    Args:
        cpus: Of each.
        log: Takes what they say.

    Attributes:
        environment: In which a study runs on them.

    Raises:
        StudyFailed: They did not start.
    """

    def __init__(self, cpus: list[int], log: Path) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        environment = os.environ | token
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.actors.local_nodes", *map(str, cpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                cwd=project_root(),
                start_new_session=True,
                text=True,
            )
        address = self._answer()
        if not address:
            self.end()
            raise StudyFailed(f"{len(cpus)} Ray nodes cannot be started here; see {log}")
        self.environment = environment | {"RAY_ADDRESS": address}

    def processes(self) -> list[psutil.Process]:
        """All that runs on them."""
        return descendants(self._process.pid)

    def on_the_last(self) -> list[psutil.Process]:
        """What Ray has started on the last node."""
        return descendants(int(self._tell("last")))

    def lose(self) -> None:
        """Kill the last node."""
        self._tell("lose")

    def add(self) -> None:
        """Start it again."""
        self._tell("add")

    def end(self) -> None:
        """End them all. May be called twice."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tell(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        answer = self._answer()
        if not answer:
            raise StudyFailed(f"the nodes of the drill have ended when told: {word}")
        return answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
