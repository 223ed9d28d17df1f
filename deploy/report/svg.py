"""Turns a matplotlib figure into SVG that takes its ink from the page around it.

1. Text and axes have the page's colour, so that a plot reads on light and on dark paper.
2. The same figure gives the same bytes.
3. Nothing asks for a display, a script or a file from elsewhere.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#4285f4", "#f2842b", "#2ba672", "#9a63e8"
# Not meant to be seen: each is replaced by a colour that the page sets.
INK, _FAINT = "#010203", "#040506"
_PAGE_COLOURS = {INK: "currentColor", _FAINT: "var(--line)"}
_WIDEST = 115.0  # pixels of the page for an inch of the figure: a page is no poster

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """How figures look that are made inside; ``name`` keeps the ids of two figures apart."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": f"headrace-{name}"}):
        yield


def markup(figure: Figure, label: str) -> Markup:
    """One ``<svg>`` element that says what it shows and scales with its place, but to no giant."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for placeholder, colour in _PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    widest = round(_WIDEST * figure.get_figwidth())
    attributes = f'role="img" aria-label="{escape(label)}" style="max-width: {widest}px"'
    return Markup(svg.replace("<svg", f"<svg {attributes}", 1))
