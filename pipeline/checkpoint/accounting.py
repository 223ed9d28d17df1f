"""What a run directory says of every sample and member: missing, there once, or twice.

It reads what was stored (the bits and rows of a checkpoint, the lines of the journal), not what was
counted, wherever there is a choice.

1. A sample is twice in a checkpoint when two ranks know it as stored, when two slots hold it, or
   when a rank has counted more insertions than samples that it knows.
2. A member is finished once: in the checkpoint that the last part began with, or by a line of that
   part; what earlier parts finished beyond their checkpoint was undone with them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from pipeline.checkpoint.restore import all_stored, open_store, read_stored, subgroup, values_in
from pipeline.checkpoint.resuming import given_up
from pipeline.control.rundir import RunPaths
from pipeline.errors import ConfigError
from pipeline.record.reader import parts_of
from pipeline.record.rows import ArrayFiles
from pipeline.study.config import StudyConfig
from trainers.checkpoints.files import newest_valid

_TRIES: Final = 5  # the study removes old checkpoints while they are read


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleAccount:
    """What a checkpoint knows of the samples.

    Attributes:
        train_step: Train step of the checkpoint.
        stored: Training and validation samples that were ever stored, each counted once.
        twice: Samples that are there twice.
    """

    train_step: int
    stored: int
    twice: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordAccount:
    """What the record holds of the samples.

    Attributes:
        recorded: Training samples, each counted once.
        twice: Further rows of the same ones.
        complete: Nothing was dropped, and the disk has never failed.
    """

    recorded: int
    twice: int
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberAccount:
    """What the journal says of the members.

    Attributes:
        finished: Members that have ended well, each counted once.
        twice: Further endings of the same members.
    """

    finished: int
    twice: int


def samples_of(run_directory: Path) -> SampleAccount | None:
    """The account of the newest valid checkpoint; None where there is none."""
    for _ in range(_TRIES):
        checkpoint, _ = newest_valid(RunPaths(run_directory).checkpoints)
        if checkpoint is None:
            return None
        try:
            return _account(checkpoint.folder, checkpoint.train_step, checkpoint.facts["ranks"])
        except (OSError, KeyError, ValueError):
            if checkpoint.folder.exists():
                raise
    return None


def record_of(run_directory: Path) -> RecordAccount | None:
    """The account of the record; None where the study has kept none."""
    try:
        parts = parts_of(run_directory)
    except ConfigError:
        return None
    pairs = [
        [ArrayFiles(part.path / name).read(0, part.rows) for name in ("member", "number")]
        for part in parts
    ]
    found = np.concatenate(pairs, axis=1)
    once = np.unique(found, axis=1).shape[1]
    whole = all(part.attributes["complete"] for part in parts)
    return RecordAccount(recorded=once, twice=found.shape[1] - once, complete=whole)


def members_of(events: Iterable[Mapping[str, Any]]) -> MemberAccount:
    """Who has finished, by the lines of a journal."""
    taken_over, finished = 0, Counter[int]()
    for event in events:
        if event["event"] == "resumed":
            taken_over = int(event["completed"])
            finished.clear()
        elif event["event"] == "completed":
            finished[int(event["member"])] += 1
    return MemberAccount(
        finished=taken_over + len(finished), twice=finished.total() - len(finished)
    )


def samples_due(events: Iterable[Mapping[str, Any]], study: StudyConfig) -> int:
    """Training samples of all members that are not given up.

    A member whose report went with a killed driver has as many as the study says.
    """
    lines = list(events)
    validation, each = study.ensemble.validation, study.samples_per_member
    due = dict.fromkeys(range(validation, validation + study.ensemble.members), each)
    for event in lines:
        member = int(event.get("member", 0))
        if member >= validation:
            due[member] = int(event.get("samples", due.get(member, each)))
    for failed in given_up(lines, study.ensemble.max_attempts):
        due.pop(failed.member, None)
    return sum(due.values())


def _account(folder: Path, train_step: int, ranks: int) -> SampleAccount:
    roots = [open_store(folder, rank) for rank in range(ranks)]
    stored = twice = 0
    for name in ("training", "validation"):
        groups = [subgroup(root, name) for root in roots]
        once = sum(int(bits.sum()) for bits in all_stored(groups).values())
        stored += once
        twice += sum(map(_known, groups)) - once + _by_rows(groups)
    for root in roots:
        inserted = int(str(root.attrs["inserted"]))
        twice += max(0, inserted - _known(subgroup(root, "training")))
    return SampleAccount(train_step=train_step, stored=stored, twice=twice)


def _known(group: zarr.Group) -> int:
    """How many samples one rank knows as stored."""
    return sum(int(bits.sum()) for _, bits in read_stored(group))


def _by_rows(groups: Iterable[zarr.Group]) -> int:
    """How many slots hold what another one holds, too."""
    held: Counter[tuple[int, int]] = Counter()
    for group in groups:
        if "member" in group:
            columns = [values_in(group, name).tolist() for name in ("member", "sample")]
            held.update(zip(*columns, strict=True))
    return held.total() - len(held)
