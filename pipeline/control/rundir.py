"""The run directory: which file lies where, and who may use the folder.

1. A folder that holds another study is refused, never overwritten.
2. ``summary.json`` appears whole or not at all.
3. Two drivers never work in one folder at a time.
4. A folder that is made here is open to its user alone; one that was there keeps its mode.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, TextIO, final

from pipeline.control.journal import drop_cut_line
from pipeline.errors import ConfigError
from pipeline.stats.stats import StudyStats, Summary


def problems(out: Path) -> list[str]:
    """Why ``out`` cannot take a new study; empty when it can."""
    if out.exists() and not out.is_dir():
        return [f"--out {out}: is a file; a run needs a folder. Choose another name."]
    if unfinished(out):
        line = (
            f"--out {out}: the folder already holds another study, which has not ended. Go on with "
            "that one (--resume), choose a new folder, or remove this one."
        )
        return [line]
    if out.is_dir() and any(out.iterdir()):
        holds = "another study" if (out / "resolved.json").exists() else "other files"
        line = (
            f"--out {out}: the folder already holds {holds}. Choose a new one, or remove this one."
        )
        return [line]
    return []


def unfinished(out: Path) -> bool:
    """Whether the folder holds a study that was begun and has not ended."""
    return (out / "resolved.json").exists() and not (out / "summary.json").exists()


@final
class RunDirectory:
    """One study's folder; the driver is its only writer but for ``model/`` and ``validation/``."""

    def __init__(self, path: Path, *, again: bool = False) -> None:
        """Take a folder.

        Args:
            path: New or empty.
            again: It holds this very study, which is resumed.

        Raises:
            ConfigError: It holds something else, or another driver is at work in it.
        """
        found = [] if again else problems(path)
        if found:
            raise ConfigError(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        self.path = path
        self._lock = _lock(path)
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
            drop_cut_line(self.path / "metrics.jsonl")
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps(stats.as_json()) + "\n")
        self._metrics.flush()

    def write_summary(self, summary: Summary) -> None:
        """Leave the study's result."""
        self._write_json("summary.json", summary.as_json())

    def drop(self, name: str) -> None:
        """Remove a folder with all that is in it, if there is one."""
        shutil.rmtree(self.path / name, ignore_errors=True)

    def drop_empty(self, name: str) -> None:
        """Remove a folder that somebody made and left empty."""
        folder = self.path / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def close(self) -> None:
        """Close what is open. Safe to call twice."""
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(part, self.path / name)


def _lock(path: Path) -> int | None:
    """A lock on the folder that goes with this process; None where a file system has none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        line = f"{path}: a study is running in this folder. Wait for it, or stop it first"
        raise ConfigError([line]) from None
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
