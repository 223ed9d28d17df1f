"""Append-only log of members and attempts, one JSON object a line; what resume reads.

1. A line is written before the next decision is carried out, and never changed.
2. Only whole lines count: a line cut off by a crash is ignored by ``read``, and removed before
   anything is appended.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO, final

_BLOCK: Final = 1 << 16


@final
class Journal:
    """Writes ``journal.jsonl``; the driver is its only writer."""

    def __init__(self, path: Path) -> None:
        drop_cut_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: str, *, at: float, **facts: Any) -> None:
        """Append one event with its facts; ``at`` is seconds since the study began."""
        line = json.dumps({"event": event, "at": round(at, 3), **facts})
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()


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


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a journal, leaving out a last line that was cut off."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
