"""Runs a study, does to it what a plan of faults says, and tells what came of it.

The study runs through the same command that a person gives. What ends the command is answered by
giving it again, as a batch system does that requeues a job; everything else the study has to
survive by itself.

1. One fault at a time: the next comes when the study trains again and has taken a checkpoint.
2. Every wait ends: a study that does not come back is ended, and the drill says so.
3. However a drill ends, nothing that it has started still runs.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

import psutil
from rich.console import Console

from deploy import drill_judge
from deploy.drill_child import Child
from deploy.drill_judge import Account, Outcome, Reference, Verdict
from deploy.drill_nodes import Nodes, cpus_of
from deploy.drill_plan import Fault, Kind, absent
from deploy.drill_table import course, table
from deploy.drill_victims import hit, no_room, running, victims
from deploy.drill_watch import Seen, StudyWatch
from deploy.speaking import BAD_INPUT, Terminated, say
from pipeline import accounting, journal, rundir
from pipeline.config import StudyConfig
from pipeline.errors import ConfigError, StudyFailed
from pipeline.shared_files import PREFIX, SHARED_MEMORY, remove_stale

WELL_SECONDS: Final = 300.0  # from a fault to a study that trains again
FULL_SECONDS: Final = 60.0  # until a checkpoint has failed
VICTIM_SECONDS: Final = 60.0  # until there is somebody to be hit
TOO_LATE: Final = "the study had ended: give it more members (--set ensemble.members=...)"
MAX_RESTARTS: Final = 5  # of one fault
_LOOK_SECONDS: Final = 0.05


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
            course = _Course(asked, nodes)
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
        if (status := child.wait()) != 0:
            _refuse(status, child, "the undisturbed run failed")
    finally:
        child.end()
    summary = json.loads((asked.out / name / "summary.json").read_text(encoding="utf-8"))
    return Reference(
        seed=seed, error=summary["validation_mse"], wall_seconds=summary["wall_seconds"]
    )


def _refuse(status: int, child: Child, what: str) -> None:
    story = child.story()
    if status == BAD_INPUT:
        raise ConfigError([f"{what}: {line}" for line in story.splitlines()[-5:]])
    raise StudyFailed(f"{what} (status {status}): {story}")


class _DoesNotComeBackError(Exception):
    """A wait has ended without what was waited for."""


class _TooLateError(Exception):
    """A fault could not be carried out."""


@final
class _Course:
    """The drilled run: the command, what is seen of it, and the faults one after the other."""

    def __init__(self, asked: Drill, nodes: Nodes | None) -> None:
        self._asked, self._nodes = asked, nodes
        self.child = Child(asked.arguments("run"), asked.out / "run.txt", nodes)
        self.watch = StudyWatch(asked.out / "run")
        self._began = time.monotonic()
        self._restarts = 0
        self._begun_from = 0  # newest checkpoint when the command was given last
        self._twice = 0  # samples, after the faults so far

    @property
    def _at(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> list[Outcome]:
        """Carry out the plan, then wait for the end of the study."""
        outcomes: list[Outcome] = []
        try:
            self._give_command()
            self._until(self._well, WELL_SECONDS)
            for fault in self._asked.plan:
                outcomes.append(self._suffer(fault))
                say(course(outcomes[-1]))
                if outcomes[-1].missed is None and not outcomes[-1].survived:
                    break
            else:
                self._to_the_end()
        except _DoesNotComeBackError as error:
            say(f"{error}; its last words:\n{self.child.story()}")
        finally:
            self.child.end()
        left = self._asked.plan[len(outcomes) :]
        why = "the study did not come back" + (" from an earlier one" if outcomes else "")
        return outcomes + [Outcome.of_missed(fault, self._at, why) for fault in left]

    def _to_the_end(self) -> None:
        """Wait for the end of a study that goes on.

        Raises:
            _DoesNotComeBackError: It stood still for too long.
        """
        while not self.watch.has_ended:
            before = self._progress()
            deadline = time.monotonic() + WELL_SECONDS
            while self._progress() == before and not self.watch.has_ended:
                if time.monotonic() > deadline:
                    raise _DoesNotComeBackError(f"it has stood still for {WELL_SECONDS:g} s")
                self._look()
                time.sleep(_LOOK_SECONDS)
        self.child.wait()

    def _progress(self) -> tuple[object, ...]:
        seen = self.watch.seen
        return seen.completed, seen.inserted, seen.train_step, seen.phase, seen.parts

    def _give_command(self) -> None:
        self.watch.new_part()
        self._begun_from = self.watch.newest_checkpoint
        self.child.start()

    def _look(self) -> Seen:
        """See how the study is; where the command has ended too early, give it again.

        Raises:
            _DoesNotComeBackError: It was given again too often.
        """
        self.child.processes()
        status = self.child.status()
        if status is not None and not self.watch.has_ended:
            self._restarts += 1
            if self._restarts > MAX_RESTARTS or status == BAD_INPUT:
                raise _DoesNotComeBackError(
                    f"the command has ended with status {status}, {self._restarts} time(s)"
                )
            self._give_command()
        return self.watch.look()

    def _until(
        self,
        condition: Callable[[Seen], bool],
        seconds: float,
    ) -> bool:
        """Wait for something; False when the study has ended before.

        Raises:
            _DoesNotComeBackError: It did not come in time.
        """
        deadline = time.monotonic() + seconds
        while not condition(self._look()):
            if self.watch.has_ended:
                self.child.wait()
                return False
            if time.monotonic() > deadline:
                raise _DoesNotComeBackError(f"nothing came of it in {seconds:g} s")
            time.sleep(_LOOK_SECONDS)
        return True

    def _well(self, seen: Seen) -> bool:
        """Whether it trains, and would lose nothing but its newest work."""
        fresh = self.watch.newest_checkpoint > self._begun_from
        return seen.phase == "training" and seen.train_step > 0 and fresh

    def _targets(self, kind: Kind) -> list[psutil.Process]:
        processes = self.child.processes()
        hittable = set(victims(kind, running(processes)))
        return sorted((each for each in processes if each.pid in hittable), key=lambda p: p.pid)

    def _suffer(self, fault: Fault) -> Outcome:
        time.sleep(fault.pause)
        self._restarts, lost = 0, self.watch.look().samples_lost
        at, began = self._at, time.monotonic()
        noticed: float | None = None
        recovered: float | None = None
        try:
            carry_out = self._fill_the_disk if fault.kind == "disk" else self._kill
            noticed, recovered = carry_out(fault, began)
            newest = self.watch.newest_checkpoint
            self._until(
                lambda seen: self._well(seen) and self.watch.newest_checkpoint > newest,
                WELL_SECONDS,
            )
        except _TooLateError as error:
            return Outcome.of_missed(fault, at, str(error))
        except _DoesNotComeBackError as error:
            recovered = None
            say(f"fault {fault.number} ({fault.kind}): {error}; its last words:")
            say(self.child.story())
        return Outcome(
            number=fault.number,
            kind=fault.kind,
            at=round(at, 2),
            noticed=noticed,
            recovered=recovered,
            restarts=self._restarts,
            samples_lost=self.watch.seen.samples_lost - lost,
            stored_twice=self._stored_twice(),
            members=self.watch.seen.completed,
        )

    def _kill(self, fault: Fault, began: float) -> tuple[float, float]:
        """Seconds until it was noticed, and until the study was as well as before.

        Raises:
            _TooLateError: There is nobody to be hit any more.
            _DoesNotComeBackError: It does not get well.
        """
        before = self.watch.look()
        troubles, busy, parts = before.troubles, len(before.running), before.parts
        self._hit(fault)
        if not self._until(lambda s: s.troubles > troubles or s.parts > parts, WELL_SECONDS):
            raise _TooLateError(TOO_LATE)
        noticed, furthest = time.monotonic() - began, self.watch.seen.furthest
        lasting = fault.kind in ("driver", "reservoir", "trainer_rank")

        def recovered(seen: Seen) -> bool:
            if lasting or seen.parts > parts:
                return seen.train_step > furthest or (seen.ended and seen.train_step > 0)
            return len(seen.running) >= busy or seen.ended

        self._until(recovered, WELL_SECONDS)
        if fault.kind == "node" and self._nodes is not None:
            self._nodes.add()
        return round(noticed, 2), round(time.monotonic() - began, 2)

    def _hit(self, fault: Fault) -> None:
        """Look for a victim until there is one.

        Raises:
            _TooLateError: There is none.
        """
        deadline = time.monotonic() + VICTIM_SECONDS
        while not self.watch.has_ended:
            if fault.kind == "driver":
                self.child.kill()
                return
            if fault.kind == "node":
                assert self._nodes is not None
                self._nodes.lose()
                return
            targets = self._targets(fault.kind)
            if targets:
                hit(fault.kind, targets[fault.chosen(len(targets))])
                return
            if time.monotonic() > deadline:
                raise _TooLateError("there is no such process on this node")
            self._look()
            time.sleep(_LOOK_SECONDS)
        raise _TooLateError(TOO_LATE)

    def _fill_the_disk(self, fault: Fault, began: float) -> tuple[float, float]:
        """Likewise, with no room for checkpoints until one has failed."""
        del fault
        before = self.watch.look()
        parts, failed = before.parts, before.checkpoints_failed
        with no_room(self._targets("disk")):
            if not self._until(
                lambda seen: seen.checkpoints_failed > failed or seen.parts > parts, FULL_SECONDS
            ):
                raise _TooLateError(TOO_LATE)
        noticed, newest = time.monotonic() - began, self.watch.newest_checkpoint
        self._until(lambda s: self.watch.newest_checkpoint > newest or s.ended, WELL_SECONDS)
        return round(noticed, 2), round(time.monotonic() - began, 2)

    def _stored_twice(self) -> int:
        """Samples that the newest checkpoint holds twice, and none before the fault did."""
        known = accounting.samples_of(self.watch.out)
        before, self._twice = self._twice, self._twice if known is None else known.twice
        return max(0, self._twice - before)


def _account(asked: Drill, course: _Course) -> Account:
    """What the drilled run has come to."""
    out, study = course.watch.out, asked.study
    say("waiting for all processes to be gone")
    left = [*course.child.left(), *_files_left(out, study.name)]
    remove_stale(f"{PREFIX}{study.name}-")
    events = list(journal.read(out / "journal.jsonl")) if out.exists() else []
    members, samples = accounting.members_of(events), accounting.samples_of(out)
    validation = study.ensemble.validation
    summary: dict[str, Any] = {}
    if course.watch.has_ended:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return Account(
        ended=bool(summary),
        members_due=validation + study.ensemble.members,
        members_finished=members.finished,
        members_twice=members.twice,
        samples_due=accounting.samples_due(events, study),
        samples_stored=int(summary.get("samples_inserted", 0)),
        checkpoint_stored=0 if samples is None else samples.stored,
        checkpoint_twice=0 if samples is None else samples.twice,
        recorded_twice=accounting.recorded_twice(out),
        left_behind=tuple(left),
        error=summary.get("validation_mse"),
    )


def _files_left(out: Path, name: str) -> Iterator[str]:
    """Shared memory of the study, and what was half-written."""
    for path in (*SHARED_MEMORY.glob(f"{PREFIX}{name}-*"), *(out / "checkpoints").glob(".*")):
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
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


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
