"""A foreign program while it runs: started on a leash, its stream and its output read in turn.

The program writes vectors into a named pipe and text to its standard output; both are read only
while somebody waits for a vector, so a receiver that is slow makes the program wait.

1. After ``stop``, and after the death of this process by any cause, nothing of the program runs.
2. Every wait ends at a deadline; what is kept of the output is bounded.
3. Whatever the program wrote into the pipe before its end is read, also if it opens the pipe often.
4. The program starts as if from a shell: nothing of our own MPI, and no token of our Ray, is in its
   environment.
"""

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

PIPE = "stream"
_NOT_CONVERGED = "solve did not converge due to"  # of -snes_converged_reason and its like
_LEASH = Path(__file__).with_name("leash.py")
_CHUNK = 1 << 20
_TEXT_CHUNK = 1 << 16
_LAST_LINES = 15
_REASON_LINES = 3
_LINE_CHARACTERS = 300
_STOP_SECONDS = 15.0  # the leash takes 5 s at most to kill what resists
# What MPI launchers leave in the environment of their ranks: a program that found it would take
# itself for one of them. And the token of our Ray: who has it can run code as this user.
_OF_OUR_MPI = ("PMI_", "PMIX_", "HYDI_", "HYDRA_", "MPI_LOCAL", "OMPI_COMM_", "OMPI_UNIVERSE")
_NOT_ITS_OWN = ("RAY_AUTH_", *_OF_OUR_MPI)


@final
class Output:
    """The last lines of a program, and the first reason that PETSc gives in it."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._rest = b""
        self._reason: list[str] = []
        self._in_reason = False

    @property
    def reason(self) -> str | None:
        """Why PETSc gave up, if it said so."""
        return ": ".join(self._reason) if self._reason else None

    def feed(self, data: bytes) -> None:
        """Take what the program printed; ``b""`` ends the last line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        # A line without an end stays bounded, too.
        if len(self._rest) > _TEXT_CHUNK or (not data and self._rest):
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._take(line[:_LINE_CHARACTERS].decode(errors="replace").rstrip())

    def _take(self, line: str) -> None:
        _, error, said = line.partition("PETSC ERROR:")
        said = said.strip()
        # Rulers, PETSc's table of all options, and that a crash came before it looked at them.
        if not line.strip() or said.startswith(("-", "WARNING! There are unused", "Option left:")):
            if said.strip("- ") == "Error Message":
                self._in_reason = not self._reason
            return
        self._lines.append(line)
        if _NOT_CONVERGED in line and not self._reason:
            self._reason = [line.strip()]
        elif self._in_reason and said.startswith("See "):
            self._in_reason = False
        elif self._in_reason and error and len(self._reason) < _REASON_LINES:
            self._reason.append(said)

    def __str__(self) -> str:
        return "\n".join(f"  {line}" for line in self._lines) if self._lines else "  (no output)"


@final
class ForeignProgram:
    """One run of a program.

    Args:
        command: Program and arguments; it finds the named pipe as ``folder / PIPE``.
        folder: A new folder, private to this run and its own from now on.
        keep: Whether the folder outlives the run.
        environment: For the program.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path, keep: bool, environment: Mapping[str, str]
    ) -> None:
        self.output = Output()
        self._folder, self._keep = folder, keep
        self._returncode: int | None = None
        with contextlib.ExitStack() as undo:
            self._pipe = _open_pipe(folder / PIPE)
            undo.callback(os.close, self._pipe)
            self._text, program_writes = os.pipe()
            undo.callback(os.close, self._text)
            os.set_blocking(self._text, False)
            try:
                self._leash = subprocess.Popen(
                    [sys.executable, "-I", "-S", _LEASH, folder, "keep" if keep else "-", *command],
                    stdin=subprocess.PIPE,
                    stdout=program_writes,
                    stderr=program_writes,
                    cwd=folder,
                    env=dict(environment),
                    # It only keeps them open: when we die, a program that writes must not die of
                    # it before the leash has seen what has to be cleaned up.
                    pass_fds=(self._pipe, self._text),
                    bufsize=0,
                )
            finally:
                os.close(program_writes)
            undo.callback(self._kill)
            self._ended = os.pidfd_open(self._leash.pid)
            undo.callback(os.close, self._ended)
            self._selector = selectors.DefaultSelector()
            undo.callback(self._selector.close)
            for file in (self._ended, self._text, self._pipe):
                self._selector.register(file, selectors.EVENT_READ)
            self._undo = undo.pop_all()

    @property
    def returncode(self) -> int | None:
        """None while it runs; 128 and the signal's number when a signal ended it."""
        return self._returncode

    def read(self, *, deadline: float) -> bytes:
        """Wait for the next bytes of the stream; ``b""`` when the program has ended.

        Args:
            deadline: As of ``time.monotonic``.

        Raises:
            TimeoutError: Nothing has come.
        """
        while self._returncode is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = {key.fd for key, _ in self._selector.select(left)}
            if self._ended in ready:
                self._returncode = self._leash.wait()
            if ready - {self._pipe}:
                self._read_output()
            if self._pipe in ready and (data := _read(self._pipe, _CHUNK)):
                return data
        return _read(self._pipe, _CHUNK)

    def stop(self) -> None:
        """End the program, if it still runs, with all that it has started. May be called twice."""
        if self._returncode is None:
            assert self._leash.stdin is not None
            self._leash.stdin.close()  # the leash takes it as the word to kill
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._returncode = self._leash.wait(_STOP_SECONDS)
            self._read_output()
        self._undo.close()

    def _read_output(self) -> None:
        # Once is enough while it runs; after its end, what fits into a pipe.
        for _ in range(1 if self._returncode is None else _CHUNK // _TEXT_CHUNK):
            data = _read(self._text, _TEXT_CHUNK)
            if not data:
                break
            self.output.feed(data)
        if self._returncode is not None:
            self.output.feed(b"")

    def _kill(self) -> None:
        """Make sure of the end, also when the leash does not obey or was itself killed."""
        assert self._leash.stdin is not None
        if self._returncode is None or self._returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._leash.pid, signal.SIGKILL)
            self._leash.kill()
            self._returncode = self._leash.wait()
            if not self._keep:
                shutil.rmtree(self._folder, ignore_errors=True)
        self._leash.stdin.close()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours without our MPI and Ray's token, and with this Python's programs on the path."""
    clean = {
        name: value for name, value in environment.items() if not name.startswith(_NOT_ITS_OWN)
    }
    folders = [clean.get("PATH", os.defpath), str(Path(sys.executable).parent)]
    return clean | {"PATH": os.pathsep.join(filter(None, folders))}


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


def _read(file: int, most: int) -> bytes:
    """What is there; ``b""`` when nothing is, or nothing will ever be."""
    try:
        return os.read(file, most)
    except BlockingIOError:
        return b""
