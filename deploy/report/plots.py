"""The report's curves: learning, reservoirs, throughput, waiting.

1. A line has at most ``MAX_POINTS`` points, however long the study was.
2. What is unknown or not positive is left out of a logarithmic plot, never moved.
"""

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from deploy import figures
from deploy.report.runfiles import Curve, Series
from deploy.report.svg import BLUE, GREEN, INK, ORANGE, PURPLE, markup, style
from pipeline.stats.stats import Phase

MAX_POINTS = 1500
WAITING_BINS = 60
SHOWN_PHASES: tuple[Phase, ...] = ("filling", "training", "draining")
# Of the width of a plot: what the longest of them takes in small print.
PHASE_LABEL_SHARE = 0.1


def learning(series: Series, *, against: str) -> Markup:
    """Training loss and validation error on logarithmic axes.

    Args:
        series: The study's course.
        against: ``"train_step"`` or ``"elapsed"``.
    """
    steps = against == "train_step"
    with style(f"learning-{against}"):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        rows = _fresh(series.train_step)
        x = (series.train_step if steps else series.elapsed)[rows]
        _line(upper, x, series.loss[rows], BLUE)
        rows = _fresh(series.validated_step)
        x = (series.validated_step if steps else series.elapsed)[rows]
        _line(
            lower,
            x,
            100.0 * series.validation_error[rows],
            ORANGE,
            marker="o" if rows.size < 40 else "",
        )
        upper.set_title("training loss, normalised fields")
        lower.set_title("validation error / % of the fields' standard deviations")
        for axes in (upper, lower):
            _logarithmic(axes)
            if not steps:
                _phases(axes, series, label=axes is upper)
                axes.set_xlim(0.0, max(1e-9, float(series.elapsed[-1])))
        lower.set_xlabel("train step" if steps else "wall time / s")
        return markup(figure, f"loss and validation error against {lower.get_xlabel()}")


def population(series: Series) -> Markup:
    """How many samples are held, how many of them were never drawn, and the capacity."""
    with style("population"):
        figure, axes = _single("samples")
        rows = _thin(series.elapsed.size)
        x, held, unseen = series.elapsed[rows], series.held[rows], series.unseen[rows]
        axes.fill_between(x, unseen, held, color=GREEN, alpha=0.35, lw=0, label="drawn before")
        axes.fill_between(x, 0, unseen, color=PURPLE, alpha=0.6, lw=0, label="never drawn")
        axes.plot(x, held, color=GREEN)
        axes.plot(x, series.capacity[rows], color=INK, ls=(0, (4, 3)), lw=1.1, label="capacity")
        axes.set_ylim(bottom=0, top=1.12 * max(1.0, float(np.max(series.capacity, initial=0.0))))
        _phases(axes, series, label=True)
        return _finish(figure, axes, "reservoir population against wall time")


def throughput(series: Series) -> Markup:
    """Samples stored and drawn per second."""
    with style("throughput"):
        figure, axes = _single("samples / s")
        rows = _thin(series.elapsed.size)
        x = series.elapsed[rows]
        axes.plot(x, series.drawn_rate[rows], color=ORANGE, label="drawn")
        axes.plot(x, series.inserted_rate[rows], color=BLUE, label="stored")
        axes.set_ylim(bottom=0, top=1.15 * max(1.0, *axes.get_ylim()))
        _phases(axes, series, label=True)
        return _finish(figure, axes, "samples stored and drawn per second against wall time")


def waiting(series: Series) -> Markup:
    """Share of time that each side stood still."""
    with style("waiting"):
        figure, axes = _single("share of time / %")
        for name, blocked, colour in (
            ("trainer waits for samples", series.trainer_blocked, ORANGE),
            ("solvers wait for room", series.solver_blocked, BLUE),
        ):
            edges, share = shares(series.elapsed, blocked)
            total = figures.seconds(float(blocked[-1]) if blocked.size else 0.0)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.45, label=f"{name}: {total}")
        axes.set_ylim(0, 105)
        _phases(axes, series, label=True)
        return _finish(figure, axes, "waiting times of trainer and solvers against wall time")


def _single(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("wall time / s")
    axes.set_ylabel(label)
    return figure, axes


def _finish(figure: Figure, axes: Axes, label: str) -> Markup:
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.4, columnspacing=1.6)
    axes.set_xlim(left=0)
    return markup(figure, label)


def _line(axes: Axes, x: Curve, y: Curve, colour: str, marker: str = "") -> None:
    usable = np.isfinite(y) & (y > 0.0)
    axes.plot(x[usable], y[usable], color=colour, marker=marker, markersize=3.5)


def _logarithmic(axes: Axes) -> None:
    if not any(np.size(line.get_ydata()) for line in axes.lines):
        return  # a study that was stopped early: a logarithm of nothing cannot be drawn
    axes.set_yscale("log")
    axes.margins(y=0.14)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high > 100.0 * low:
        axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _phases(axes: Axes, series: Series, *, label: bool) -> None:
    """A dotted line where the study went on to its next phase, named where there is room."""
    moments = _changes(series)
    end = float(np.max(series.elapsed, initial=0.0))
    ends = [*(moment for _, moment in moments[1:]), end][: len(moments)]
    for (phase, moment), until in zip(moments, ends, strict=True):
        axes.axvline(moment, color=INK, lw=0.7, ls=(0, (1, 2)), alpha=0.7)
        if label and until - moment > PHASE_LABEL_SHARE * end:
            axes.annotate(
                phase, (moment, 1.0), xycoords=("data", "axes fraction"),
                xytext=(3, -1), textcoords="offset points", va="top", fontsize=8, alpha=0.75,
            )  # fmt: skip


def _changes(series: Series) -> list[tuple[Phase, float]]:
    """The phases between the start and the end, with the moment each began."""
    pairs = zip(series.phase, series.elapsed, strict=True)
    firsts: dict[Phase, float] = {}
    for phase, moment in pairs:
        firsts.setdefault(phase, float(moment))
    return [(phase, firsts[phase]) for phase in SHOWN_PHASES if phase in firsts]


def _fresh(steps: Curve) -> np.ndarray:
    """Rows in which a step is reported for the first time, thinned."""
    rows = np.flatnonzero(np.diff(steps, prepend=0.0) > 0)
    kept: np.ndarray = rows[_thin(rows.size)]
    return kept


def _thin(size: int) -> np.ndarray:
    """At most ``MAX_POINTS`` evenly spaced rows, the last one included."""
    rows = np.linspace(0, max(0, size - 1), min(size, MAX_POINTS)).astype(int)
    return np.unique(rows)


def shares(elapsed: Curve, blocked: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Per cent of each of ``WAITING_BINS`` stretches of time that was spent blocked."""
    edges = np.linspace(0.0, elapsed[-1] if elapsed.size else 1.0, WAITING_BINS + 1)
    if elapsed.size == 0 or edges[-1] == 0.0:
        return np.array([0.0, 1.0]), np.zeros(1)
    total = np.interp(edges, np.r_[0.0, elapsed], np.r_[0.0, blocked])
    return edges, np.clip(100.0 * np.diff(total) / np.diff(edges), 0.0, 100.0)
