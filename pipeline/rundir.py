"""The run directory: which file lies where, and who may use the folder.

1. A folder that holds another study is refused, never overwritten.
2. ``summary.json`` appears whole or not at all.
3. A folder that is made here is open to its user alone; one that was there keeps its mode.
"""

import json
import os
from pathlib import Path
from typing import Any, TextIO, final

from pipeline.errors import ConfigError
from pipeline.stats import StudyStats, Summary


def problems(out: Path) -> list[str]:
    """Why ``out`` cannot take a new study; empty when it can."""
    if out.exists() and not out.is_dir():
        return [f"--out {out}: is a file; a run needs a folder. Choose another name."]
    if out.is_dir() and any(out.iterdir()):
        holds = "another study" if (out / "resolved.json").exists() else "other files"
        line = (
            f"--out {out}: the folder already holds {holds}. Choose a new one, or remove this one."
        )
        return [line]
    return []


@final
class RunDirectory:
    """One study's folder; the driver is its only writer but for ``model/`` and ``validation/``."""

    def __init__(self, path: Path) -> None:
        found = problems(path)
        if found:
            raise ConfigError(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        self.path = path
        self._metrics: TextIO | None = None

    @property
    def journal(self) -> Path:
        """Members and attempts, one JSON object a line."""
        return self.path / "journal.jsonl"

    @property
    def model(self) -> Path:
        """The exported surrogate and its card."""
        return self.path / "model"

    @property
    def record(self) -> Path:
        """The samples that were trained on, where the study keeps them."""
        return self.path / "record.zarr"

    def write_study(self, *, source: str | None, resolved: dict[str, Any]) -> None:
        """Keep the study as it was given, and as it was understood."""
        if source is not None:
            (self.path / "study.yaml").write_text(source, encoding="utf-8")
        self._write_json("resolved.json", resolved)

    def write_metrics(self, stats: StudyStats) -> None:
        """Append one line to ``metrics.jsonl``."""
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps(stats.as_json()) + "\n")
        self._metrics.flush()

    def write_summary(self, summary: Summary) -> None:
        """Leave the study's result."""
        self._write_json("summary.json", summary.as_json())

    def drop_empty(self, name: str) -> None:
        """Remove a folder that somebody made and left empty."""
        folder = self.path / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def close(self) -> None:
        """Close what is open. Safe to call twice."""
        if self._metrics is not None:
            self._metrics.close()

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(part, self.path / name)
