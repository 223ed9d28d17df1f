"""Files that are whole or not there at all, JSON that every parser reads, folders of one writer.

1. JSON holds no ``NaN`` and no ``Infinity``, which many parsers refuse: they become null.
"""

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOK_AGAIN_SECONDS: Final = 0.1
_BLOCK: Final = 1 << 16
LOCK_SECONDS: Final = 120.0  # longest that the ranks of a killed study live on


@contextmanager
def sole_writer(folder: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process; where a file system has none, nothing.

    Raises:
        TimeoutError: Another process has held it for ``timeout`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"{folder}: processes of an earlier run have been writing here for "
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a file or folder that gets the name ``path`` when the block has ended well."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put a file in its place in one step: whoever reads it finds the old one or the new one."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_durably(path: Path, content: str | bytes) -> None:
    """Like ``write_atomically``, and it survives a loss of power."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        synchronise(part)
    synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(content: object, *, indent: int | None = None) -> str:
    """Strict JSON of plain dicts, lists and numbers."""

    def finite(value: object) -> object:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {name: finite(each) for name, each in value.items()}
        return [finite(each) for each in value] if isinstance(value, list | tuple) else value

    return json.dumps(finite(content), indent=indent, allow_nan=False)


def append_line(path: Path, content: object) -> None:
    """Add one line of JSON to a file; a last line that was cut off is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_cut_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json_text(content) + "\n")


def drop_cut_line(path: Path) -> None:
    """Remove a last line that has no end, so that the next one begins a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                file.truncate(start + place + 1)
                return
            end = start
        file.truncate(0)
