"""Decides which member runs where and when the study ends: events in, decisions out.

A pure state machine: it starts nothing, waits for nothing and reads no clock. Whoever drives it
hands in what happened (``handle``) and carries out what it answers.

1. Validation members are dispatched before training members.
2. A worker runs one member at a time.
3. Every member ends exactly once: completed, or failed after ``max_attempts`` attempts.
4. Validation ends once, after its last member; production ends once, after the last member of all.
5. The study stops once: when training is over, or as soon as it cannot succeed any more.
6. After ``production_seconds`` no training member is dispatched any more; those that run end.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.stats import MemberCounts, MemberReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One attempt at one member. Validation members carry the lowest numbers."""

    member: int
    attempt: int
    validation: bool


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker can take a member."""

    worker: int


@dataclass(frozen=True, slots=True)
class MemberCompleted:
    """All samples of an attempt are stored."""

    worker: int
    report: MemberReport


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """An attempt failed; ``final`` when another try would fail in the same way."""

    worker: int
    reason: str
    final: bool


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker's process died and is being replaced; it takes a member again once ready."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingEnded:
    """Every rank has left the training loop."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A part that the study cannot do without is gone for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing else happened; deadlines are looked at."""


Event = (
    WorkerReady | MemberCompleted | MemberFailed | WorkerLost | TrainingEnded | Broken | TimePassed
)

# --- decisions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Run this attempt on this worker."""

    worker: int
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Replace:
    """The worker's attempt is overdue: end its process; it comes back as a ``WorkerLost``."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class EndValidation:
    """No further validation sample will come."""


@dataclass(frozen=True, slots=True)
class EndProduction:
    """No further training sample will come: the reservoirs drain."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The study is over; ``reason`` is None when it succeeded."""

    reason: str | None


Decision = Start | Replace | EndValidation | EndProduction | Stop


@dataclass(frozen=True, slots=True)
class FailedMember:
    """A member given up, and why its last attempt failed."""

    member: int
    attempts: int
    reason: str


@dataclass(slots=True)
class _Running:
    assignment: Assignment
    since: float
    overdue: bool = False


@dataclass(kw_only=True, slots=True)
class Controller:
    """The state of one ensemble.

    Attributes:
        validation: Validation members, numbered ``0 .. validation - 1``.
        members: Training members, numbered from ``validation`` on.
        max_attempts: Tries before a member is given up.
        max_failed_fraction: The study fails when a larger share of all members has failed.
        member_timeout: Seconds an attempt may take; None for no limit.
        production_seconds: When the last training member may start, by the clock that ``handle`` is
            given; None for no limit.
    """

    validation: int
    members: int
    max_attempts: int
    max_failed_fraction: float
    member_timeout: float | None = None
    production_seconds: float | None = None
    failures: list[FailedMember] = field(default_factory=list)
    _waiting: deque[Assignment] = field(default_factory=deque)
    _idle: deque[int] = field(default_factory=deque)
    _running: dict[int, _Running] = field(default_factory=dict)
    _completed: int = 0
    _retries: int = 0
    _validation_open: int = 0
    _validation_ended: bool = False
    _production_ended: bool = False
    _stopped: bool = False

    def __post_init__(self) -> None:
        for member in range(self.total):
            self._waiting.append(
                Assignment(member=member, attempt=1, validation=member < self.validation)
            )
        self._validation_open = self.validation

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
        )

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take in what happened at ``now`` (seconds, any origin) and say what to do."""
        if self._stopped:
            return []
        match event:
            case WorkerReady(worker):
                self._idle.append(worker)
            case MemberCompleted(worker):
                self._complete(worker)
            case MemberFailed(worker, reason, final):
                self._idle.append(worker)
                self._fail(worker, reason, final=final)
            case WorkerLost(worker, reason):
                if worker in self._running:
                    self._fail(worker, reason, final=False)
            case TrainingEnded():
                return self._stop(None if self._production_ended else "training ended too early")
            case Broken(reason):
                return self._stop(reason)
            case TimePassed():
                pass
        return self._next(now)

    def _complete(self, worker: int) -> None:
        assignment = self._running.pop(worker).assignment
        self._idle.append(worker)
        self._completed += 1
        self._validation_open -= assignment.validation

    def _fail(self, worker: int, reason: str, *, final: bool) -> None:
        assignment = self._running.pop(worker).assignment
        if assignment.attempt < self.max_attempts and not final:
            self._retries += 1
            again = Assignment(
                member=assignment.member,
                attempt=assignment.attempt + 1,
                validation=assignment.validation,
            )
            # Validation members stay first; a failing training member goes to the back, so that
            # one bad parameter set cannot hold up the others.
            if again.validation:
                self._waiting.appendleft(again)
            else:
                self._waiting.append(again)
            return
        self.failures.append(FailedMember(assignment.member, assignment.attempt, reason))
        self._validation_open -= assignment.validation

    def _next(self, now: float) -> list[Decision]:
        if len(self.failures) > self.max_failed_fraction * self.total:
            last = self.failures[-1]
            return self._stop(
                f"{len(self.failures)} of {self.total} members failed, more than "
                f"ensemble.max_failed_fraction={self.max_failed_fraction:g} allows; the last, "
                f"member {last.member}: {last.reason}"
            )
        decisions = self._overdue(now)
        if self.production_seconds is not None and now >= self.production_seconds:
            self._waiting = deque(each for each in self._waiting if each.validation)
        while self._idle and self._waiting:
            worker, assignment = self._idle.popleft(), self._waiting.popleft()
            self._running[worker] = _Running(assignment, now)
            decisions.append(Start(worker, assignment))
        return decisions + self._endings()

    def _overdue(self, now: float) -> list[Decision]:
        if self.member_timeout is None:
            return []
        decisions: list[Decision] = []
        for worker, running in self._running.items():
            if not running.overdue and now - running.since > self.member_timeout:
                running.overdue = True
                reason = f"no result within ensemble.member_timeout={self.member_timeout:g} s"
                decisions.append(Replace(worker, reason))
        return decisions

    def _endings(self) -> list[Decision]:
        decisions: list[Decision] = []
        if not self._validation_ended and self._validation_open == 0:
            self._validation_ended = True
            decisions.append(EndValidation())
        if not self._production_ended and not self._waiting and not self._running:
            self._production_ended = True
            decisions.append(EndProduction())
        return decisions

    def _stop(self, reason: str | None) -> list[Decision]:
        self._stopped = True
        return [Stop(reason)]
