"""Keeps a program on a leash: started as a script, it runs a command and outlives nobody.

It stands between headrace and a foreign program, because only a process that every orphan of the
program falls back to can find them all. Standard library only: ``python -I -S leash.py`` starts in
milliseconds.

1. When its standard input ends, which the death of its parent does too, everything it started ends.
2. When the command ends, whatever that has left running ends.
3. When it is killed itself, the command is killed by the kernel.
4. Shared-memory files of killed MPICH ranks, and the working folder, are removed.
5. Its exit status is the command's; 128 and the signal's number when a signal ended it.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_IN_CREATE, _IN_NONBLOCK, _IN_CLOEXEC = 0x100, 0o4000, 0o2000000
# A rank that has died cannot be asked for its files any more, so they are noted when they appear.
# Files of other programs appear there, too: what none of ours maps for so long is not ours.
_LOOK_SECONDS = 0.3
_LOOK_EVERY_SECONDS = 0.005
_REAP_EVERY_SECONDS = 30.0
_KILL_SECONDS = 5.0  # only a process inside a dead file system resists a SIGKILL for long
_SHARED_MEMORY = "/dev/shm"
_SEGMENTS = f"{_SHARED_MEMORY}/mpich_shm_"


class _Told(BaseException):
    """A signal asks for the end."""


def main(folder: str, keep: str, *command: str) -> int:
    """Run ``command`` in this folder; returns its exit status.

    Args:
        folder: The working folder, removed in the end.
        keep: ``keep`` to leave it.
        command: Program and arguments.
    """
    for name in os.listdir("/proc/self/fd"):  # what is held open for headrace is not the program's
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)
    os.setpgid(0, 0)  # Ctrl-C in a terminal is for headrace, which ends this in its own time
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _tell)
    segments: set[str] = set()
    created = _watch_shared_memory()
    try:
        program = _start(command)
        segments.add(f"{_SEGMENTS}{program:x}_0")  # of a program without launcher
        status = _watch(program, created, segments)
    except _Told:
        status = 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _end_all(segments)
        for segment in segments:
            Path(segment).unlink(missing_ok=True)
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


def _start(command: Sequence[str]) -> int:
    parent = os.getpid()
    program = os.fork()
    if program:
        return program
    try:
        die_with_parent(parent)
        for number in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
        ):
            signal.signal(number, signal.SIG_DFL)  # Python's own choices would be inherited
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch_shared_memory() -> int | None:
    """A file that has something to read whenever shared memory is created; none where it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    created = int(libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
    if created < 0 or libc.inotify_add_watch(created, _SHARED_MEMORY.encode(), _IN_CREATE) < 0:
        return None  # a user may have only so many; then what lives in the end is cleaned up
    return created


def _watch(program: int, created: int | None, segments: set[str]) -> int:
    """Wait for the program or for the end of standard input; returns the program's wait status."""
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    poller.register(os.pidfd_open(program), select.POLLIN)
    if created is not None:
        poller.register(created, select.POLLIN)
    awaited, until = set[str](), 0.0
    while True:
        looking = bool(awaited) and time.monotonic() < until
        pause = _LOOK_EVERY_SECONDS if looking else _REAP_EVERY_SECONDS
        ready = {file for file, _ in poller.poll(1000 * pause)}
        if created is not None and created in ready and (names := _created(created)):
            awaited |= names
            until = time.monotonic() + _LOOK_SECONDS
        if awaited:
            segments |= _segments(_descendants())
            awaited = awaited - segments if time.monotonic() < until else set()
        status = _reap(program)
        if status is not None:
            return status
        if 0 in ready:
            return 0


def _created(file: int) -> set[str]:
    """MPICH's new files; an inotify event has 16 bytes, the last 4 the length of a name, and it."""
    events, names, start = os.read(file, 1 << 16), set(), 0
    while start < len(events):
        size = int.from_bytes(events[start + 12 : start + 16], sys.byteorder)
        name = events[start + 16 : start + 16 + size].rstrip(b"\0").decode(errors="replace")
        names.add(f"{_SHARED_MEMORY}/{name}")
        start += 16 + size
    return {name for name in names if name.startswith(_SEGMENTS)}


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


def _end_all(segments: set[str]) -> None:
    """Kill every descendant, and those that they start meanwhile."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (descendants := _descendants()) and time.monotonic() < deadline:
        segments |= _segments(descendants)
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


def _segments(pids: Sequence[int]) -> set[str]:
    """MPICH's shared-memory files that these processes have mapped."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path("/proc", str(pid), "maps").read_text(errors="replace").splitlines()
            paths = [line.split(maxsplit=5)[5] for line in lines if _SEGMENTS in line]
            found |= {path for path in paths if path.startswith(_SEGMENTS)}
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
