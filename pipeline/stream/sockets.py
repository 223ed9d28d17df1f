"""Unix sockets of receivers: where they lie, who may open them, and what killed ones leave."""

import contextlib
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

MAX_PATH: Final = 107  # sockaddr_un
SOCKET_FOLDER: Final = "headrace-socket-"
SOCKET: Final = "s"
_BIND_SECONDS: Final = 60.0  # far longer than from making a folder to binding in it


def remove_stale_sockets() -> list[str]:
    """Remove the socket folders of receivers that were killed; their names.

    A socket that nobody listens on refuses connections; one that accepts is left alone, and so is
    a new folder whose receiver is about to bind.
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{SOCKET_FOLDER}*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if not is_private(folder):
                continue
            try:
                probe.connect(str(folder / SOCKET))
            except FileNotFoundError:
                if time.time() - folder.stat().st_mtime < _BIND_SECONDS:
                    continue
                folder.rmdir()
                removed.append(folder.name)
            except ConnectionRefusedError:
                (folder / SOCKET).unlink(missing_ok=True)
                folder.rmdir()
                removed.append(folder.name)
    return removed


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user and is open to nobody else."""
    about = folder.lstat()
    private = stat.S_IMODE(about.st_mode) == 0o700 and about.st_uid == os.geteuid()
    return private and stat.S_ISDIR(about.st_mode)
