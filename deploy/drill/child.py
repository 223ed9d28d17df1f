"""The command that a drill runs, and all processes that come of it.

1. What it says goes to a file; nothing of it can block.
2. Every descendant that was ever seen is remembered, so that what outlives the command is found.
"""

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import psutil

from deploy.drill.nodes import Nodes
from deploy.drill.victims import descendants

# The same Python, and never what lies in the folder that the drill is run in.
HEADRACE: Final = (sys.executable, "-P", "-c", "from deploy.cli import main; main()")
STOP_SECONDS: Final = 90.0  # for a checkpoint, and all that follows
# Ray's own agents notice only after about a minute that what they belong to was killed.
LEAVE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.1
_REMEMBER_SECONDS: Final = 1.0
_STORY_BYTES: Final = 2000


@final
class Child:
    """``headrace run``, started as often as a batch system that requeues it would.

    Args:
        arguments: Of ``headrace``.
        log: Takes what it says.
        nodes: That it runs on; None: it makes its own.
        program: What takes the arguments.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        nodes: Nodes | None = None,
        *,
        program: Sequence[str] = HEADRACE,
    ) -> None:
        self._command, self._log = [*program, *arguments], log
        self._nodes = nodes
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[psutil.Process] = set()
        self._remembered_at = float("-inf")

    def start(self) -> None:
        """Give the command."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the drill, which ends this in its own time
                env=None if self._nodes is None else self._nodes.environment,
            )

    @property
    def pid(self) -> int:
        """Of the newest process of the command."""
        assert self._process is not None
        return self._process.pid

    def status(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """Kill the command itself, and nothing that it has started."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """All that it, or its nodes, have started, and that still runs."""
        found = descendants(self.pid)
        if self._nodes is not None:
            found += self._nodes.processes()
        self._known.update(found)
        return found

    def remember(self) -> None:
        """Note its processes, now and then: to look for them costs milliseconds."""
        if time.monotonic() - self._remembered_at > _REMEMBER_SECONDS:
            self.processes()
            self._remembered_at = time.monotonic()

    def story(self) -> str:
        """The last that it said."""
        data = self._log.read_bytes() if self._log.exists() else b""
        return data[-_STORY_BYTES:].decode(errors="replace").strip()

    def wait(self, seconds: float = math.inf) -> int | None:
        """Until it ends by itself; its exit code, None where it does not in time."""
        deadline = time.monotonic() + seconds
        while (status := self.status()) is None and time.monotonic() < deadline:
            self.remember()
            time.sleep(_POLL_SECONDS)
        return status

    def end(self) -> None:
        """Have it end in good order, or else at once. May be called twice."""
        if self._process is None or self._process.poll() is not None:
            return
        self.processes()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def left(self, seconds: float = LEAVE_SECONDS) -> list[str]:
        """What still runs of all that it ever started, after waiting for that to end."""
        deadline = time.monotonic() + seconds
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return alive

    def _alive(self) -> list[str]:
        found = []
        for each in self._known:
            try:
                if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"process {each.pid}: {' '.join(each.cmdline())[:100]}")
            except psutil.Error:
                continue
        return found
