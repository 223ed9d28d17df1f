"""Decides which member runs where and when the study ends: events in, decisions out.

A pure state machine: it starts nothing, waits for nothing and reads no clock. Whoever drives it
hands in what happened (``handle``) and carries out what it answers.

1. Validation members are dispatched before training members.
2. A worker runs one member at a time.
3. Every member ends exactly once: completed, or failed after ``max_attempts`` attempts.
4. Validation ends once, after its last member; production ends once, after the last member of all.
5. After every failed attempt the reservoirs are told to forget what it left unfinished.
6. The study stops once: when training is over, or as soon as it cannot succeed any more.
7. Training may end before production only where that was asked for; the rest is not simulated.
8. A failed attempt is tried again after a pause, which doubles up to ``MAX_RETRY_SECONDS``; others
   go first meanwhile, unless training waits for this member.
9. With ``on_failure="redraw"`` a training member that has failed for good is followed by another
   with other parameters, so that as many are completed as were asked for; each failure counts
   towards ``max_failed_fraction``, which is what ends it.
10. Time in which samples of an attempt wait for room is not held against it.
11. In a study whose samples are stored in order members start in order, whatever fails: one that
    waits for its next attempt is never overtaken, and so the one whose turn it is finds a worker.
12. After ``production_seconds`` no training member is dispatched any more; those that run end.
13. Members that were completed or given up before the study was resumed are not run again; where
    samples are stored in order, that they are over is told again.
14. Training begins once, when the first members are over: fields are normalised by them, and what
    they are must not depend on timing. It begins earlier where they cannot end before it does: all
    that runs waits for room, which only training makes.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pipeline.control.events import (
    BeginTraining,
    Broken,
    Decision,
    EndProduction,
    EndValidation,
    Event,
    FailedMember,
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
from pipeline.members.attempt import Assignment
from pipeline.stats.stats import MemberCounts

RETRY_SECONDS: Final = 1.0  # a lost process costs about as much to start again
MAX_RETRY_SECONDS: Final = 60.0
STUCK_SECONDS: Final = 120.0  # by then a lost worker runs again, if ever


@dataclass(slots=True)
class _Running:
    assignment: Assignment
    since: float
    excused: float = 0.0  # seconds of waiting for room
    waits: bool = False  # at the last look
    overdue: str | None = None  # why it was ended


@dataclass(frozen=True, slots=True)
class _Waiting:
    assignment: Assignment
    due: float  # not to be started before


@dataclass(kw_only=True, slots=True)
class Controller:
    """The state of one ensemble.

    Attributes:
        validation: Validation members, numbered ``0 .. validation - 1``.
        members: Training members, numbered from ``validation`` on.
        max_attempts: Tries before a member is given up.
        max_failed_fraction: The study fails when more members than this share of those asked for
            have failed.
        member_timeout: Seconds an attempt may take beside waiting for room; None for no limit.
        may_end_early: Whether a training that ends before production has is a success.
        on_failure: What follows a training member that has failed for good: nothing, or another.
        ordered: Samples are stored in the order of their members.
        first: Members, counted from 0, that training waits for.
        production_seconds: When the last training member may start, by the clock that ``handle`` is
            given; None for no limit.
        completed: Members that were completed before the study was resumed.
        failures: Members that were given up, before that and since.
    """

    validation: int
    members: int
    max_attempts: int
    max_failed_fraction: float
    member_timeout: float | None = None
    completed: frozenset[int] = frozenset()
    may_end_early: bool = False
    on_failure: Literal["skip", "redraw"] = "skip"
    ordered: bool = False
    first: int = 0
    production_seconds: float | None = None
    failures: list[FailedMember] = field(default_factory=list)
    _again: list[Decision] = field(default_factory=list)  # to be told once more
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _idle: deque[int] = field(default_factory=deque)
    _running: dict[int, _Running] = field(default_factory=dict)
    _completed: int = 0
    _retries: int = 0
    _redrawn: int = 0
    _looked_at: float = 0.0
    _validation_open: int = 0
    _validation_ended: bool = False
    _production_ended: bool = False
    _begun: bool = False
    _stuck_since: float = 0.0
    _stopped: bool = False

    def __post_init__(self) -> None:
        failed = [each.member for each in self.failures]
        over = self.completed.union(failed)
        for member in range(self.total):
            if member not in over:
                first = Assignment(member=member, attempt=1, validation=member < self.validation)
                self._waiting.append(_Waiting(first, float("-inf")))
        instead = {one: self._instead_of(one) for one in sorted(failed) if self._is_redrawn(one)}
        for again in instead.values():
            if again.member not in over:
                self._waiting.append(_Waiting(again, float("-inf")))
        if self.ordered:
            self._again = [
                Pass(member, instead[member].member if member in instead else None)
                for member in sorted(over)
            ]
        self._redrawn = len(instead)
        self._completed = len(self.completed)
        self._validation_open = sum(member not in over for member in range(self.validation))

    @property
    def total(self) -> int:
        """Members of both kinds."""
        return self.validation + self.members

    @property
    def counts(self) -> MemberCounts:
        """How far the ensemble is."""
        return MemberCounts(
            total=self.total,
            waiting=len(self._waiting),
            running=len(self._running),
            completed=self._completed,
            failed=len(self.failures),
            retries=self._retries,
            redrawn=self._redrawn,
        )

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take in what happened at ``now`` (seconds, any origin) and say what to do."""
        if self._stopped:
            return []
        ended: list[Decision] = []
        match event:
            case WorkerReady(worker):
                self._idle.append(worker)
            case MemberCompleted(worker):
                ended = self._complete(worker)
            case MemberFailed(worker, reason, final):
                self._idle.append(worker)
                ended = self._fail(worker, reason, now, final=final)
            case WorkerLost(worker, reason):
                if worker in self._running:
                    told = self._running[worker].overdue
                    ended = self._fail(worker, reason if told is None else told, now, final=False)
            case WaitingForRoom(members):
                self._excuse(members, now)
            case TrainingEnded():
                done = self._production_ended or self.may_end_early
                return self._stop(None if done else "training ended too early")
            case Broken(reason):
                return self._stop(reason)
            case TimePassed():
                pass
        return ended + self._next(now)

    def _complete(self, worker: int) -> list[Decision]:
        assignment = self._running.pop(worker).assignment
        self._idle.append(worker)
        self._completed += 1
        self._validation_open -= assignment.validation
        return [Pass(assignment.member, None)] if self.ordered else []

    def _fail(self, worker: int, reason: str, now: float, *, final: bool) -> list[Decision]:
        failed = self._running.pop(worker).assignment
        decisions: list[Decision] = [Forget(failed.member, failed.attempt)]
        if failed.attempt < self.max_attempts and not final:
            self._retries += 1
            pause = min(RETRY_SECONDS * 2 ** (failed.attempt - 1), MAX_RETRY_SECONDS)
            self._queue(replace(failed, attempt=failed.attempt + 1), now + pause)
            return decisions
        self.failures.append(FailedMember(failed.member, failed.attempt, reason))
        self._validation_open -= failed.validation
        instead = None
        if self._is_redrawn(failed.member):
            self._redrawn += 1
            again = self._instead_of(failed.member)
            instead = again.member
            self._queue(again, now)
        if self.ordered:
            decisions.append(Pass(failed.member, instead))
        return decisions

    def _is_redrawn(self, failed: int) -> bool:
        return self.on_failure == "redraw" and failed >= self.validation

    def _instead_of(self, failed: int) -> Assignment:
        """The member that takes a failed one's place: whatever fails first, each has its number."""
        return Assignment(
            member=failed + self.total, attempt=1, validation=False, instead_of=failed
        )

    def _queue(self, assignment: Assignment, due: float) -> None:
        """Have it started when it is due; where depends on what it may hold up."""
        waiting = _Waiting(assignment, due)
        if self.ordered:
            insort(self._waiting, waiting, key=lambda each: each.assignment.member)
        # What training waits for, and validation members, stay first; another training member goes
        # to the back, so that one bad parameter set cannot hold up the others.
        elif assignment.validation or self._is_awaited(assignment):
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)

    def _take_due(self, now: float) -> Assignment | None:
        """The next attempt that may be started."""
        for place, waiting in enumerate(self._waiting):
            if waiting.due <= now:
                del self._waiting[place]
                return waiting.assignment
            if self.ordered or self._is_awaited(waiting.assignment):
                return None
        return None

    def _is_awaited(self, assignment: Assignment) -> bool:
        return assignment.member < self.first and not self._begun

    def _may_begin(self, now: float) -> bool:
        running = list(self._running.values())
        queued = any(self._is_awaited(each.assignment) for each in self._waiting)
        if not queued and not any(self._is_awaited(each.assignment) for each in running):
            return True
        free = self.ordered or self._idle or not all(each.waits for each in running)
        if free or not running:
            self._stuck_since = now
        # Validation members never wait for room; one of them may have lost its worker, though.
        patience = STUCK_SECONDS if queued or self.validation else 0.0
        return not free and bool(running) and now - self._stuck_since >= patience

    def _excuse(self, members: frozenset[int], now: float) -> None:
        """Since the last look: what waits at either end of that time is taken to have waited."""
        for running in self._running.values():
            waits = running.assignment.member in members
            if waits or running.waits:
                running.excused += now - max(self._looked_at, running.since)
            running.waits = waits
        self._looked_at = now

    def _next(self, now: float) -> list[Decision]:
        if len(self.failures) > self.max_failed_fraction * self.total:
            last = self.failures[-1]
            return self._stop(
                f"{len(self.failures)} of {self.total} members failed, more than "
                f"ensemble.max_failed_fraction={self.max_failed_fraction:g} allows; the last, "
                f"member {last.member}: {last.reason}"
            )
        decisions, self._again = [*self._again, *self._overdue(now)], []
        if self.production_seconds is not None and now >= self.production_seconds:
            self._waiting = deque(each for each in self._waiting if each.assignment.validation)
        while self._idle and (assignment := self._take_due(now)) is not None:
            worker = self._idle.popleft()
            self._running[worker] = _Running(assignment, now)
            decisions.append(Start(worker, assignment))
        return decisions + self._endings(now)

    def _overdue(self, now: float) -> list[Decision]:
        if self.member_timeout is None:
            return []
        decisions: list[Decision] = []
        for worker, running in self._running.items():
            spent = now - running.since - running.excused
            if running.overdue is None and spent > self.member_timeout:
                running.overdue = (
                    f"no result within ensemble.member_timeout={self.member_timeout:g} s, beside "
                    f"{running.excused:.1f} s of waiting for room"
                )
                decisions.append(Replace(worker, running.overdue))
        return decisions

    def _endings(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        if not self._validation_ended and self._validation_open == 0:
            self._validation_ended = True
            decisions.append(EndValidation())
        if not self._begun and self._may_begin(now):
            self._begun = True
            decisions.append(BeginTraining())
        if not self._production_ended and not self._waiting and not self._running:
            self._production_ended = True
            decisions.append(EndProduction())
        return decisions

    def _stop(self, reason: str | None) -> list[Decision]:
        self._stopped = True
        return [Stop(reason)]
