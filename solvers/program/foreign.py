"""A foreign program while it runs: started on a leash, its stream and its output read in turn.

The program writes vectors into a named pipe and text to its standard output; both are read only
while somebody waits for a vector, so a receiver that is slow makes the program wait.

1. After ``stop``, and after the death of this process by any cause, nothing of the program runs.
2. Every wait ends at a deadline.
3. Whatever the program wrote into the pipe before its end is read, also if it opens the pipe often.
"""

import contextlib
import fcntl
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from solvers.program.leashed import Leashed, read_some

PIPE = "stream"
_CHUNK = 1 << 20


@final
class ForeignProgram:
    """One run of a program.

    Args:
        command: Program and arguments; it finds the named pipe as ``folder / PIPE``.
        folder: A new folder, private to this run and its own from now on.
        keep: Whether the folder outlives the run.
        environment: Variables that the program sees.

    Attributes:
        output: What the program printed, as far as it was read.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path, keep: bool, environment: Mapping[str, str]
    ) -> None:
        with contextlib.ExitStack() as undo:
            self._pipe = _open_pipe(folder / PIPE)
            undo.callback(os.close, self._pipe)
            self._leashed = Leashed(
                command,
                folder=folder,
                keep=keep,
                environment=environment,
                cwd=folder,
                held=(self._pipe,),
            )
            undo.callback(self._leashed.stop)
            self.output = self._leashed.output
            self._selector = selectors.DefaultSelector()
            undo.callback(self._selector.close)
            for file in (self._leashed.ended, self._leashed.text, self._pipe):
                self._selector.register(file, selectors.EVENT_READ)
            self._undo = undo.pop_all()

    @property
    def returncode(self) -> int | None:
        """None while it runs; 128 and the signal's number when a signal ended it."""
        return self._leashed.returncode

    def read(self, *, deadline: float) -> bytes:
        """Wait for the next bytes of the stream; ``b""`` when the program has ended.

        Args:
            deadline: As of ``time.monotonic``.

        Raises:
            TimeoutError: Nothing has come.
        """
        while self.returncode is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = {key.fd for key, _ in self._selector.select(left)}
            self._leashed.attend(ready)
            if self._pipe in ready and (data := read_some(self._pipe, _CHUNK)):
                return data
        return read_some(self._pipe, _CHUNK)

    def stop(self) -> None:
        """End the program, if it still runs, with all that it has started. May be called twice."""
        self._undo.close()


def _open_pipe(path: Path) -> int:
    """A named pipe, for reading.

    Opened for writing as well, so that it neither waits for the program nor ends when PETSc closes
    it between two vectors.
    """
    os.mkfifo(path, 0o600)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # a user may have a limit; 64 KiB do as well
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CHUNK)
    return pipe
