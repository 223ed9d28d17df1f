"""Runs a study, does to it what a plan of faults says, and tells what came of it.

1. The study runs through the same command that a person gives.
2. However a drill ends, nothing that it has started still runs.
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from deploy.drill import judge as drill_judge
from deploy.drill.child import Child
from deploy.drill.course import Course
from deploy.drill.judge import Account, Outcome, Reference, Verdict
from deploy.drill.nodes import Nodes, cpus_of
from deploy.drill.plan import Fault, Kind, absent
from deploy.drill.table import table
from deploy.speaking import BAD_INPUT, Terminated, say
from pipeline.checkpoint import accounting
from pipeline.control import journal, rundir
from pipeline.errors import ConfigError, StudyFailed
from pipeline.slots.shared_files import PREFIX, SHARED_MEMORY, remove_stale
from pipeline.study.config import StudyConfig
from trainers.durable import json_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill:
    """What is drilled.

    Attributes:
        path: The study's file.
        text: To be written there first; None: it is there.
        overrides: Its changed keys, those of the drill among them.
        study: As it is run.
        kinds: That the plan was made of.
        plan: The faults.
        references: Seeds of undisturbed runs.
        nodes: To be made of this machine, if more than one.
        out: A new folder.
    """

    path: Path
    text: str | None
    overrides: tuple[str, ...]
    study: StudyConfig
    kinds: tuple[Kind, ...]
    plan: tuple[Fault, ...]
    references: tuple[int, ...]
    nodes: int
    out: Path

    def arguments(self, folder: str, *more: str) -> list[str]:
        """Of ``headrace``, for a run in a folder of the drill."""
        changed = [word for each in (*self.overrides, *more) for word in ("--set", each)]
        out = ["--out", str(self.out / folder)]
        return ["run", str(self.path), *out, "--resume", "--quiet", *changed]


def drill(asked: Drill) -> Verdict:
    """Run it all, and leave ``drill.json``.

    Raises:
        ConfigError: The folder is in use, or the study cannot be run.
        StudyFailed: An undisturbed run failed: there is nothing to be drilled.
    """
    if found := rundir.problems(asked.out):
        raise ConfigError(found)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.text is not None:
        asked.path.write_text(asked.text, encoding="utf-8")
    with _sigterm_unwinds():
        with _nodes(asked) as nodes:
            references = [_reference(asked, seed, nodes) for seed in asked.references]
            say(f"the drill: {len(asked.plan)} faults")
            course = Course(
                Child(asked.arguments("run"), asked.out / "run.txt", nodes),
                asked.out / "run",
                asked.plan,
                nodes,
            )
            outcomes = course.run()
        account = _account(asked, course)
    missing = absent(asked.study, asked.nodes)
    verdict = drill_judge.judge(outcomes, account, references, missing)
    _write(asked, outcomes, account, references, verdict)
    console = Console()
    console.print(table(outcomes))
    for line in verdict.lines:
        sys.stdout.write(f"* {line}\n")
    for line in verdict.problems:
        sys.stdout.write(f"! {line}\n")
    sys.stdout.write("passed\n" if verdict.passed else "NOT PASSED\n")
    sys.stdout.write(f"report  {asked.out / 'drill.json'}\n")
    return verdict


@contextmanager
def _nodes(asked: Drill) -> Iterator[Nodes | None]:
    if asked.nodes == 1:
        yield None
        return
    nodes = Nodes(cpus_of(asked.study, asked.nodes), asked.out / "nodes.txt")
    try:
        yield nodes
    finally:
        nodes.end()


def _reference(asked: Drill, seed: int, nodes: Nodes | None) -> Reference:
    """Run the study with nobody disturbing it.

    Raises:
        StudyFailed: It did not come to its end.
    """
    say(f"undisturbed, seed {seed}")
    name = f"undisturbed-{seed}"
    child = Child(asked.arguments(name, f"seed={seed}"), asked.out / f"{name}.txt", nodes)
    try:
        child.start()
        status = child.wait()
        if status:
            _refuse(status, child, "the undisturbed run failed")
    finally:
        child.end()
    summary = json.loads(rundir.RunPaths(asked.out / name).summary.read_text(encoding="utf-8"))
    return Reference(
        seed=seed, error=summary["validation_error"], wall_seconds=summary["wall_seconds"]
    )


def _refuse(status: int, child: Child, what: str) -> None:
    story = child.story()
    if status == BAD_INPUT:
        raise ConfigError([f"{what}: {line}" for line in story.splitlines()[-5:]])
    raise StudyFailed(f"{what} (status {status}): {story}")


def _account(asked: Drill, course: Course) -> Account:
    """What the drilled run has come to."""
    out, study = course.watch.out, asked.study
    say("waiting for all processes to be gone")
    left = [*course.child.left(), *_files_left(out, study.name)]
    remove_stale(f"{PREFIX}{study.name}-")
    paths = rundir.RunPaths(out)
    events = list(journal.read(paths.journal)) if paths.journal.exists() else []
    members, samples = accounting.members_of(events), accounting.samples_of(out)
    record = accounting.record_of(out)
    validation = study.ensemble.validation
    summary: dict[str, Any] = {}
    if course.watch.has_ended:
        summary = json.loads(paths.summary.read_text(encoding="utf-8"))
    return Account(
        ended=bool(summary),
        members_due=validation + study.ensemble.members,
        members_finished=members.finished,
        members_twice=members.twice,
        samples_due=accounting.samples_due(events, study),
        samples_stored=int(summary.get("samples_inserted", 0)),
        checkpoint_stored=0 if samples is None else samples.stored,
        checkpoint_twice=0 if samples is None else samples.twice,
        recorded=record.recorded if record is not None and _is_of_all(study, record) else None,
        recorded_twice=None if record is None else record.twice,
        left_behind=tuple(left),
        error=summary.get("validation_error"),
    )


def _is_of_all(study: StudyConfig, record: accounting.RecordAccount) -> bool:
    """Whether every sample must be in the record."""
    kept = study.record
    share = kept is not None and kept.what == "inserted" and kept.fraction == kept.every == 1
    return share and record.complete


def _files_left(out: Path, name: str) -> Iterator[str]:
    """Shared memory of the study, and what was half-written."""
    half_written = rundir.RunPaths(out).checkpoints.glob(".*")
    for path in (*SHARED_MEMORY.glob(f"{PREFIX}{name}-*"), *half_written):
        yield str(path)


def _write(
    asked: Drill,
    outcomes: Sequence[Outcome],
    account: Account,
    references: Sequence[Reference],
    verdict: Verdict,
) -> None:
    told = {
        "passed": verdict.passed,
        "problems": list(verdict.problems),
        "verdict": list(verdict.lines),
        "command": ["headrace", *asked.arguments("run")],
        "kinds": list(asked.kinds),
        "outcomes": [drill_judge.as_json(each) for each in outcomes],
        "account": drill_judge.as_json(account),
        "references": [drill_judge.as_json(each) for each in references],
        "study": asked.study.as_json(),
    }
    path = asked.out / "drill.json"
    path.write_text(json_text(told, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end the drill as Ctrl-C does, so that the study is ended with it."""

    def unwind(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before)
