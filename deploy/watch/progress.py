"""What a person sees while a study runs: a live panel on a terminal, plain lines anywhere else.

1. A view never changes or delays the study: it reads a ``StudyStats`` and writes to its console.
2. Rendering is pure: the same figures and history give the same text, whatever the time.
3. Without a terminal a line is written at each change of phase, and every ``every`` seconds.
4. What is remembered for the curves is bounded.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Self, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy import figures
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.stats import Phase, StudyStats, Waiting
from pipeline.study.problems import counted

PANEL_WIDTH = 100
MAX_CURVE_WIDTH = 30
MIN_CURVE_WIDTH = 8
LABEL_WIDTH = 12
MAX_POINTS = 512
PHASE_STYLES: dict[Phase, str] = {
    "starting": "yellow",
    "filling": "cyan",
    "training": "green",
    "draining": "magenta",
    "done": "bold green",
    "failed": "bold red",
    "stopped": "bold yellow",
}
OVER = ("done", "failed", "stopped")
WAITING_STYLES: dict[Waiting, str] = {"nobody": "green", "trainer": "yellow", "solvers": "yellow"}


@final
class History:
    """The last draw rates, losses and validation errors, for the curves."""

    def __init__(self) -> None:
        self.draw_rates: deque[float] = deque(maxlen=MAX_POINTS)
        self.losses: deque[float] = deque(maxlen=MAX_POINTS)
        self.errors: deque[float] = deque(maxlen=MAX_POINTS)
        self._step = 0
        self._validated_step = 0

    def add(self, stats: StudyStats) -> None:
        """Remember what is new in ``stats``."""
        if stats.samples_drawn_per_second > 0.0:
            self.draw_rates.append(stats.samples_drawn_per_second)
        loss, step = figures.loss(stats), figures.train_step(stats)
        if loss is not None and step > self._step:
            self._step = step
            self.losses.append(loss)
        result = figures.validation(stats)
        if result is not None and result.train_step > self._validated_step:
            self._validated_step = result.train_step
            self.errors.append(result.error)


def line(stats: StudyStats) -> str:
    """The study in one line of plain text."""
    inserted = figures.total(stats, "inserted")
    parts = [
        f"[{figures.clock(stats.elapsed_seconds)}] {stats.phase}",
        _members_line(stats),
        f"samples {figures.count(inserted)}/{figures.count(stats.samples_expected)}",
        f"in {figures.number(stats.samples_inserted_per_second)}/s",
        f"drawn {figures.number(stats.samples_drawn_per_second)}/s",
        f"reuse {figures.number(stats.reuse_mean)}",
        f"reservoir {figures.percent(figures.fill_share(stats))} full",
        f"{figures.percent(figures.unseen_share(stats.reservoirs))} unseen",
        f"step {figures.count(figures.train_step(stats))}",
        f"loss {figures.number(figures.loss(stats))}",
    ]
    result = figures.validation(stats)
    if result is not None:
        parts.append(f"validation {figures.errors(result.one_step)}")
    if stats.phase not in OVER:
        parts.append(figures.waiting(stats))
        parts.append(f"{figures.seconds(stats.remaining_seconds)} left")
    return ", ".join(parts)


def _members_line(stats: StudyStats) -> str:
    members = stats.members
    text = f"members {members.completed}/{members.total} done {members.running} running"
    return f"{text} {members.failed} failed" if members.failed else text


def panel(
    stats: StudyStats, history: History, *, name: str, width: int = PANEL_WIDTH
) -> RenderableType:
    """The study as a panel for a terminal of ``width`` columns; bars shrink before text wraps."""
    width = min(width, PANEL_WIDTH)
    curve = max(MIN_CURVE_WIDTH, MAX_CURVE_WIDTH - (PANEL_WIDTH - width))
    return Panel(
        Group(
            _ensemble(stats, curve),
            Text(),
            _flow(stats, history, curve),
            Text(),
            _learning(stats, history, curve),
        ),
        title=Text.assemble(("headrace ", "bold"), (name, "bold cyan")),
        title_align="left",
        subtitle=_footer(stats),
        subtitle_align="right",
        border_style=PHASE_STYLES[stats.phase],
        padding=(1, 2),
        width=width,
    )


def _footer(stats: StudyStats) -> Text:
    text = Text.assemble(
        (figures.PHASES[stats.phase], PHASE_STYLES[stats.phase]),
        (" · ", "dim"),
        figures.clock(stats.elapsed_seconds),
    )
    if stats.remaining_seconds is not None and stats.phase not in OVER:
        text.append(f" · {figures.seconds(stats.remaining_seconds)} left", "bold")
    return text


def _rows(curve: int) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", width=LABEL_WIDTH, no_wrap=True)
    table.add_column(width=curve, no_wrap=True)
    table.add_column(ratio=1)
    return table


def _bar(share: float | None, curve: int, style: str) -> ProgressBar:
    return ProgressBar(
        total=1.0,
        completed=min(1.0, share) if share is not None else 0.0,
        width=curve,
        complete_style=style,
        finished_style=style,
    )


def _ensemble(stats: StudyStats, curve: int) -> Table:
    members = stats.members
    table = _rows(curve)
    text = Text.assemble(
        (f"{members.completed}", "bold"),
        f"/{members.total} done",
        (" · ", "dim"),
        f"{members.running} running",
    )
    if members.failed or members.retries:
        text.append(f" · {members.failed} failed", "red" if members.failed else "dim")
        text.append(f" · {counted(members.retries, 'retry', 'retries')}", "dim")
    table.add_row(
        "members",
        _bar(
            _share(members.completed + members.failed - members.redrawn, members.total),
            curve,
            "cyan",
        ),
        text,
    )
    inserted, expected = figures.total(stats, "inserted"), stats.samples_expected
    table.add_row(
        "samples",
        _bar(_share(inserted, expected), curve, "blue"),
        Text.assemble(
            (figures.count(inserted), "bold"),
            f"/{figures.count(expected)}",
            (" · ", "dim"),
            (figures.number(stats.samples_inserted_per_second), "bold"),
            "/s in",
        ),
    )
    return table


def _flow(stats: StudyStats, history: History, curve: int) -> Table:
    table = _rows(curve)
    table.add_row(
        "draws",
        _curve(history.draw_rates, curve, "bright_blue"),
        Text.assemble(
            (figures.number(stats.samples_drawn_per_second), "bold"),
            "/s drawn",
            (" · ", "dim"),
            "reuse ",
            (figures.number(stats.reuse_mean), "bold"),
        ),
    )
    fill = figures.fill_share(stats)
    table.add_row(
        "reservoir",
        _bar(fill, curve, "magenta"),
        Text.assemble(
            (figures.percent(fill), "bold"),
            " full",
            (" · ", "dim"),
            (figures.percent(figures.unseen_share(stats.reservoirs)), "bold"),
            " unseen",
        ),
    )
    table.add_row("waiting", Text(), Text(figures.waiting(stats), WAITING_STYLES[stats.waiting]))
    return table


def _learning(stats: StudyStats, history: History, curve: int) -> Table:
    table = _rows(curve)
    table.add_row(
        "loss",
        _curve(history.losses, curve, "green"),
        Text.assemble(
            (figures.number(figures.loss(stats)), "bold"),
            (f"  at step {figures.count(figures.train_step(stats))}", "dim"),
        ),
    )
    result = figures.validation(stats)
    text = Text(figures.UNKNOWN, "dim")
    if result is not None:
        text = Text(figures.errors(result.one_step))
    table.add_row("validation", _curve(history.errors, curve, "yellow"), text)
    if result is not None:
        kind = "members" if result.rollout is None else "rollouts"
        tail = figures.tail(result.shown.spread)
        table.add_row("", Text(), Text.assemble((f"{kind} ", "dim"), tail))
    if stats.breakeven is not None:
        table.add_row("paid back", Text(), Text(_paid(stats.breakeven)))
    return table


def _paid(paid: Breakeven) -> str:
    for queries, more in ((paid.queries, ""), (paid.batched_queries, ", many at once")):
        if queries is not None:
            return f"after {counted(queries, 'query', 'queries')}{more}"
    return "never: the solver is not slower"


def _curve(values: Sequence[float], width: int, style: str) -> Text:
    return Text(figures.sparkline(values, width), style)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@final
class ProgressDisplay:
    """An observer that shows the study as it goes; use it as a context manager.

    Args:
        name: The study's name.
        console: Where to write; standard error by default, so that standard output stays free.
        every: Seconds of study time between plain lines.
    """

    def __init__(self, *, name: str, console: Console | None = None, every: float = 5.0) -> None:
        self._name = name
        self._console = Console(stderr=True) if console is None else console
        self._every = every
        self._history = History()
        self._phase: Phase | None = None
        self._written_at = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # No refresh thread: the panel is drawn when there are new figures, and only then.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with suppress(OSError):  # the terminal has gone
                self._live.stop()
            self._live = None

    def __call__(self, stats: StudyStats) -> None:
        """Show ``stats``."""
        self._history.add(stats)
        if self._live is not None:
            view = panel(
                stats,
                self._history,
                name=self._name,
                width=self._console.width,
            )
            self._live.update(view, refresh=True)
        elif stats.phase != self._phase or stats.elapsed_seconds - self._written_at >= self._every:
            # Not wrapped: a log file's lines are read by programs too.
            self._console.print(line(stats), soft_wrap=True, markup=False, highlight=False)
            self._phase = stats.phase
            self._written_at = stats.elapsed_seconds
