"""A comparison as a table, and as a page in the style of a study's report.

1. The page needs nothing else: no network, no script, no other file.
2. Of several seeds the table shows the median; the plots show each.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from deploy import figures
from deploy.compare.outcome import Outcome, Point, ends, methods, middle
from deploy.report.svg import BLUE, GREEN, INK, ORANGE, PURPLE, markup, style
from pipeline.study.config import StudyConfig

COLOURS: Final = (ORANGE, BLUE, GREEN, PURPLE, "#d64550", "#12a5b8", "#a87b2a", "#e36bb2")

# Title of a column, and what stands in it.
Column = tuple[str, Callable[[Outcome], float], Callable[[float], str]]


def columns(unit: str) -> list[Column]:
    """What is shown of each method."""

    def whole(value: float) -> str:
        return figures.count(round(value))

    squared = figures.squared(unit)
    return [
        ("members", lambda one: one.members, whole),
        ("samples drawn", lambda one: one.draws, whole),
        ("train steps", lambda one: one.train_steps, whole),
        (f"MSE / {squared}" if squared else "MSE", lambda one: one.mse, figures.number),
        ("relative", lambda one: one.relative_l2, figures.percent),
        ("95 % of members", lambda one: one.spread["p95"], figures.percent),
        ("worst member", lambda one: one.spread["max"], figures.percent),
        ("wall time", lambda one: one.wall_seconds, figures.seconds),
        ("first step", lambda one: one.first_step_seconds, figures.seconds),
        ("batches/s", lambda one: one.batches_per_second, figures.number),
        ("samples/s", lambda one: one.samples_per_second, figures.number),
        ("waited", lambda one: one.wait_seconds, figures.seconds),
        ("written", lambda one: float(one.bytes_written), figures.size),
        ("on disk", lambda one: float(one.disk_bytes), figures.size),
        ("load", lambda one: one.load[1], figures.number),
    ]


def rows(outcomes: Sequence[Outcome], unit: str) -> Iterator[list[str]]:
    """A line for each method: medians, and the range of the error where there are several seeds."""
    for name in methods(outcomes):
        cells = [name]
        for title, of, text in columns(unit):
            low, high = ends(outcomes, name, of)
            value = text(middle(outcomes, name, of))
            several = title.startswith("MSE") and low < high
            cells.append(f"{value} ({text(low)} to {text(high)})" if several else value)
        yield cells


def table(outcomes: Sequence[Outcome], unit: str) -> Table:
    """For the terminal: a line for each figure, a column for each method."""
    shown = Table(title="online and offline", title_justify="left", box=None)
    shown.add_column(style="dim", no_wrap=True)
    lines = list(rows(outcomes, unit))
    for line in lines:
        shown.add_column(line[0], justify="right")
    for index, (title, _, _) in enumerate(columns(unit), 1):
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
        f"{figures.count(told['members'])} members{failed} in "
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
    unit = study.spec.units[0]
    limit = "all members are run" if seconds is None else f"{figures.seconds(seconds)} each"
    template = (files("deploy") / "templates" / "report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(f"{study.name} · online and offline · headrace"),
        name=escape(study.name),
        badge="online and offline",
        badge_class="good",
        what=escape(
            f"{study.solver.kind} · {' x '.join(map(str, study.spec.shape))} · "
            f"{study.trainer.model.kind} on {study.trainer.ranks} rank(s) · {limit}"
        ),
        tiles="\n".join(_tile(outcomes, name, unit) for name in methods(outcomes)),
        cards="\n".join(_cards(outcomes, written, sentences, unit)),
        footer=(
            "Written by headrace. Times count from the start of a method's first process. Before "
            "each pass the kernel's page cache was dropped for the files that are read; what the "
            "storage below caches is not known. Load: average over one minute at the end of a "
            "method, its own processes included."
        ),
    )


def _tile(outcomes: Sequence[Outcome], name: str, unit: str) -> str:
    mse = figures.number(middle(outcomes, name, lambda one: one.mse), figures.squared(unit))
    rate = figures.number(middle(outcomes, name, lambda one: one.batches_per_second))
    return (
        f'<div class="tile"><div class="label">{escape(name)}</div>'
        f'<div class="value">{escape(mse)}</div>'
        f'<div class="more">{escape(rate)} batches/s</div></div>'
    )


def _cards(
    outcomes: Sequence[Outcome],
    written: Sequence[dict[str, Any]],
    sentences: Sequence[str],
    unit: str,
) -> Iterator[str]:
    yield _card("Which way wins", _list(sentences), wide=True)
    squared = figures.squared(unit)
    label = f"validation mean squared error{f' / {squared}' if squared else ''}"
    yield _card("Error against wall time", _curves(outcomes, "seconds", "mse", label))
    yield _card("Error against members", _curves(outcomes, "members", "mse", label))
    tail = "relative error, 95 % of the members"
    yield _card("Tail against wall time", _curves(outcomes, "seconds", "tail", tail))
    yield _card("Batches", _bars(outcomes))
    yield _card(
        "All figures", f'<div class="scroll">{_html_table(outcomes, unit)}</div>', wide=True
    )
    if written:
        told = [f"seed {one['seed']}: {writing(one)}" for one in written]
        yield _card("Writing the data set, not counted above", _list(told), wide=True)


def _card(title: str, content: str, *, wide: bool = False) -> str:
    kind = "card wide" if wide else "card"
    return f'<article class="{kind}"><h2>{escape(title)}</h2>{content}</article>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _html_table(outcomes: Sequence[Outcome], unit: str) -> str:
    cell = 'style="padding: 4px 12px; text-align: right; white-space: nowrap"'
    lines = list(rows(outcomes, unit))
    titles = ["", *(title for title, _, _ in columns(unit))]
    text = "".join(
        f'<tr><th style="text-align: left; white-space: nowrap">{escape(title)}</th>'
        + "".join(f"<td {cell}>{escape(line[index])}</td>" for line in lines)
        + "</tr>"
        for index, title in enumerate(titles)
    )
    return f'<table style="border-collapse: collapse">{text}</table>'


def _curves(outcomes: Sequence[Outcome], against: str, what: str, label: str) -> str:
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


def _bars(outcomes: Sequence[Outcome]) -> str:
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
