"""Which processes of a study a fault may hit, and how it is hit.

1. Only descendants of the process that the drill itself has started are ever looked at.
2. A process is known by its number and its start: a number that was given again is another one.
"""

import contextlib
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from deploy.drill.plan import Kind
from pipeline.actors import PROCESS_TITLES

NO_ROOM: Final = 1024  # bytes that no file may grow beyond, where the disk is to be full
_TITLES: Final[dict[Kind, str]] = {
    "solver": PROCESS_TITLES["solver"],
    "hung": PROCESS_TITLES["solver"],
    "reservoir": PROCESS_TITLES["reservoir"],
    "trainer_rank": PROCESS_TITLES["trainer"],
}
_MPI_RANK: Final = ("-m", "pipeline.members.mpi_rank")


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A process.

    Attributes:
        pid: Its number.
        parent: Of the process that it belongs to.
        command: Its command line, which may be a title that it has given itself.
    """

    pid: int
    parent: int
    command: tuple[str, ...]

    @property
    def is_leash(self) -> bool:
        """Whether it only watches over another command."""
        return any(word.endswith("/leash.py") for word in self.command[:5])

    @property
    def is_mpi_rank(self) -> bool:
        """Whether it is an mpi_rank of a member, and not what has started it."""
        return self.command[-2:] == _MPI_RANK and "-n" not in self.command


def victims(kind: Kind, processes: Sequence[Running]) -> list[int]:
    """Those that a fault may hit, in ascending order.

    Args:
        kind: Of the fault; not ``driver``, which is the study's own process.
        processes: All of the study.
    """
    if kind == "mpi_rank":
        return sorted(each.pid for each in processes if each.is_mpi_rank)
    if kind == "program":
        leashes = {each.pid for each in processes if each.is_leash}
        return sorted(each.pid for each in processes if each.parent in leashes)
    if kind == "disk":  # whoever writes checkpoints
        return sorted([*victims("reservoir", processes), *victims("trainer_rank", processes)])
    title = _TITLES[kind]
    return sorted(each.pid for each in processes if " ".join(each.command).startswith(title))


def descendants(pid: int) -> list[psutil.Process]:
    """Of a process that may be gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def running(processes: Iterable[psutil.Process]) -> list[Running]:
    """What they are; those that have ended, or end meanwhile, are left out."""
    found = []
    for each in processes:
        with contextlib.suppress(psutil.Error):
            if each.status() == psutil.STATUS_ZOMBIE:
                continue  # nobody would notice that it is killed
            found.append(Running(pid=each.pid, parent=each.ppid(), command=tuple(each.cmdline())))
    return found


def hit(kind: Kind, process: psutil.Process) -> None:
    """Kill or stop it; ``psutil`` refuses when the number is another process's by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGSTOP if kind == "hung" else signal.SIGKILL)


@contextlib.contextmanager
def no_room(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Let no file that they write grow any more while the block lasts, as on a full disk.

    Python ignores the signal that comes with it, so writing fails with EFBIG and nothing is killed.
    """
    before: list[tuple[psutil.Process, tuple[int, int]]] = []
    try:
        for each in processes:
            with contextlib.suppress(psutil.Error, OSError):
                soft, hard = each.rlimit(psutil.RLIMIT_FSIZE)
                each.rlimit(psutil.RLIMIT_FSIZE, (NO_ROOM, hard))
                before.append((each, (soft, hard)))
        yield
    finally:
        for each, limits in before:
            with contextlib.suppress(psutil.Error, OSError):
                each.rlimit(psutil.RLIMIT_FSIZE, limits)
