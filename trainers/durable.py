"""Files that are whole or not there at all, and folders that one process writes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOK_AGAIN_SECONDS: Final = 0.1
LOCK_SECONDS: Final = 120.0  # longest that the ranks of a killed study live on


@contextmanager
def sole_writer(checkpoints: Path, timeout: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process; where a file system has none, nothing.

    Raises:
        TimeoutError: Another process has held it for ``timeout`` seconds.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(checkpoints, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{checkpoints}: processes of an earlier run have been writing here for "
                        f"{timeout:g} s. See which process still runs, and end it"
                    ) from None
                time.sleep(_LOOK_AGAIN_SECONDS)
                continue
            except OSError:
                pass
            break
        yield
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str) -> None:
    """Replace a file by one with this text, which is on the disk before it has the name."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def synchronise(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
