"""The report's errors: how they are spread over the members, where they are large, what they buy.

1. Every member is in the picture, those that have diverged as a gap; nothing is smoothed.
2. A number of members too small for a statement is shown as that: with its count.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deploy import figures
from deploy.report.svg import BLUE, GREEN, INK, ORANGE, markup, style
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.regions import ErrorsOf

MAX_PARAMETERS = 6
ERROR_COLOURS = "YlOrRd"
CURVE_COLOURS = (ORANGE, BLUE)


def spread(errors: Mapping[str, Sequence[float]]) -> Markup:
    """Error of each member in ascending order, one curve for each kind of error."""
    with style("spread"):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, values), colour in zip(errors.items(), CURVE_COLOURS, strict=False):
            heights = 100.0 * np.sort(np.asarray(values))
            heights[~np.isfinite(heights)] = np.nan
            axes.stairs(heights, np.linspace(0.0, 100.0, heights.size + 1), color=colour,
                        fill=True, alpha=0.3)  # fmt: skip
            axes.stairs(heights, np.linspace(0.0, 100.0, heights.size + 1), color=colour,
                        lw=1.6, label=name)  # fmt: skip
        for share, name in ((50.0, "median"), (95.0, "95 %")):
            axes.axvline(share, color=INK, lw=0.8, ls=(0, (1, 2)), alpha=0.7)
            axes.annotate(name, (share, 1.0), xycoords=("data", "axes fraction"), xytext=(-3, -1),
                          textcoords="offset points", va="top", ha="right", fontsize=8,
                          alpha=0.75)  # fmt: skip
        axes.set_xlim(0.0, 100.0)
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel("error / % of std")
        axes.set_xlabel(f"share of the {len(next(iter(errors.values())))} validation members / %")
        figure.legend(loc="outside lower center", ncols=2)
        return markup(figure, "error of the validation members, sorted")


def regions(found: Sequence[ErrorsOf], *, columns: int) -> Markup:
    """Mean and largest error in each range of each parameter, the strongest effect first."""
    shown = found[:MAX_PARAMETERS]
    columns = max(2, min(columns, len(shown)))
    rows = -(-len(shown) // columns)
    with style("regions"):
        figure = Figure(figsize=(2.6 * columns + 0.4, 1.75 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).reshape(-1)
        for axes, one in zip(grid, shown, strict=False):
            _ranges(axes, one)
        for axes in grid[len(shown) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("error / %")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return markup(figure, "error of the validation members by parameter")


def _ranges(axes: Axes, one: ErrorsOf) -> None:
    places = np.arange(len(one.ranges))
    mean = np.array([np.nan if each.mean is None else each.mean for each in one.ranges])
    most = np.array([np.nan if each.max is None else each.max for each in one.ranges])
    axes.bar(places, 100.0 * mean, width=0.86, color=ORANGE, alpha=0.55, label="mean")
    axes.plot(places, 100.0 * most, ls="", marker="_", ms=13, mew=2, color=INK, label="largest")
    for place, each in zip(places, one.ranges, strict=True):
        lost = f"{each.diverged} diverged\nof " if each.diverged else ""
        axes.annotate(f"{lost}{each.members}", (float(place), 0.0), xytext=(0, 2), ha="center",
                      textcoords="offset points", fontsize=7.5, alpha=0.75)  # fmt: skip
    edges = [one.ranges[0].low, *(each.high for each in one.ranges)]
    axes.set_xticks(np.arange(len(edges)) - 0.5, [_short(edge) for edge in edges])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(bottom=0.0)
    effect = "" if one.effect is None else f": effect {figures.percent(round(one.effect, 2))}"
    axes.set_title(f"{figures.labelled(one.name, one.unit)}{effect}")


def plane(
    first: ErrorsOf,
    second: ErrorsOf,
    parameters: Sequence[Mapping[str, float]],
    errors: Sequence[float],
) -> Markup:
    """Mean error in each cell of the plane of two parameters, and every member in it."""
    x, y = (np.array([one[each.name] for one in parameters]) for each in (first, second))
    values = 100.0 * np.asarray(errors)
    x_edges, y_edges = _edges(first), _edges(second)
    with style("plane"):
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        axes = figure.subplots()
        scale = _scale(values)
        counts, _, _ = np.histogram2d(x, y, bins=(x_edges, y_edges))
        sums, _, _ = np.histogram2d(x, y, bins=(x_edges, y_edges), weights=values)
        mean = np.ma.masked_where(counts == 0, sums / np.maximum(counts, 1))
        axes.pcolormesh(x_edges, y_edges, mean.T, norm=scale, cmap=ERROR_COLOURS, alpha=0.55)
        axes.scatter(x, y, c=values, norm=scale, cmap=ERROR_COLOURS, s=34, edgecolors=INK,
                     linewidths=0.8, clip_on=False, zorder=3)  # fmt: skip
        axes.grid(visible=False)
        for edges, axis in ((x_edges, "x"), (y_edges, "y")):
            if not np.allclose(np.diff(edges), edges[1] - edges[0]):
                axes.set(**{f"{axis}scale": "log"})
            axes.set(**{f"{axis}lim": (edges[0], edges[-1])})
        axes.set_xlabel(figures.labelled(first.name, first.unit))
        axes.set_ylabel(figures.labelled(second.name, second.unit))
        bar = figure.colorbar(ScalarMappable(scale, ERROR_COLOURS), ax=axes, aspect=28,
                              label="error / % of std")  # fmt: skip
        bar.outline.set_visible(False)
        if isinstance(scale, LogNorm):
            bar.ax.minorticks_off()
        else:
            bar.locator = MaxNLocator(5)
        return markup(figure, f"error over the plane of {first.name} and {second.name}")


def payback(paid: Breakeven) -> Markup:
    """Time that so many queries take: with the solver alone, and with the study before them."""
    cost, ends = paid.cost_seconds, [paid.queries, paid.batched_queries]
    crossing = max([count for count in ends if count is not None], default=0)
    alone = cost / paid.member_seconds if paid.member_seconds > 0.0 else 1.0
    queries = np.geomspace(1.0, 30.0 * max(10.0, crossing, alone), 200)
    with style("payback"):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(queries, queries * paid.member_seconds, color=BLUE, label="solver")
        for name, seconds, line, count in (
            ("study, then surrogate", paid.query_seconds, "-", paid.queries),
            ("many at once", paid.batched_query_seconds, "--", paid.batched_queries),
        ):
            axes.plot(queries, cost + queries * seconds, color=ORANGE, ls=line, label=name)
            if count is not None:
                axes.plot(count, count * paid.member_seconds, "o", color=GREEN, ms=5, zorder=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1.0, float(queries[-1]))
        axes.set_xlabel("members asked for")
        axes.set_ylabel("time / s")
        figure.legend(loc="outside lower center", ncols=3, handlelength=1.8, columnspacing=1.4)
        return markup(figure, "time against the number of members asked for")


def _scale(values: np.ndarray) -> Normalize:
    """Logarithmic where errors differ by more than a factor of ten."""
    low, high = float(values.min()), float(values.max())
    return LogNorm(low, high) if low > 0.0 and high > 10.0 * low else Normalize(0.0, high)


def _edges(one: ErrorsOf) -> np.ndarray:
    return np.array([one.ranges[0].low, *(each.high for each in one.ranges)])


def _short(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
