"""The loop around the controller: Ray's futures become events, decisions become calls.

1. Every future that is started is awaited or belongs to a killed actor.
2. A dead solver process reaches the controller as an event as soon as Ray notices it.
3. Asked to stop, it looks whether a rank trains; then it has the ranks take a checkpoint and waits
   for them, but not longer than ``grace_seconds``. No member is started meanwhile.
4. No wait for a member is longer than ``TICK_SECONDS``, so that deadlines are noticed at once, and
   none for a reservoir longer than ``ANSWER_SECONDS``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast, final

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from pipeline.actors.cluster import Actor, Answer, last_line
from pipeline.actors.failures import RankFailed, failure_of
from pipeline.actors.trainer import Training
from pipeline.control.controller import Controller
from pipeline.control.events import (
    BeginTraining,
    Broken,
    Decision,
    EndProduction,
    EndValidation,
    Event,
    Forget,
    MemberCompleted,
    MemberFailed,
    Pass,
    Replace,
    Start,
    Stop,
    TimePassed,
    TrainingEnded,
    WaitingForRoom,
    WorkerLost,
    WorkerReady,
)
from pipeline.control.journal import Journal
from pipeline.control.rundir import RunDirectory
from pipeline.control.stopping import StopRequest
from pipeline.errors import StudyFailed, StudyStopped
from pipeline.members.attempt import Assignment, MemberReport
from pipeline.stats.stats import Phase, StudyStats
from pipeline.stats.summary import notes_of
from pipeline.stats.watch import Effort, Watch
from trainers.checkpoints.files import steps_in

TICK_SECONDS = 0.1
OBSERVE_SECONDS = 0.5
# A reservoir answers in milliseconds; one that has not for so long hangs.
ANSWER_SECONDS = 60.0
# A worker that cannot be built (a solver that does not import, say) fails every time; three in a
# row without a single member done in between is no accident.
MAX_FAILED_STARTS = 3
# Ray refuses calls to an actor that is being made again, each after about 2 s; on a machine with
# much to do that takes several times as long.
RESTART_SECONDS = 120.0

Observer = Callable[[StudyStats], None]


@final
class Driver:
    """Runs a study to its end on actors that exist already.

    Args:
        parameters: For an assignment, the value of each solver parameter by name.
        training: What the ranks do.
        clock: Seconds since the study's start.
        stop: Whether somebody wants the study to stop.
        grace_seconds: Longest that it takes to stop.
    """

    def __init__(
        self,
        *,
        controller: Controller,
        solvers: Sequence[Actor],
        reservoirs: Sequence[Actor],
        training: Training,
        parameters: Callable[[Assignment], Mapping[str, float]],
        journal: Journal,
        run_directory: RunDirectory,
        watch: Watch,
        observers: Sequence[Observer],
        clock: Callable[[], float],
        stop: StopRequest,
        grace_seconds: float,
    ) -> None:
        self._controller, self._training, self._parameters = controller, training, parameters
        self._solvers, self._reservoirs = solvers, reservoirs
        self._journal, self._run_directory = journal, run_directory
        self._watch, self._observers, self._clock = watch, observers, clock
        self._stop, self._grace_seconds = stop, grace_seconds
        self._starting: dict[Answer, int] = {}
        self._running: dict[Answer, tuple[Start, float]] = {}
        self._failed_starts = 0
        self._restarting: dict[int, float] = {}  # worker -> since when it is unavailable
        self._solver_wait_seconds = 0.0
        self._effort = Effort()  # of the attempts that have ended
        self._observed_at = -OBSERVE_SECONDS

    def run(self) -> StudyStats:
        """Drive the study until the controller says stop.

        Raises:
            StudyFailed: With the controller's reason, or because a reservoir cannot go on.
        """
        self._stop.listen()
        for worker, solver in enumerate(self._solvers):
            self._starting[solver.ready.remote()] = worker
        try:
            return self._loop()
        except RayError as error:  # solvers and ranks that fail are events; this is neither
            reason = f"a reservoir cannot go on: {last_line(error)}"
            self._journal.write("end", at=self._clock(), reason=reason)
            raise StudyFailed(reason) from error

    def _loop(self) -> StudyStats:
        while True:
            events = self._wait()
            if self._clock() - self._observed_at >= OBSERVE_SECONDS:
                stats = self._observe()
                waiting = (each.waiting_members for each in stats.reservoirs)
                events.append(WaitingForRoom(frozenset().union(*waiting)))
            for event in events:
                for decision in self._controller.handle(event, self._clock()):
                    if isinstance(decision, Stop):
                        return self._end(decision.reason)
                    self._carry_out(decision)
            self._raise_if_refused()
            if self._stop.asked:
                return self._stop_in_order()

    def _stop_in_order(self) -> StudyStats:
        """Let the ranks take a checkpoint and leave, if they train.

        Raises:
            StudyStopped: They have, or the time was up, or there was nothing to save.
        """
        self._journal.write("stopping", at=self._clock())
        began = any(rank.first_step_seconds is not None for rank in self._observe().ranks)
        if began:
            self._tell_all(lambda each: each.ask_to_stop.remote())
        deadline = self._clock() + (self._grace_seconds if began else 0.0)
        ended: list[Event] = []
        while not ended and self._clock() < deadline:
            done, _ = ray.wait(self._training.runs, timeout=TICK_SECONDS)
            ended = [event for run in done for event in self._rank_left(run)]
            self._raise_if_refused()
            if self._clock() - self._observed_at >= OBSERVE_SECONDS:
                self._observe()
        exported = self._run_directory.paths.card.exists()
        if exported and ended == [TrainingEnded()]:
            return self._end(None)  # it had come to its end before it heard of this
        stats = self._observe("stopped")
        told = [rank.checkpoint for rank in stats.ranks if rank.checkpoint is not None]
        # What a rank tells may be old; what lies on the disk may be on that of another node.
        newest = max(told + steps_in(self._run_directory.paths.checkpoints), default=None)
        self._journal.write("stopped", at=self._clock(), checkpoint=newest)
        raise StudyStopped(newest)

    def _raise_if_refused(self) -> None:
        if self._stop.refused:
            raise KeyboardInterrupt

    def _end(self, reason: str | None) -> StudyStats:
        stats = self._observe("done" if reason is None else "failed")
        for note in notes_of(stats):
            self._journal.write("note", at=self._clock(), text=note)
        self._journal.write("end", at=self._clock(), reason=reason)
        if reason is not None:
            raise StudyFailed(reason)
        return stats

    def _wait(self) -> list[Event]:
        futures = [*self._training.runs, *self._starting, *self._running]
        done, _ = ray.wait(futures, timeout=TICK_SECONDS)
        return [event for future in done for event in self._event(future)] or [TimePassed()]

    def _event(self, future: Answer) -> list[Event]:
        if future in self._training.runs:
            return self._rank_left(future)
        if future in self._starting:
            return self._started(future, self._starting.pop(future))
        start, began = self._running.pop(future)
        self._spend(self._clock() - began)
        facts = {"member": start.assignment.member, "attempt": start.assignment.attempt}
        failed = {**facts, "wall_seconds": round(self._clock() - began, 4)}
        try:
            report = cast("MemberReport", ray.get(future))
        except RayActorError as error:
            # Before RayTaskError: an actor that dies under a call raises both at once.
            self._journal.write("lost", at=self._clock(), **failed, reason=last_line(error))
            self._starting[self._solvers[start.worker].ready.remote()] = start.worker
            return [WorkerLost(start.worker, f"solver process died: {last_line(error)}")]
        except RayTaskError as error:
            failure = failure_of(error)
            final = {"final": True} if failure.final else {}
            self._journal.write("failed", at=self._clock(), **failed, **failure.told, **final)
            return [MemberFailed(start.worker, failure.reason, final=failure.final)]
        self._failed_starts = 0
        self._solver_wait_seconds += report.wait_seconds
        self._effort = replace(
            self._effort,
            solve_seconds=self._effort.solve_seconds + report.solve_seconds,
            completed=self._effort.completed + 1,
        )
        self._journal.write(
            "completed",
            at=self._clock(),
            **facts,
            samples=report.samples,
            wall_seconds=round(report.wall_seconds, 4),
            wait_seconds=round(report.wait_seconds, 4),
            solve_seconds=round(report.solve_seconds, 4),
            iterations=report.iterations,
            refused=report.refused,
        )
        return [MemberCompleted(start.worker, report)]

    def _spend(self, seconds: float) -> None:
        """Count what an attempt took, whatever came of it."""
        spent = self._effort.attempt_seconds + seconds
        self._effort = replace(self._effort, attempt_seconds=spent)

    def _rank_left(self, run: Answer) -> list[Event]:
        try:
            return [TrainingEnded()] if self._training.left(run) else []
        except RankFailed as error:
            details = {"details": error.story} if error.story else {}
            self._journal.write("trainer failed", at=self._clock(), reason=str(error), **details)
            return [Broken(f"trainer: {error}")]

    def _started(self, future: Answer, worker: int) -> list[Event]:
        try:
            ray.get(future)
        except ActorUnavailableError as error:
            since = self._restarting.setdefault(worker, self._clock())
            # Where a node was lost there may be no room for it any more: the others go on. In order
            # they cannot: the member that it had may be the one that all are waiting for.
            alone = self._controller.ordered or len(self._restarting) == len(self._solvers)
            given_up = alone and self._clock() - since > RESTART_SECONDS
            return self._start_again(worker, error, given_up=given_up)
        except RayError as error:
            self._failed_starts += 1
            given_up = self._failed_starts >= MAX_FAILED_STARTS
            return self._start_again(worker, error, given_up=given_up)
        self._restarting.pop(worker, None)
        return [WorkerReady(worker)]

    def _start_again(self, worker: int, error: RayError, *, given_up: bool) -> list[Event]:
        if given_up:
            return [Broken(f"a solver process cannot be started: {last_line(error)}")]
        self._starting[self._solvers[worker].ready.remote()] = worker
        return []

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Start(worker, assignment):
                parameters = self._parameters(assignment)
                old = assignment.instead_of
                self._journal.write(
                    "start",
                    at=self._clock(),
                    member=assignment.member,
                    attempt=assignment.attempt,
                    validation=assignment.validation,
                    parameters=dict(parameters),
                    **({} if old is None else {"instead_of": old}),
                )
                future = self._solvers[worker].run.remote(assignment, parameters)
                self._running[future] = decision, self._clock()
            case Replace(worker, reason):
                self._journal.write("replace", at=self._clock(), worker=worker, reason=reason)
                ray.kill(self._solvers[worker], no_restart=False)
            case Forget(member, attempt):
                self._tell_all(lambda each: each.forget_incomplete.remote(member, attempt))
            case Pass(member, instead):
                self._tell_all(lambda each: each.pass_member.remote(member, instead))
            case EndValidation():
                self._tell_all(lambda each: each.end_validation.remote())
            case BeginTraining():
                self._tell_all(lambda each: each.begin_training.remote())
            case EndProduction():
                self._journal.write("production ended", at=self._clock())
                self._tell_all(lambda each: each.end_production.remote())

    def _tell_all(self, call: Callable[[Actor], Answer]) -> None:
        """Have something done by every reservoir."""
        ray.get([call(reservoir) for reservoir in self._reservoirs], timeout=ANSWER_SECONDS)

    def _observe(self, over: Phase | None = None) -> StudyStats:
        self._observed_at = self._clock()
        said = ray.get(
            [reservoir.stats.remote() for reservoir in self._reservoirs], timeout=ANSWER_SECONDS
        )
        stats = self._watch.observe(
            at=self._observed_at,
            members=self._controller.counts,
            reservoirs=[reservoir for reservoir, _ in said],
            ranks=[rank for _, rank in said if rank is not None],
            solver_wait_seconds=self._solver_wait_seconds,
            effort=self._effort_now(),
            over=over,
        )
        self._run_directory.write_metrics(stats)
        for observer in self._observers:
            observer(stats)
        return stats

    def _effort_now(self) -> Effort:
        """With the attempts that are under way."""
        under_way = sum(self._observed_at - began for _, began in self._running.values())
        spent = self._effort.attempt_seconds + under_way
        return replace(self._effort, attempt_seconds=spent)
