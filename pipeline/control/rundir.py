"""The run directory: which file lies where, and who may use the folder.

``RunPaths`` is the one home for the names; only the trainers name the folders that they write.

1. A folder that holds another study is refused, never overwritten.
2. ``summary.json`` appears whole or not at all.
3. Two drivers never work in one folder at a time.
4. A folder that is made here is open to its user alone; one that was there keeps its mode.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TextIO, final

from pipeline.errors import ConfigError
from pipeline.record.layout import FOLDER as RECORD
from pipeline.stats.stats import StudyStats, Summary
from trainers.durable import drop_cut_line, json_text, sole_writer, write_atomically


@final
class RunPaths:
    """Where the files of a study lie; nothing is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.study: Final = folder / "study.yaml"  # as it was given
        self.resolved: Final = folder / "resolved.json"  # as it was understood, defaults included
        self.inputs: Final = folder / "inputs"  # the files that it is made of, as it began
        self.journal: Final = folder / "journal.jsonl"  # a line for each event of a member
        self.metrics: Final = folder / "metrics.jsonl"  # a line of statistics twice a second
        self.members: Final = folder / "validation.jsonl"  # members' errors, by validation
        self.validation: Final = folder / "validation"  # predictions of its members, by rank
        self.checkpoints: Final = folder / "checkpoints"
        self.record: Final = folder / RECORD
        self.model: Final = folder / "model"  # the exported surrogate
        self.card: Final = self.model / "card.json"  # written last
        self.summary: Final = folder / "summary.json"  # there when the study has ended
        self.report: Final = folder / "report.html"


def problems(out: Path) -> list[str]:
    """Why ``out`` cannot take a new study; empty when it can."""
    if out.exists() and not out.is_dir():
        return [f"--out {out}: is a file; a run needs a folder. Choose another name."]
    if not out.is_dir() or not any(out.iterdir()):
        return []
    holds, remedy = "other files", "Choose a new one, or remove this one."
    if RunPaths(out).resolved.exists():
        holds = "another study"
    if unfinished(out):
        holds += ", which has not ended"
        remedy = "Go on with that one (--resume), choose a new folder, or remove this one."
    return [f"--out {out}: the folder already holds {holds}. {remedy}"]


def unfinished(out: Path) -> bool:
    """Whether the folder holds a study that was begun and has not ended."""
    paths = RunPaths(out)
    return paths.resolved.exists() and not paths.summary.exists()


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
        self._made = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        self.paths = RunPaths(path)
        self._open = ExitStack()
        try:
            self._open.enter_context(sole_writer(path))
        except TimeoutError:
            line = f"{path}: a study is running in this folder. Wait for it, or stop it first"
            raise ConfigError([line]) from None
        self._metrics: TextIO | None = None

    def empty(self) -> None:
        """Remove all that a study which could not be started has left, and the folder if new."""
        for each in self.paths.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        if self._made:
            self.paths.folder.rmdir()

    def write_study(self, *, source: str | None, resolved: dict[str, Any]) -> None:
        """Keep the study as it was given, and as it was understood."""
        if source is not None:
            self.paths.study.write_text(source, encoding="utf-8")
        _write_json(self.paths.resolved, resolved)

    def write_metrics(self, stats: StudyStats) -> None:
        """Append one line to ``metrics.jsonl``."""
        if self._metrics is None:
            drop_cut_line(self.paths.metrics)
            self._metrics = self._open.enter_context(self.paths.metrics.open("a", encoding="utf-8"))
        self._metrics.write(json_text(stats.as_json()) + "\n")
        self._metrics.flush()

    def write_summary(self, summary: Summary) -> None:
        """Leave the study's result."""
        _write_json(self.paths.summary, summary.as_json())

    def close(self) -> None:
        """Close what is open. Safe to call twice."""
        self._open.close()


def drop_empty(folder: Path) -> None:
    """Remove a folder that somebody made and left empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json_text(content, indent=2) + "\n")
