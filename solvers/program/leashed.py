"""A command on the leash of ``leash.py``, seen from its owner.

1. After ``stop``, and after the death of this process by any cause, nothing of the command runs.
2. What is kept of its output is bounded; nothing is read but when its owner asks for it.
3. The command starts as if from a shell of this machine: nothing of our own MPI, of our Ray, or of
   a batch job is in its environment, but for a launcher of the batch system itself.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import final

_NOT_CONVERGED = "solve did not converge due to"  # of -snes_converged_reason and its like
_LEASH = Path(__file__).with_name("leash.py")
_OUTPUT_BYTES = 1 << 20  # more than a pipe holds: what is left to read after the end
_TEXT_CHUNK = 1 << 16
_LAST_LINES = 15
_REASON_LINES = 3
_LINE_CHARACTERS = 300
_STOP_SECONDS = 15.0  # the leash takes 5 s at most to kill what resists
# What MPI launchers leave in the environment of their ranks: a program that found it would take
# itself for one of them. And what our Ray leaves: who has its token can run code as this user.
_NOT_ITS_OWN = (
    "RAY_", "PMI_", "PMIX_", "PRTE_", "HYDI_", "HYDRA_", "I_MPI_HYDRA_", "MPI_LOCAL", "OMPI_COMM_",
    "OMPI_UNIVERSE",
)  # fmt: skip
# With these mpiexec would start its ranks on other nodes of a job, or wait for room in it.
_OF_THE_BATCH = (
    "SLURM_", "PBS_", "PALS_", "LSB_", "JSM_", "PE_HOSTFILE", "COBALT_", "FLUX_", "OAR_",
)  # fmt: skip
_BATCH_LAUNCHERS = ("srun", "jsrun", "aprun", "flux", "ibrun")  # they are nothing without these


@final
class Output:
    """The last lines of a program, and the first reason that PETSc gives in it.

    Attributes:
        lines: The last lines, rulers left out.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)
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
        self.lines.append(line)
        if _NOT_CONVERGED in line and not self._reason:
            self._reason = [line.strip()]
        elif self._in_reason and said.startswith("See "):
            self._in_reason = False
        elif self._in_reason and error and len(self._reason) < _REASON_LINES:
            self._reason.append(said)

    def __str__(self) -> str:
        return "\n".join(f"  {line}" for line in self.lines) if self.lines else "  (no output)"


@final
class Leashed:
    """A command that runs.

    Args:
        command: Program and arguments.
        folder: Its own from now on; removed with the last process of the command.
        keep: Whether the folder is left.
        environment: Variables that the command sees.
        cwd: Where it starts.
        held: Files that the leash only keeps open: when this process dies, a command that writes
            into one must not die of it before the leash has seen what has to be cleaned up.

    Attributes:
        output: What the command printed, as far as it was read.
        returncode: None while it runs; 128 and the signal's number when a signal ended it.
        ended: A file that has something to read once the command is over.
        text: A file that has something to read once the command has printed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        keep: bool,
        environment: Mapping[str, str],
        cwd: Path,
        held: Sequence[int] = (),
    ) -> None:
        self.output = Output()
        self._folder, self._keep = folder, keep
        self.returncode: int | None = None
        self._stopped = False
        with contextlib.ExitStack() as undo:
            self.text, command_writes = os.pipe()
            undo.callback(os.close, self.text)
            os.set_blocking(self.text, False)
            try:
                self._leash = subprocess.Popen(
                    [sys.executable, "-I", "-S", _LEASH, folder, "keep" if keep else "-", *command],
                    stdin=subprocess.PIPE,
                    stdout=command_writes,
                    stderr=command_writes,
                    cwd=cwd,
                    env=dict(environment),
                    pass_fds=(*held, self.text),
                    bufsize=0,
                )
            finally:
                os.close(command_writes)
            undo.callback(self._kill)
            self.ended = os.pidfd_open(self._leash.pid)
            undo.callback(os.close, self.ended)
            self._undo = undo.pop_all()

    def attend(self, ready: Collection[int]) -> None:
        """Take in what the files ``ended`` and ``text`` say, as far as they are ``ready``."""
        if self.ended in ready:
            self.returncode = self._leash.wait()
        if self.ended in ready or self.text in ready:
            self._read_output()

    def wait(self, seconds: float) -> bool:
        """Wait until the command has ended by itself; whether it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.returncode = self._leash.wait(seconds)
        return self.returncode is not None

    def stop(self) -> None:
        """End the command, if it still runs, with all that it has started. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        if self.returncode is None:
            assert self._leash.stdin is not None
            self._leash.stdin.close()  # the leash takes it as the word to kill
            self.wait(_STOP_SECONDS)
        self._read_output()
        self._undo.close()

    def _read_output(self) -> None:
        # Once is enough while it runs; after its end, what fits into a pipe.
        for _ in range(1 if self.returncode is None else _OUTPUT_BYTES // _TEXT_CHUNK):
            data = read_some(self.text, _TEXT_CHUNK)
            if not data:
                break
            self.output.feed(data)
        if self.returncode is not None:
            self.output.feed(b"")

    def _kill(self) -> None:
        """Make sure of the end, also when the leash does not obey or was itself killed."""
        assert self._leash.stdin is not None
        if self.returncode is None or self.returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._leash.pid, signal.SIGKILL)
            self._leash.kill()
            self.returncode = self._leash.wait()
            if not self._keep:
                shutil.rmtree(self._folder, ignore_errors=True)
        self._leash.stdin.close()


def clean_environment(environment: Mapping[str, str], *, starts: str = "") -> dict[str, str]:
    """The environment of what we start: ours without what is only for us.

    This Python's programs are on its path.

    Args:
        environment: Variables of this process.
        starts: The program. A launcher of a batch system sees its job.
    """
    hidden = _NOT_ITS_OWN if Path(starts).name in _BATCH_LAUNCHERS else _NOT_ITS_OWN + _OF_THE_BATCH
    clean = {name: value for name, value in environment.items() if not name.startswith(hidden)}
    folders = [clean.get("PATH", os.defpath), str(Path(sys.executable).parent)]
    return clean | {"PATH": os.pathsep.join(filter(None, folders))}


def read_some(file: int, most: int) -> bytes:
    """What a file that does not block has; ``b""`` when that is nothing, or nothing for ever."""
    try:
        return os.read(file, most)
    except BlockingIOError:
        return b""
