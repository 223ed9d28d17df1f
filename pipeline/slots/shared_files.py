"""Files in shared memory that live as long as the process that made them.

The owner keeps a lock (flock) on its file, so a file whose lock is free belongs to nobody any more.
The kernel lets go of the lock however the owner ends.

1. A file that does not fit is refused with needed and free bytes and what to do; nothing is left.
2. ``remove_stale`` removes files whose owner is gone, and never one whose owner lives.
3. A file is open to its user alone.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

SHARED_MEMORY: Final = Path("/dev/shm")
PREFIX: Final = "headrace-"
_ATTEMPTS: Final = 10  # times a name is tried again when another process happens to look at it
_DOES_NOT_FIT: Final = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFBIG)


def shortage(needed: int, *, directory: Path = SHARED_MEMORY) -> str | None:
    """Why ``needed`` bytes do not fit into ``directory`` now; None when they do."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if needed <= free:
        return None
    return (
        f"{needed / 1e9:.3f} GB of shared memory needed, but {directory} has {free / 1e9:.3f} GB "
        f"free of {status.f_blocks * status.f_frsize / 1e9:.3f} GB. Lower reservoir.capacity, run "
        f"`headrace clean`, or enlarge {directory} (`mount -o remount,size=...`; in a container "
        "--shm-size, or an emptyDir with medium: Memory)."
    )


def create(path: Path, size: int) -> int:
    """A new file of ``size`` bytes, all of them allocated; open and locked.

    A file of that name whose owner is gone is replaced.

    Raises:
        ConfigError: It does not fit, or a living process owns a file of that name.
    """
    fd = _create_locked(path)
    try:
        _allocate(fd, path, size)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(fd)
        raise
    return fd


def release(fd: int, path: Path, *, unlink: bool) -> None:
    """The owner's end: remove the file if asked, then let go of lock and descriptor."""
    if unlink:
        path.unlink(missing_ok=True)
    # A mapping keeps a duplicate of the descriptor, and with it the lock, until it goes.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def remove_stale(prefix: str = PREFIX, *, directory: Path = SHARED_MEMORY) -> list[str]:
    """Remove files whose owner is gone; the names of those removed.

    Looks only at regular files of this user, and never waits for a lock.
    """
    paths = sorted(path for path in directory.iterdir() if path.name.startswith(prefix))
    return [path.name for path in paths if _remove_if_stale(path)]


def _remove_if_stale(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # removed meanwhile, a link, a folder, or another user's
    try:
        if not (_ours(fd) and _lock(fd) and _linked(fd)):
            return False
        path.unlink()
        return True
    finally:
        os.close(fd)


def _create_locked(path: Path) -> int:
    for _ in range(_ATTEMPTS):
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            _remove_if_stale(path)
            continue
        # Between open and lock ``remove_stale`` of another study may have come first.
        if _lock(fd) and _linked(fd):
            return fd
        os.close(fd)
    line = (
        f"{path} belongs to a living process: a study of the same name and number runs on this "
        "node. Wait for it, or end it."
    )
    raise ConfigError([line])


def _lock(fd: int) -> bool:
    """Take the lock if it is free."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _linked(fd: int) -> bool:
    """Whether the name still stands for this file; only who holds the lock may unlink it."""
    return os.fstat(fd).st_nlink == 1


def _ours(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _allocate(fd: int, path: Path, size: int) -> None:
    """Give the file its bytes now, all of them or none."""
    lack = shortage(size, directory=path.parent)
    if lack is None:
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _DOES_NOT_FIT:
                raise
            lack = (
                f"{size / 1e9:.3f} GB of shared memory could not be allocated in {path.parent}: "
                f"{error.strerror}. Lower reservoir.capacity, or free memory."
            )
    if lack is not None:
        raise ConfigError([f"{path.name}: {lack}"])
