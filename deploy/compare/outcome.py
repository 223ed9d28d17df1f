"""What a comparison of online and offline training came to: figures, medians, plain sentences.

1. Every figure is measured; what was not is None.
2. A sentence names the better side of one criterion, whichever it is, and both figures.
3. The error is judged by the last weights, by the best on the way, and after equally many train
   steps; a sentence says when that changes the verdict, or when it rests on data held in memory.
4. Of several seeds the median counts; the range stands beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, NamedTuple

from deploy import figures
from deploy.compare.plan import RAM
from trainers.results import P95_MEMBERS, FieldError, Spread

EVEN: Final = 0.05  # a smaller relative difference is called none


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One moment of a training.

    Attributes:
        seconds: Since the method was started.
        train_step: Taken so far.
        members: Members that the samples seen so far come from, as whole ones at most.
        error: Newest validation error, as a share of the fields' standard deviations; None before
            the first.
        tail: The same of the member that 95 % are better than, or of the worst of a few.
    """

    seconds: float
    train_step: int
    members: float
    error: float | None
    tail: float | None


class Data(NamedTuple):
    """What a method had to train on; ``draws`` with repetition."""

    members: int
    samples: int
    draws: int


class Load(NamedTuple):
    """Load averages over one minute."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One method with one seed.

    Attributes:
        method: As it was asked for.
        online: Whether simulations ran meanwhile.
        seed: Seed of the study.
        members: Members that were simulated, or lay on disk.
        samples: Different ones that were there to be drawn.
        draws: Samples trained on, with repetition.
        train_steps: Train steps of each rank.
        wall_seconds: From the start of the first process to the end of the last.
        first_step_seconds: The part of them before the first train step.
        wait_seconds: Time the trainer waited for batches after its first step.
        batches_per_second: Rate of all ranks together, between the first train step and the last.
        samples_per_second: Likewise.
        bytes_written: Size of the data set, where there is one, and of the method's folder.
        disk_bytes: Storage that these take.
        error: Validation error at the end: mean of the fields' RMS errors, each as a share of the
            field's standard deviation.
        fields: Errors of each predicted field at the end.
        spread: How the errors of the validation members differ.
        load: Load averages over one minute, before and after: what else the machine did.
        course: How it went.
    """

    method: str
    online: bool
    seed: int
    members: int
    samples: int
    draws: int
    train_steps: int
    wall_seconds: float
    first_step_seconds: float
    wait_seconds: float
    batches_per_second: float
    samples_per_second: float
    bytes_written: int
    disk_bytes: int
    error: float
    fields: tuple[FieldError, ...]
    spread: Spread
    load: Load
    course: tuple[Point, ...]

    @property
    def best(self) -> float:
        """Least validation error that was measured on the way or at the end."""
        return min(self.error, *(p.error for p in self.course if p.error is not None))

    def error_after(self, train_steps: int) -> float:
        """Validation error after so many train steps: the newest one then, or the first of all."""
        if train_steps >= self.train_steps:
            return self.error
        known = [(p.train_step, p.error) for p in self.course if p.error is not None]
        before = [error for step, error in known if step <= train_steps]
        return before[-1] if before else known[0][1] if known else self.error

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return asdict(self)


Figure = Callable[[Outcome], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One thing to be better at.

    Attributes:
        name: At the start of its sentence.
        of: The figure.
        text: How the figure is written.
        more: Whether more of it is better.
        least: A smaller difference is called none, however large in proportion.
    """

    name: str
    of: Figure
    text: Callable[[float], str]
    more: bool = False
    least: float = 0.0


def methods(outcomes: Sequence[Outcome]) -> list[str]:
    """Every method once, in the order they were run."""
    return list(dict.fromkeys(one.method for one in outcomes))


def middle(outcomes: Sequence[Outcome], method: str, of: Figure) -> float:
    """Median over the seeds."""
    return median(of(one) for one in outcomes if one.method == method)


def ends(outcomes: Sequence[Outcome], method: str, of: Figure) -> tuple[float, float]:
    """Least and largest over the seeds."""
    values = [of(one) for one in outcomes if one.method == method]
    return min(values), max(values)


def tail_of(spread: Spread) -> float:
    """The 95 % quantile; the largest error where there are too few members for one."""
    return spread.max if spread.p95 is None else spread.p95


def common_steps(outcomes: Sequence[Outcome]) -> int:
    """Train steps that every method has taken."""
    return min((one.train_steps for one in outcomes), default=0)


def criteria(outcomes: Sequence[Outcome]) -> list[Criterion]:
    """What the two ways are judged by; first the error with the last weights, then its variants."""
    steps = common_steps(outcomes)

    def rate(value: float) -> str:
        return f"{figures.number(value)}/s"

    return [
        Criterion(
            name="validation error with the last weights (RMS, of the fields' standard deviations)",
            of=lambda one: one.error,
            text=figures.percent,
        ),
        Criterion(
            name="validation error, best on the way", of=lambda one: one.best, text=figures.percent
        ),
        Criterion(
            name=f"validation error after {figures.count(steps)} train steps",
            of=lambda one: one.error_after(steps),
            text=figures.percent,
        ),
        Criterion(
            name=f"tail (95 % quantile of the members, or the worst of fewer than {P95_MEMBERS})",
            of=lambda one: tail_of(one.spread),
            text=figures.percent,
        ),
        Criterion(
            name="batches per second", of=lambda one: one.batches_per_second, text=rate, more=True
        ),
        Criterion(
            name="time the trainer waited for batches",
            of=lambda one: one.wait_seconds,
            text=figures.seconds,
            least=1.0,
        ),
        Criterion(
            name="time to the first train step, the writing of the data set not counted",
            of=lambda one: one.first_step_seconds,
            text=figures.seconds,
        ),
        Criterion(
            name="different samples trained on",
            of=lambda one: float(one.samples),
            text=lambda value: figures.count(round(value)),
            more=True,
        ),
        Criterion(
            name="storage", of=lambda one: float(one.disk_bytes), text=figures.size
        ),
    ]  # fmt: skip


def verdict(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """For each criterion, the better of the best online and the best offline method."""
    sides = {
        side: methods([one for one in outcomes if one.online is online])
        for side, online in (("online", True), ("offline", False))
    }
    if not (sides["online"] and sides["offline"]):
        return
    judged = criteria(outcomes)
    last_weights = _winner(judged[0], _best(outcomes, judged[0], sides))
    stored = [name for name in sides["offline"] if not name.startswith(RAM)]
    for each in judged:
        best = _best(outcomes, each, sides)
        text, wins = _sentence(each, best) + _doubt(outcomes, each, best), _winner(each, best)
        if each.name.startswith("validation error") and wins != last_weights:
            text += f" (by the last weights: {last_weights or 'no difference'})"
        if stored and stored != sides["offline"]:
            without = _winner(each, _best(outcomes, each, sides | {"offline": stored}))
            if without != wins:
                text += f" (without data held in memory: {without or 'no difference'})"
        yield text


def _best(
    outcomes: Sequence[Outcome], each: Criterion, sides: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, str]]:
    """Of each side, the best figure and its method."""
    pick, best = max if each.more else min, {}
    for side, names in sides.items():
        values = {name: middle(outcomes, name, each.of) for name in names}
        method = pick(values, key=values.__getitem__)
        best[side] = (values[method], method)
    return best


def _winner(each: Criterion, best: Mapping[str, tuple[float, str]]) -> str | None:
    """The better side; None where the difference is too small."""
    online, offline = best["online"][0], best["offline"][0]
    if abs(online - offline) <= max(each.least, EVEN * max(abs(online), abs(offline))):
        return None
    return "online" if (online > offline) is each.more else "offline"


def _doubt(outcomes: Sequence[Outcome], each: Criterion, best: dict[str, tuple[float, str]]) -> str:
    """Where several seeds do not all say the same."""
    (low, high), (least, most) = (ends(outcomes, name, each.of) for _, name in best.values())
    several = low < high or least < most
    return (
        " (the ranges over the seeds overlap)" if several and low <= most and least <= high else ""
    )


def _sentence(each: Criterion, best: dict[str, tuple[float, str]]) -> str:
    (online, online_method), (offline, offline_method) = best["online"], best["offline"]
    pair = (
        f"{each.text(online)} online ({online_method}), {each.text(offline)} offline "
        f"({offline_method})"
    )
    wins = _winner(each, best)
    if wins is None:
        return f"{each.name}: no difference to speak of; {pair}"
    better, worse = (online, offline) if wins == "online" else (offline, online)
    return f"{each.name}: {wins} wins; {pair}{_by(better, worse, more=each.more)}"


def _by(better: float, worse: float, *, more: bool) -> str:
    if more:
        return f", {figures.number(better / worse)} times as much" if worse else ""
    return f", {figures.percent(1 - better / worse)} less" if worse else ""
