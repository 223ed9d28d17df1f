"""A comparison as a table, and as a page in the style of a study's report.

1. Of several seeds the table shows the median; the plots show each.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from deploy import figures
from deploy.compare.outcome import Outcome, Point, common_steps, ends, methods, middle, tail_of
from deploy.report.page import Card, Tile, render
from deploy.report.svg import BLUE, GREEN, INK, ORANGE, PURPLE, markup, style
from pipeline.study.config import StudyConfig
from pipeline.study.problems import counted
from trainers.results import FieldError

COLOURS: Final = (ORANGE, BLUE, GREEN, PURPLE, "#d64550", "#12a5b8", "#a87b2a", "#e36bb2")

ERROR: Final = "error, of std"

# Title of a column, and what stands in it.
Column = tuple[str, Callable[[Outcome], float], Callable[[float], str]]


def columns(outcomes: Sequence[Outcome]) -> list[Column]:
    """What is shown of each method."""

    def whole(value: float) -> str:
        return figures.count(round(value))

    def field(index: int, one: FieldError) -> Column:
        name = figures.labelled(one.name, one.unit)
        return name, lambda each: each.fields[index].rmse, figures.number

    steps = common_steps(outcomes)
    return [
        ("members", lambda one: one.members, whole),
        ("samples drawn", lambda one: one.draws, whole),
        ("train steps", lambda one: one.train_steps, whole),
        (ERROR, lambda one: one.error, figures.percent),
        ("best on the way", lambda one: one.best, figures.percent),
        (f"after {whole(steps)} steps", lambda one: one.error_after(steps), figures.percent),
        *(field(*each) for each in enumerate(outcomes[0].fields if outcomes else ())),
        ("tail", lambda one: tail_of(one.spread), figures.percent),
        ("worst member", lambda one: one.spread.max, figures.percent),
        ("wall time", lambda one: one.wall_seconds, figures.seconds),
        ("first step", lambda one: one.first_step_seconds, figures.seconds),
        ("batches/s", lambda one: one.batches_per_second, figures.number),
        ("samples/s", lambda one: one.samples_per_second, figures.number),
        ("waited", lambda one: one.wait_seconds, figures.seconds),
        ("written", lambda one: float(one.bytes_written), figures.size),
        ("on disk", lambda one: float(one.disk_bytes), figures.size),
        ("load", lambda one: one.load.after, figures.number),
    ]


def rows(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    """A line for each method: medians, and the range of the error where there are several seeds."""
    for name in methods(outcomes):
        cells = [name]
        for title, of, text in columns(outcomes):
            low, high = ends(outcomes, name, of)
            value = text(middle(outcomes, name, of))
            several = title == ERROR and low < high
            cells.append(f"{value} ({text(low)} to {text(high)})" if several else value)
        yield cells


def table(outcomes: Sequence[Outcome]) -> Table:
    """For the terminal: a line for each figure, a column for each method."""
    shown = Table(title="online and offline", title_justify="left", box=None)
    shown.add_column(style="dim", no_wrap=True)
    lines = list(rows(outcomes))
    for line in lines:
        shown.add_column(line[0], justify="right")
    for index, (title, _, _) in enumerate(columns(outcomes), 1):
        shown.add_row(title, *(line[index] for line in lines))
    return shown


def writing(told: dict[str, Any]) -> str:
    """What it took to write a data set."""
    stores = ", ".join(
        f"{name} {figures.size(told['bytes_written'][name])} in {figures.seconds(seconds)}"
        for name, seconds in told["write_seconds"].items()
    )
    failed = f", {told['failed']} failed" if told["failed"] else ""
    return (
        f"{counted(told['members'], 'member')}{failed} in "
        f"{figures.seconds(told['wall_seconds'])} of wall time; in all processes together: "
        f"solvers {figures.seconds(told['solve_seconds'])}, {stores}"
    )


def page(
    study: StudyConfig,
    outcomes: Sequence[Outcome],
    written: Sequence[dict[str, Any]],
    sentences: Sequence[str],
    *,
    seconds: float | None,
) -> str:
    """The whole page."""
    limit = "all members are run" if seconds is None else f"{figures.seconds(seconds)} each"
    return render(
        title=f"{study.name} · online and offline · headrace",
        name=study.name,
        badge="online and offline",
        source="",
        good=True,
        what=(
            f"{study.solver.kind} · {' x '.join(map(str, study.spec.shape))} · "
            f"{study.trainer.model.kind} on {counted(study.trainer.ranks, 'rank')} · {limit}"
        ),
        tiles=[_tile(outcomes, name) for name in methods(outcomes)],
        cards=_cards(outcomes, written, sentences),
        footer=(
            "Written by headrace. Times count from the start of a method's first process. Before "
            "each pass the kernel's page cache was dropped for the files that are read; what the "
            "storage below caches is not known. ram reads its files once and draws from memory. "
            "Load: average over one minute at the end of a method, its own processes included."
        ),
    )


def _tile(outcomes: Sequence[Outcome], name: str) -> Tile:
    error = figures.percent(middle(outcomes, name, lambda one: one.error))
    rate = figures.number(middle(outcomes, name, lambda one: one.batches_per_second))
    return Tile(name, error, f"validation error; {rate} batches/s")


def _cards(
    outcomes: Sequence[Outcome], written: Sequence[dict[str, Any]], sentences: Sequence[str]
) -> Iterator[Card]:
    yield Card(title="Which way wins", lines=[(one, "") for one in sentences], wide=True)
    for title, drawing in (
        ("Error against wall time", _curves(outcomes, "seconds", "error", ERROR)),
        ("Error against members", _curves(outcomes, "members", "error", ERROR)),
        ("Tail against wall time", _curves(outcomes, "seconds", "tail", "error, tail of members")),
        ("Batches", _bars(outcomes)),
    ):
        yield Card(title=title, drawings=[drawing])
    lines = list(rows(outcomes))
    heads = [title for title, _, _ in columns(outcomes)]
    table = [("", *(line[0] for line in lines))]
    table += [(head, *(line[row] for line in lines)) for row, head in enumerate(heads, 1)]
    yield Card(title="All figures", table=table, wide=True)
    if written:
        told = [(f"seed {one['seed']}: {writing(one)}", "") for one in written]
        yield Card(title="Writing the data set, not counted above", lines=told, wide=True)


def _curves(outcomes: Sequence[Outcome], against: str, what: str, label: str) -> Markup:
    """One line for each method and seed, on logarithmic scales."""
    with style(f"compare-{against}-{what}"):
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for name, colour in zip(methods(outcomes), COLOURS * len(outcomes), strict=False):
            mine = [one for one in outcomes if one.method == name]
            for number, one in enumerate(mine):
                x, y = _fresh(one.course, against, what)
                axes.plot(
                    x, y, color=colour, marker="o" if len(x) < 12 else "", markersize=3.5,
                    ls="-" if one.online else (0, (4, 2)), label=None if number else name,
                )  # fmt: skip
        axes.set_title(label)
        axes.set_xlabel("wall time / s" if against == "seconds" else "members seen")
        _logarithmic(axes)
        if against == "members":
            axes.set_xscale("log")
        figure.legend(loc="outside lower center", ncols=4, handlelength=1.6, columnspacing=1.4)
        return markup(figure, f"{label} against {axes.get_xlabel()}")


def _fresh(course: Sequence[Point], against: str, what: str) -> tuple[list[float], list[float]]:
    """Where a figure is new; None is left out."""
    x: list[float] = []
    y: list[float] = []
    for point in course:
        value = getattr(point, what)
        if value is not None and (not y or value != y[-1]):
            x.append(max(float(getattr(point, against)), 1e-3))
            y.append(float(value))
    return x, y


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _bars(outcomes: Sequence[Outcome]) -> Markup:
    """Batches per second of each method."""
    with style("compare-batches"):
        names = methods(outcomes)
        figure = Figure(figsize=(5.6, 0.8 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        rates = [middle(outcomes, name, lambda one: one.batches_per_second) for name in names]
        places = np.arange(len(names))[::-1]
        axes.barh(places, rates, color=COLOURS[: len(names)] or INK, alpha=0.75)
        axes.set_yticks(places, names)
        axes.set_xlabel("batches per second, all ranks together")
        axes.grid(visible=False)
        return markup(figure, "batches per second of each method")
