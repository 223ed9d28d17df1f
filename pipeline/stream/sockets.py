"""Unix sockets: where they lie, who may open them, and what killed ones leave.

1. A path is never longer than the kernel takes: where ``TMPDIR`` is long, sockets lie in ``/tmp``.
2. The folder of a socket is open to its user alone.
"""

import contextlib
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

MAX_PATH: Final = 107  # sockaddr_un
SOCKET_FOLDER: Final = "headrace-socket-"
SOCKET: Final = "s"
SHORT: Final = Path("/tmp")  # where every Unix lets its users make folders
_BIND_SECONDS: Final = 60.0  # far longer than from making a folder to binding in it


class Wake:
    """Wakes a thread that polls ``fd``; from any thread, and without effect after ``close``."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def set(self) -> None:
        """Let the thread look."""
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """The thread looks now; called when ``fd`` is readable."""
        os.eventfd_read(self.fd)

    def close(self) -> None:
        """The thread has ended."""
        with self._lock:
            os.close(self.fd)
            self.fd = -1


def socket_folder(below: int, *, within: Path | None = None) -> Path:
    """The folder for temporary files, or a short one where paths in it would be too long.

    Args:
        below: Bytes that a socket's path takes below the folder, the first slash included.
        within: The only folder that may be taken; None: any.

    Raises:
        ConfigError: No folder is short enough, and can be written to.
    """
    temporary = Path(tempfile.gettempdir())
    for folder in (temporary, SHORT) if within is None else (within,):
        if len(os.fsencode(folder)) + below <= MAX_PATH and os.access(folder, os.W_OK | os.X_OK):
            return folder
    folder, most = within or temporary, MAX_PATH - below
    line = (
        f"{folder} has {len(os.fsencode(folder))} characters: paths of sockets below it would be "
        f"longer than {MAX_PATH}. Name a folder of at most {most} that can be written to, in "
        f"{'TMPDIR' if within is None else 'RAY_TMPDIR'}"
    )
    raise ConfigError([line])


def new_socket() -> Path:
    """The path of a socket to come, in a folder of its own that is open to its user alone."""
    name = f"{SOCKET_FOLDER}{secrets.token_hex(6)}"
    path = socket_folder(len(f"/{name}/{SOCKET}")) / name / SOCKET
    make_private(path.parent)
    return path


def make_private(folder: Path) -> None:
    """Make a folder that is open to its user alone, if there is none.

    Raises:
        ConfigError: It is a link, or others made it or can write into it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    if not ours or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        line = (
            f"{folder} has mode {stat.filemode(about.st_mode)} and owner {about.st_uid}: need a "
            f"folder of mode 700 and owner {os.geteuid()}, for sockets. Mend or remove it, or name "
            "another folder in TMPDIR (for Ray's: RAY_TMPDIR)"
        )
        raise ConfigError([line])
    folder.chmod(0o700)  # nobody else could write until now, nor can read from now on


def remove_stale_sockets() -> list[str]:
    """Remove the socket folders of receivers that were killed; their names.

    A socket that nobody listens on refuses connections; one that accepts is left alone, and so is
    a new folder whose receiver is about to bind.
    """
    removed = []
    places = dict.fromkeys((Path(tempfile.gettempdir()), SHORT))
    for folder in (each for place in places for each in place.glob(f"{SOCKET_FOLDER}*")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if not is_private(folder):
                continue
            try:
                probe.connect(str(folder / SOCKET))
            except FileNotFoundError:
                if time.time() - folder.stat().st_mtime < _BIND_SECONDS:
                    continue
            except ConnectionRefusedError:
                (folder / SOCKET).unlink(missing_ok=True)
            else:
                continue
            folder.rmdir()
            removed.append(folder.name)
    return removed


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user and is open to nobody else."""
    about = folder.lstat()
    private = stat.S_IMODE(about.st_mode) == 0o700 and about.st_uid == os.geteuid()
    return private and stat.S_ISDIR(about.st_mode)
