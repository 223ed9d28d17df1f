"""How a study goes on: what its run directory says of settings, checkpoint and members.

1. A member has completed when all its samples are known to the checkpoint; its last report in the
   journal says how many it has, and without one the study does.
2. A member that was given up stays given up; every other one is run again, and what is stored of it
   already is recognised.
3. Without a valid checkpoint everything starts over.
4. Only ``CHANGEABLE`` settings may change on the way; any other is refused, with both values.
"""

import json
import logging
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.control.events import FailedMember
from pipeline.control.journal import read
from pipeline.control.rundir import RunPaths
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.load import as_tuples
from pipeline.study.problems import from_validation
from pipeline.study.yaml_values import set_values
from trainers.checkpoints.files import (
    Checkpoint,
    newest_valid,
    remove_partial,
    set_aside,
    steps_in,
)
from trainers.durable import LOCK_SECONDS, sole_writer

_log = logging.getLogger(__name__)

CHANGEABLE: Final = (
    "ensemble.concurrent",
    "trainer.ranks",
    "reservoir.capacity",
    "checkpoint.every_seconds",
    "checkpoint.keep_last",
    "checkpoint.keep_best",
    "checkpoint.grace_seconds",
)
# Of these, what a deterministic study must keep: its batches depend on them; and one with a record,
# which knows the slots of each rank.
FIXED_ORDER: Final = ("trainer.ranks", "reservoir.capacity")
FIXED_RECORD: Final = ("trainer.ranks",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a study had come.

    Attributes:
        checkpoint: What it goes on from; None: it starts over.
        broken: Checkpoints that are newer and not valid, and what is wrong with each.
        completed: Members of which every sample is stored.
        failed: Members that were given up.
        elapsed: Seconds that it had run.
    """

    checkpoint: Checkpoint | None
    broken: Mapping[Path, str]
    completed: frozenset[int]
    failed: tuple[FailedMember, ...]
    elapsed: float


def read_study(out: Path) -> StudyConfig:
    """The study of a run directory, as it was resolved.

    Raises:
        ConfigError: There is none, or it has ended.
    """
    path = RunPaths(out).resolved
    if not path.is_file():
        line = f"{out}: holds no study (no {path.name}). Give the --out of an earlier run"
        raise ConfigError([line])
    if RunPaths(out).summary.exists():
        line = (
            f"{out}: the study has ended, there is nothing to resume. Its report is in the folder"
        )
        raise ConfigError([line])
    try:
        return StudyConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        line = f"{path}: is not what this version writes ({error}). Resume with the one that did"
        raise ConfigError([line]) from None


def changed(study: StudyConfig, overrides: Sequence[str]) -> StudyConfig:
    """The same study with some keys changed.

    Args:
        study: As it was.
        overrides: ``"a.b=c"``, applied in order; ``c`` is read as YAML.

    Raises:
        ConfigError: With everything that is wrong with it now.
    """
    tree = study.as_json()
    set_values(tree, overrides)
    try:
        return StudyConfig.model_validate(as_tuples(tree), strict=True)
    except ValidationError as error:
        raise ConfigError(from_validation(error, tree, StudyConfig)) from None


def check_changes(old: StudyConfig, new: StudyConfig) -> None:
    """Refuse settings that must not change between two parts of one study.

    Raises:
        ConfigError: With each of them.
    """
    before, after = _leaves(old.as_json()), _leaves(new.as_json())
    fixed = FIXED_ORDER if old.deterministic else FIXED_RECORD if old.record is not None else ()
    changeable = [key for key in CHANGEABLE if key not in fixed]
    found = [
        f"{key}={after.get(key)}: the study has begun with {before.get(key)}, and goes on with it. "
        f"Only {', '.join(changeable)} may change"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in changeable
    ]
    if found:
        raise ConfigError(found)


def progress_of(out: Path, study: StudyConfig) -> Progress:
    """How far the study of a run directory had come."""
    # Here: brings Zarr, which only who resumes needs.
    from pipeline.checkpoint.restore import stored_samples

    paths = RunPaths(out)
    events = list(read(paths.journal)) if paths.journal.exists() else []
    told = [float(event["at"]) for event in events]
    if paths.metrics.exists():
        told += [float(line["elapsed_seconds"]) for line in read(paths.metrics)]
    checkpoint, broken = newest_valid(paths.checkpoints)
    failed = given_up(events, study.ensemble.max_attempts)
    completed: frozenset[int] = frozenset()
    if checkpoint is not None:
        stored = stored_samples(checkpoint.folder, int(checkpoint.facts["ranks"]))
        completed = complete(stored, events, study.samples_per_member)
    return Progress(
        checkpoint=checkpoint,
        broken=broken,
        completed=completed,
        failed=tuple(each for each in failed if each.member not in completed),
        elapsed=max(told, default=0.0),
    )


def what_was_kept(out: Path) -> str:
    """What there is to go on from when a study ends before its time, and how to."""
    steps, command = steps_in(RunPaths(out).checkpoints), f"headrace resume {shlex.quote(str(out))}"
    if not RunPaths(out).resolved.exists():
        return "nothing was begun"
    if not steps:
        return f"no checkpoint was taken; begin anew in the same folder: {command}"
    return f"checkpoint of train step {steps[-1]}; go on: {command}"


def take_over(out: Path, study: StudyConfig) -> Progress:
    """How far a study had come, once nobody else can add to it; what is not used is put away.

    Raises:
        ConfigError: Processes of an earlier run do not end.
    """
    paths = RunPaths(out)
    try:
        with sole_writer(paths.checkpoints, LOCK_SECONDS):
            progress = progress_of(out, study)
            for folder, wrong in progress.broken.items():
                _log.warning("%s is not used: %s", folder, wrong)
            if progress.checkpoint is None:
                _log.warning("%s holds no valid checkpoint: the study starts over", out)
                shutil.rmtree(paths.record, ignore_errors=True)
            set_aside(progress.broken)
            remove_partial(paths.checkpoints)
            return progress
    except TimeoutError as error:
        raise ConfigError([str(error)]) from None


def complete(
    stored: Mapping[int, int], events: Iterable[Mapping[str, Any]], samples_per_member: int
) -> frozenset[int]:
    """Members that have nothing left to store.

    Args:
        stored: Samples of each member that the checkpoint knows.
        events: The journal.
        samples_per_member: Samples of a member that was never completed.
    """
    needed = {
        int(event["member"]): int(event["samples"])
        for event in events
        if event["event"] == "completed"
    }
    return frozenset(
        member
        for member, count in stored.items()
        if count >= needed.get(member, samples_per_member)
    )


def given_up(events: Iterable[Mapping[str, Any]], max_attempts: int) -> tuple[FailedMember, ...]:
    """Members of which the last attempt has failed, or one that no other could have bettered."""
    failed: dict[int, FailedMember] = {}
    for event in events:
        if event["event"] in ("failed", "lost"):
            attempt = int(event["attempt"])
            if attempt >= max_attempts or event.get("final"):
                member = int(event["member"])
                failed[member] = FailedMember(member, attempt, str(event["reason"]))
        elif event["event"] == "completed":
            failed.pop(int(event["member"]), None)
    return tuple(failed.values())


def _leaves(tree: object, path: str = "") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {path: tree}
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= _leaves(value, f"{path}.{key}" if path else str(key))
    return found
