"""Append-only log of members and attempts, one JSON object a line; what resume reads.

1. A line is written before the next decision is carried out, and never changed.
2. Only whole lines count: a line cut off by a crash is ignored by ``read``, and removed before
   anything is appended.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, final

from trainers.durable import drop_cut_line, json_text


@final
class Journal:
    """Writes ``journal.jsonl``; the driver is its only writer."""

    def __init__(self, path: Path) -> None:
        drop_cut_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: str, *, at: float, **facts: Any) -> None:
        """Append one event with its facts; ``at`` is seconds since the study began."""
        line = json_text({"event": event, "at": round(at, 3), **facts})
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a journal, leaving out a last line that was cut off."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
