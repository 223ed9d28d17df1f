"""Figures as a person reads them, for the progress display and the report.

1. Three significant digits at most, and always the unit beside the number.
2. What is unknown is a dash, never a made-up zero; what is not finite is called infinite.
"""

import math
from collections.abc import Sequence

from pipeline.stats.stats import Phase, ReservoirStats, StudyStats, Waiting
from trainers.results import Errors, FieldError, Spread, ValidationResult
from trainers.surrogate.card import shown_unit

UNKNOWN = "–"  # noqa: RUF001 - a dash, as typography has it
INFINITE = "infinite"
SPARKS = "▁▂▃▄▅▆▇█"

PHASES: dict[Phase, str] = {
    "starting": "starting processes",
    "filling": "filling the reservoir",
    "training": "training",
    "draining": "solvers done, drawing what is left",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped",
}
_WAITING: dict[Waiting, str] = {
    "nobody": "nobody waits",
    "trainer": "the trainer waits for the solvers",
    "solvers": "the solvers wait for the trainer",
}


def waiting(stats: StudyStats) -> str:
    """Who waits for whom."""
    if stats.waiting == "solvers" and not stats.ranks:
        return "the trainer is starting: it imports torch"
    return _WAITING[stats.waiting]


def number(value: float | None, unit: str = "") -> str:
    """``1234.5`` -> ``1,230``; ``0.00123`` -> ``0.00123``; None -> a dash."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return INFINITE
    return f"{_plain(value)} {shown_unit(unit)}".rstrip()


def labelled(name: str, unit: str) -> str:
    """A quantity as the label of an axis or a column: ``depth / m``."""
    return f"{name} / {unit}" if shown_unit(unit) else name


def _plain(value: float) -> str:
    magnitude = abs(value)
    if magnitude != 0.0 and (magnitude < 1e-3 or magnitude >= 1e7):
        return f"{value:.2e}"
    if magnitude == 0.0:
        return "0"
    rounded = float(f"{value:.2e}")
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def field_error(one: FieldError) -> str:
    """``0.164 m (12 % of its std)``: root mean square, and what share that is."""
    return f"{number(one.rmse, one.unit)} ({percent(one.nrmse)} of its std)"


def errors(of: Errors) -> str:
    """The error of each field, in one line."""
    if len(of.fields) == 1:
        return field_error(of.fields[0])
    return ", ".join(f"{one.name} {field_error(one)}" for one in of.fields)


def tail(spread: Spread) -> str:
    """How the members' errors differ, in one line."""
    named = (("95 %", spread.p95), ("99 %", spread.p99), ("worst", spread.max))
    parts = [f"median {percent(spread.median)}"]
    parts += [f"{name} {percent(value)}" for name, value in named if value is not None]
    if spread.diverged:
        parts.append(f"{count(spread.diverged)} diverged")
    return f"{', '.join(parts)} (n = {count(spread.members)})"


def count(value: int) -> str:
    """``25000`` -> ``25,000``: counts are exact."""
    return f"{value:,}"


def percent(share: float | None) -> str:
    """``0.0123`` -> ``1.2 %``."""
    if share is None or not math.isfinite(share):
        return UNKNOWN if share is None or math.isnan(share) else INFINITE
    if share >= 0.0995 or share == 0.0:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %"


def seconds(value: float | None) -> str:
    """``3.21`` -> ``3.2 s``; ``75`` -> ``1 min 15 s``; ``7300`` -> ``2 h 02 min``."""
    if value is None:
        return UNKNOWN
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def duration(value: float) -> str:
    """``0.00123`` -> ``1.23 ms``: of what may take less than a tenth of a second."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if value * factor < 999.5:
            return number(value * factor, unit)
    return number(value, "s") if value < 59.5 else seconds(value)


def clock(value: float) -> str:
    """``75`` -> ``1:15``; ``3675`` -> ``1:01:15``: time since the start."""
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def size(value: float) -> str:
    """``1638400`` -> ``1.64 MB``: powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{_plain(value)} {unit}"
        value /= 1000.0
    return f"{_plain(value)} TB"


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of ``values`` on a log scale in ``width`` characters; empty below two values."""
    usable = [value for value in values if math.isfinite(value) and value > 0.0]
    if len(usable) < 2:
        return ""
    columns = min(width, len(usable))
    picked = [
        math.log(usable[(column * (len(usable) - 1)) // (columns - 1)]) for column in range(columns)
    ]
    low, high = min(picked), max(picked)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in picked)


def total(stats: StudyStats, name: str) -> int:
    """Sum of one integer figure of ``ReservoirStats`` over the ranks."""
    return sum(int(getattr(reservoir, name)) for reservoir in stats.reservoirs)


def fill_share(stats: StudyStats) -> float | None:
    """Held slots over all slots; None before there is a reservoir."""
    capacity = total(stats, "capacity")
    return total(stats, "held") / capacity if capacity else None


def unseen_share(reservoirs: Sequence[ReservoirStats]) -> float | None:
    """Unseen samples over held samples; None while nothing is held."""
    held = sum(reservoir.held for reservoir in reservoirs)
    return sum(reservoir.unseen for reservoir in reservoirs) / held if held else None


def loss(stats: StudyStats) -> float | None:
    """Mean over the ranks of their newest losses; None before the first train step."""
    losses = [rank.loss for rank in stats.ranks if rank.train_step > 0]
    return sum(losses) / len(losses) if losses else None


def train_step(stats: StudyStats) -> int:
    """The furthest any rank has reported."""
    return max((rank.train_step for rank in stats.ranks), default=0)


def validation(stats: StudyStats) -> ValidationResult | None:
    """The newest validation result any rank has reported."""
    results = [rank.validation for rank in stats.ranks if rank.validation is not None]
    return max(results, key=lambda result: result.train_step, default=None)
