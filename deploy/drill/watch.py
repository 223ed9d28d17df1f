"""What a drill sees of a study: its journal and its metrics, read while they are written.

1. Each whole line is taken once; a line that a killed driver has cut off is never taken.
2. Nothing is asked of the study itself: what is seen is what is in its run directory.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from pipeline.control.rundir import RunPaths
from trainers.checkpoints.files import steps_in

# What the journal says when something has gone wrong.
_TROUBLE: Final = ("lost", "failed", "end")


@final
class Tail:
    """The lines of a file that grows, each of them once."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that have come since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@final
@dataclass(slots=True)
class Seen:
    """What journal and metrics have said so far.

    Attributes:
        parts: How often the study was begun or resumed.
        running: Members that run, by the journal.
        troubles: Attempts and endings that went wrong.
        ended: The journal's last word: production is over, or the study.
        train_step: The newest, of this part; 0 before its first.
        inserted: Samples stored, by the newest metrics.
        samples_lost: Stored, and gone with what has died: simulated again.
        furthest: The newest train step of all parts.
        completed: Members, by the newest metrics.
        checkpoints_failed: Sum over the ranks.
        phase: As the newest metrics say.
    """

    parts: int = 0
    running: set[int] = field(default_factory=set)
    troubles: int = 0
    ended: bool = False
    train_step: int = 0
    inserted: int = 0
    samples_lost: int = 0
    furthest: int = 0
    completed: int = 0
    checkpoints_failed: int = 0
    phase: str = "starting"

    def take_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Lines of the journal."""
        for event in events:
            match event["event"]:
                case "start":
                    self.running.add(int(event["member"]))
                case "completed":
                    self.running.discard(int(event["member"]))
                case "production ended":
                    self.ended = True
            if event["event"] in _TROUBLE:
                self.running.discard(int(event.get("member", -1)))
                self.troubles += event["event"] != "end" or event["reason"] is not None

    def take_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Lines of the metrics."""
        for line in lines:
            self.phase = str(line["phase"])
            self.completed = int(line["members"]["completed"])
            ranks, reservoirs = line["ranks"], line["reservoirs"]
            if reservoirs:
                inserted = sum(int(each["inserted"]) for each in reservoirs)
                self.samples_lost += max(0, self.inserted - inserted)
                self.inserted = inserted
            self.train_step = max((int(each["train_step"]) for each in ranks), default=0)
            self.furthest = max(self.furthest, self.train_step)
            self.checkpoints_failed = sum(int(each["checkpoints_failed"]) for each in ranks)

    def new_part(self) -> None:
        """The study is begun or resumed: nobody knows yet how far it is."""
        self.parts += 1
        self.running.clear()
        self.ended, self.phase, self.train_step, self.checkpoints_failed = False, "starting", 0, 0


@final
class StudyWatch:
    """Keeps ``seen`` up to date with a run directory."""

    def __init__(self, out: Path) -> None:
        self.out, self.seen = out, Seen()
        paths = self._paths = RunPaths(out)
        self._journal, self._metrics = Tail(paths.journal), Tail(paths.metrics)

    def look(self) -> Seen:
        """What there is now."""
        self.seen.take_events(self._journal.new())
        self.seen.take_metrics(self._metrics.new())
        return self.seen

    def new_part(self) -> None:
        """To be called before the study is started, and after the last one has ended."""
        self.look()
        self.seen.new_part()

    @property
    def newest_checkpoint(self) -> int:
        """Its train step; 0 before the first."""
        return max(steps_in(self._paths.checkpoints), default=0)

    @property
    def has_ended(self) -> bool:
        """Whether the study has come to its end."""
        return self._paths.summary.exists()
