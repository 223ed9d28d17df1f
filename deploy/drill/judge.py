"""Whether a drilled study has kept its promises: each outcome, and the verdict over all of them.

1. The drill is passed when the study ended by itself, every fault was carried out and survived, no
   member and no sample is missing or there twice, and nothing was left behind.
2. The error is compared with the spread of undisturbed runs, and decides nothing: one of four alike
   runs is the worst.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.drill.plan import Fault, Kind
from pipeline.study.problems import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one fault.

    Attributes:
        number: Of the fault.
        kind: Of it.
        at: Seconds since the drill began.
        noticed: Seconds until the study, or who started it, knew; None: it did not.
        recovered: Seconds until the study was as far, and as busy, as before; None: it was not.
        restarts: How often the command had to be given again.
        samples_lost: Stored, and gone with what has died: simulated again.
        stored_twice: Samples that are there twice since then.
        members: Finished by then.
        missed: Why it was not carried out, if so.
    """

    number: int
    kind: Kind
    at: float
    noticed: float | None = None
    recovered: float | None = None
    restarts: int = 0
    samples_lost: int = 0
    stored_twice: int = 0
    members: int = 0
    missed: str | None = None

    @classmethod
    def of_missed(cls, fault: Fault, at: float, why: str) -> "Outcome":
        """Of a fault that was not carried out."""
        return cls(number=fault.number, kind=fault.kind, at=at, missed=why)

    @property
    def survived(self) -> bool:
        """Whether it was carried out, and the study went on."""
        return self.recovered is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What the study came to.

    Attributes:
        ended: By itself, with a result.
        members_due: Asked for.
        members_finished: Each counted once.
        members_twice: Further endings of the same ones.
        samples_due: Training samples of all finished members.
        samples_stored: As the study has counted them.
        checkpoint_stored: Samples that the last checkpoint knows, validation included.
        checkpoint_twice: Of those, there twice.
        recorded: Training samples in the record; None without a complete one of all of them.
        recorded_twice: Further rows of the same samples in it; None without one.
        left_behind: Processes and files.
        error: Mean squared error on validation members, in the field's unit squared.
    """

    ended: bool
    members_due: int
    members_finished: int
    members_twice: int
    samples_due: int
    samples_stored: int
    checkpoint_stored: int
    checkpoint_twice: int
    recorded: int | None
    recorded_twice: int | None
    left_behind: tuple[str, ...] = ()
    error: float | None = None

    @property
    def members_lost(self) -> int:
        """Asked for, and never finished."""
        return max(0, self.members_due - self.members_finished)

    @property
    def counted_twice(self) -> int:
        """Endings of members beyond the first."""
        return self.members_twice + max(0, self.members_finished - self.members_due)

    @property
    def samples_lost(self) -> int:
        """Of finished members, and not stored at the end."""
        known = self.samples_stored
        if self.recorded is not None:
            known = min(known, self.recorded)
        return max(0, self.samples_due - known)

    @property
    def stored_twice(self) -> int:
        """By all that is known: the record, the last checkpoint, the counters."""
        counted = max(0, self.samples_stored - self.samples_due)
        return max(counted, self.checkpoint_twice, self.recorded_twice or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An undisturbed run: its seed, its error as in ``Account``, and its seconds."""

    seed: int
    error: float | None
    wall_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the drill says.

    Attributes:
        problems: Why it was not passed; empty when it was.
        lines: What there is to say, passed or not.
    """

    problems: tuple[str, ...] = ()
    lines: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems


def judge(
    outcomes: Sequence[Outcome],
    account: Account,
    references: Sequence[Reference],
    absent: Mapping[Kind, str],
) -> Verdict:
    """The verdict over a drill."""
    found = _of_faults(outcomes)
    if not account.ended:
        found.append("the study did not end by itself")
    counts = {
        ("member", "lost"): account.members_lost,
        ("member", "counted twice"): account.counted_twice,
        ("sample", "lost"): account.samples_lost,
        ("sample", "stored twice"): account.stored_twice,
    }
    if account.ended:
        found += [
            f"{counted(number, noun)} {what}" for (noun, what), number in counts.items() if number
        ]
    found += [f"left behind: {each}" for each in account.left_behind]
    survived = sum(each.survived for each in outcomes)
    restarts = sum(each.survived and each.restarts > 0 for each in outcomes)
    lines = [
        f"{survived} of {len(outcomes)} faults survived, {restarts} of them by starting again",
        _members(account),
        _samples(account),
    ]
    lines += [] if account.error is None else [_compared(account.error, references)]
    lines += [f"not in this study: {kind} ({why})" for kind, why in absent.items()]
    return Verdict(problems=tuple(found), lines=tuple(lines))


def _of_faults(outcomes: Sequence[Outcome]) -> list[str]:
    found = []
    missed = [each for each in outcomes if each.missed is not None]
    for why in dict.fromkeys(str(each.missed) for each in missed):
        number = sum(each.missed == why for each in missed)
        found.append(f"{number} of {len(outcomes)} faults not carried out: {why}")
    found += [
        f"fault {each.number} ({each.kind}): the study did not come back"
        for each in outcomes
        if each.missed is None and not each.survived
    ]
    return found


def _members(account: Account) -> str:
    return (
        f"{account.members_finished} of {account.members_due} members finished, "
        f"{account.counted_twice} counted twice"
    )


def _samples(account: Account) -> str:
    return (
        f"{account.samples_stored} of {account.samples_due} samples stored, "
        f"{account.stored_twice} twice ({_checked(account)})"
    )


def _checked(account: Account) -> str:
    last = f"the last checkpoint knows {account.checkpoint_stored}, validation included"
    if account.recorded_twice is None:
        return f"checked by bits and rows of checkpoints and the journal; {last}; no record kept"
    rows = "not all" if account.recorded is None else f"{account.recorded}"
    return f"checked in the record, which has {rows} of them; {last}"


def _compared(error: float, references: Sequence[Reference]) -> str:
    known = sorted(each.error for each in references if each.error is not None)
    told = f"validation MSE {error:.4g}"
    if not known:
        return f"{told}, with no undisturbed run to compare with"
    if len(known) == 1:
        return (
            f"{told}, undisturbed {known[0]:.4g} (ratio {error / known[0]:.3g}; one has no spread)"
        )
    low, high = known[0], known[-1]
    limit = high + (high - low)
    place = "within" if error <= limit else "ABOVE"
    return (
        f"{told}, {place} the spread of {len(known)} undisturbed seeds: {low:.4g} to {high:.4g} "
        f"(up to {limit:.4g}, as far above the worst as that is from the best)"
    )


def as_json(outcome: Outcome | Account | Reference) -> dict[str, Any]:
    """Plain dict, ready for ``json.dumps``."""
    return asdict(outcome)
