"""What can happen to a study, and what can be decided about it."""

from dataclasses import dataclass

from pipeline.members.attempt import Assignment, MemberReport


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
class WaitingForRoom:
    """Samples of these members, and of no others, wait at a reservoir for room."""

    members: frozenset[int]


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
    WorkerReady
    | MemberCompleted
    | MemberFailed
    | WorkerLost
    | WaitingForRoom
    | TrainingEnded
    | Broken
    | TimePassed
)


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
class Forget:
    """This attempt has failed: no slot is kept for the samples that it left unfinished."""

    member: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Pass:
    """No further sample of this member will come; ``instead`` will be run in its place."""

    member: int
    instead: int | None


@dataclass(frozen=True, slots=True)
class EndValidation:
    """No further validation sample will come."""


@dataclass(frozen=True, slots=True)
class BeginTraining:
    """The first members are whole, so that fields can be normalised by them: ranks may start."""


@dataclass(frozen=True, slots=True)
class EndProduction:
    """No further training sample will come: the reservoirs drain."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The study is over; ``reason`` is None when it succeeded."""

    reason: str | None


Decision = Start | Replace | Forget | Pass | EndValidation | BeginTraining | EndProduction | Stop


@dataclass(frozen=True, slots=True)
class FailedMember:
    """A member given up, and why its last attempt failed."""

    member: int
    attempts: int
    reason: str
