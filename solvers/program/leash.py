"""Keeps a program on a leash: started as a script, it runs a command and outlives nobody.

It stands between headrace and a foreign program, because only a process that every orphan of the
program falls back to can find them all. Standard library only: ``python -I -S leash.py`` starts in
milliseconds.

1. When its standard input ends, which the death of its parent does too, everything it started ends.
2. When the command ends, whatever that has left running ends.
3. When it is killed itself, the command is killed by the kernel.
4. Shared-memory files of MPICH that no process uses any more, and the working folder, are removed.
5. Its exit status is the command's; 128 and the signal's number when a signal ended it.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_REAP_EVERY_SECONDS = 30.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_KILL_SECONDS = 5.0  # only a process inside a dead file system resists a SIGKILL for long
_SHARED_MEMORY = Path("/dev/shm")
_SEGMENTS = "mpich_shm_"


class _Told(BaseException):
    """A signal asks for the end."""


def main(folder: str, keep: str, *command: str) -> int:
    """Run ``command`` in this folder; returns its exit status.

    Args:
        folder: The working folder, removed in the end.
        keep: ``keep`` to leave it.
        command: Program and arguments.
    """
    os.setpgid(0, 0)  # Ctrl-C in a terminal is for headrace, which ends this in its own time
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in _ENDING:
        signal.signal(number, _tell)
    try:
        program = _start(command)  # kept: without its object the status could go unseen
        status = _watch(program.pid)
    except _Told:
        status = 0
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        _end_all()
        remove_unused_segments()
        if keep != "keep":
            shutil.rmtree(folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _tell(number: int, frame: object) -> NoReturn:
    raise _Told


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent, process ``parent``, dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start the command with nothing but our output; what else we hold open is for headrace."""
    die = partial(die_with_parent, os.getpid())
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


def _watch(program: int) -> int:
    """Wait for the program or for the end of standard input; returns the program's wait status."""
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    poller.register(os.pidfd_open(program), select.POLLIN)
    while True:
        ready = {file for file, _ in poller.poll(1000 * _REAP_EVERY_SECONDS)}
        status = _reap(program)
        if status is not None:
            return status
        if 0 in ready:
            return 0


def _reap(program: int | None = None) -> int | None:
    """Bury the dead, orphans included; the program's wait status if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == program:
                found = status
    return found


def _end_all() -> None:
    """Kill every descendant, and those that they start meanwhile."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (descendants := _descendants()) and time.monotonic() < deadline:
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.002)


def _descendants() -> list[int]:
    """Every process below this one; orphans have become its children."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                line = Path("/proc", entry, "stat").read_text(errors="replace")
                parents[int(entry)] = int(line.rpartition(")")[2].split()[1])
    found: list[int] = []
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found


def remove_unused_segments(folder: Path = _SHARED_MEMORY) -> list[str]:
    """Remove MPICH's shared-memory files of this user that no process uses; their names.

    A rank that was killed leaves its file behind. One that lives has it open until it is mapped, so
    what is neither open nor mapped after it was found is nobody's.
    """
    found, used = list(folder.glob(f"{_SEGMENTS}*")), set[str]()
    for process in Path("/proc").glob("[0-9]*") if found else ():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for name in os.listdir(process / "fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    used.add(os.readlink(process / "fd" / name))
            lines = (process / "maps").read_text(errors="replace").splitlines()
            used |= {line.split(maxsplit=5)[5] for line in lines if _SEGMENTS in line}
    removed = []
    for path in found:
        with contextlib.suppress(OSError):  # removed meanwhile
            if str(path) not in used and path.lstat().st_uid == os.getuid():
                path.unlink()
                removed.append(path.name)
    return sorted(removed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
