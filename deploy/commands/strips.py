"""Pictures of one member: a strip of snapshots as PNG, and a film as GIF.

1. A channel has one colour scale for all times; one around zero when its values have both signs.
2. A picture has at most ``FRAMES`` times, a film ``FILM_FRAMES``, a diagram of space and time
   ``ROWS``, however long the member is: only these snapshots are kept.
3. A 3-D field shows its middle plane; an image at most ``MAX_PIXELS`` an axis.
4. A channel that is given and does not change is shown once.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Float32
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deploy import figures
from solvers.base import FieldSpec, Snapshot

FRAMES, FILM_FRAMES, ROWS, MAX_PIXELS = 6, 60, 400, 512
FRAMES_PER_SECOND = 15
FIELD_COLOURS, SIGNED_COLOURS, TIME_COLOURS = "inferno", "RdBu_r", "viridis"
# A field whose smaller sign is less than this share of the other counts as having one sign.
_SIGNED_SHARE = 0.05
_INK, _FAINT = "#24292f", "#b6bcc4"
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}

Plane = Float[np.ndarray, " y x"]


@final
class Member:
    """The snapshots of a member that its pictures need.

    Args:
        spec: What the solver yields.
        most: Most snapshots of the member.
        title: What stands above every picture.
    """

    def __init__(self, spec: FieldSpec, most: int, title: str) -> None:
        self.spec, self.title = spec, title
        wide = ROWS if len(spec.shape) == 1 else FILM_FRAMES
        self._wanted = set(_evenly(most, wide)) | set(_evenly(most, FRAMES))
        self._kept: list[Snapshot] = []
        self._last: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot if a picture shows it."""
        fields = _planes(snapshot.fields)
        thinned = snapshot._replace(fields=fields)
        if snapshot.step in self._wanted:
            self._kept.append(thinned)
            self._last = None
        else:
            self._last = thinned  # a member may end early: its last state is always shown

    @property
    def snapshots(self) -> list[Snapshot]:
        """All that is kept, in order of time."""
        return self._kept if self._last is None else [*self._kept, self._last]

    def some(self, count: int) -> list[Snapshot]:
        """At most ``count``, evenly spaced, the first and the last included."""
        kept = self.snapshots
        return [kept[place] for place in _evenly(len(kept), count)]


def _evenly(size: int, count: int) -> list[int]:
    return [int(place) for place in np.unique(np.linspace(0, size - 1, min(size, count)).round())]


def _planes(fields: Float32[np.ndarray, " channel *grid"]) -> Float32[np.ndarray, " channel *less"]:
    """Every channel's middle plane if it is 3-D, and no more points than a picture shows."""
    plane: np.ndarray = fields[:, fields.shape[1] // 2] if fields.ndim == 4 else fields
    steps = [slice(None, None, -(-points // MAX_PIXELS)) for points in plane.shape[1:]]
    return plane[(slice(None), *steps)].copy()


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def write_strip(member: Member, path: Path) -> None:
    """Draw a member's snapshots into a PNG file."""
    with _style():
        if math.prod(member.spec.shape) == 1:
            figure = _courses(member)
        elif len(member.spec.shape) == 1:
            figure = _lines(member)
        else:
            figure = _images(member)
        figure.savefig(path, dpi=150, format="png", bbox_inches="tight", pad_inches=0.12)


def write_film(member: Member, path: Path) -> None:
    """Draw a member's snapshots into a GIF film."""
    with _style():
        figure, update = _film_of(member)
        shown = member.some(FILM_FRAMES)
        figure.savefig(path, format="png")  # lays the figure out, once for all frames
        figure.set_layout_engine("none")
        film = FuncAnimation(figure, lambda place: update(shown[place]), len(shown), blit=False)
        film.save(path, writer=PillowWriter(fps=FRAMES_PER_SECOND), dpi=100)


def _label(spec: FieldSpec, channel: int) -> str:
    return figures.labelled(spec.names[channel], spec.units[channel])


def _when(snapshot: Snapshot) -> str:
    return f"t = {snapshot.time:.4g} s"


def _scale(snapshots: Sequence[Snapshot], channel: int) -> tuple[Normalize, str]:
    """One scale for a channel at all times, and its colours."""
    low = min(float(one.fields[channel].min()) for one in snapshots)
    high = max(float(one.fields[channel].max()) for one in snapshots)
    if low < 0.0 < high and min(-low, high) > _SIGNED_SHARE * max(-low, high):
        most = max(-low, high)
        return Normalize(-most, most), SIGNED_COLOURS
    return Normalize(low, high if high > low else low + 1.0), FIELD_COLOURS


def _title(figure: Figure, member: Member, *, columns: int) -> None:
    head, _, rest = member.title.partition("\n")
    lines = [head, *textwrap.wrap(rest, columns, break_on_hyphens=False)]
    figure.suptitle("\n".join(lines), fontsize=10, x=0.01, ha="left")


def _extent(spec: FieldSpec) -> tuple[float, float]:
    """Height and width of the last two axes [m]."""
    ny, nx = spec.shape[-2:]
    return ny * spec.spacing[-2], nx * spec.spacing[-1]


def _draw(axes: Axes, plane: Plane, scale: Normalize, colours: str, spec: FieldSpec) -> AxesImage:
    height, width = _extent(spec)
    image = axes.imshow(
        plane, norm=scale, cmap=colours, origin="lower", extent=(0.0, width, 0.0, height),
        interpolation="none",
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    return image


def _images(member: Member) -> Figure:
    """A row for each channel, a column for each time."""
    spec, shown = member.spec, member.some(FRAMES)
    rows, columns = len(spec.names), len(shown)
    height, width = _extent(spec)
    share = float(np.clip(height / width, 0.3, 2.0))
    inches = 1.75 if columns > 3 else 2.4
    size = (columns * inches + 1.2, rows * (inches * share + 0.35) + 0.9)
    figure = Figure(figsize=size, layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for channel in range(rows):
        scale, colours = _scale(shown, channel)
        given = spec.names[channel] in spec.inputs
        for place, (axes, one) in enumerate(zip(grid[channel], shown, strict=True)):
            if given and place > 0:
                axes.set_visible(False)
                continue
            _draw(axes, one.fields[channel], scale, colours, spec)
            if channel == 0 or given:
                axes.set_title("given, the same at all times" if given else _when(one), loc="left")
        bar = figure.colorbar(
            ScalarMappable(scale, colours), ax=list(grid[channel]), label=_label(spec, channel),
            pad=0.01, aspect=18,
        )  # fmt: skip
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
        plane = " (middle plane)" if len(spec.shape) == 3 else ""
        grid[channel][0].set_ylabel(f"y / m{plane}")
    for axes in grid[-1]:
        axes.set_xlabel("x / m")
    _title(figure, member, columns=int(size[0] * 13))
    return figure


def _along(spec: FieldSpec, points: int) -> Float[np.ndarray, " x"]:
    """Where the points of a 1-D field lie [m], from the first one on."""
    return np.linspace(0.0, (spec.shape[0] - 1) * spec.spacing[0], points)


def _lines(member: Member) -> Figure:
    """A row for each channel: the field at some times, and its space-time diagram."""
    spec, shown, kept = member.spec, member.some(FRAMES), member.snapshots
    rows = len(spec.names)
    figure = Figure(figsize=(10.0, 2.9 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
    times = np.array([one.time for one in kept])
    clock = Normalize(times[0], times[-1] if times.size > 1 else times[0] + 1.0)
    tones = mpl.colormaps[TIME_COLOURS]
    for channel, (left, right) in enumerate(grid):
        for one in shown:
            x = _along(spec, one.fields.shape[1])
            tone = tones(0.9 * clock(one.time))
            left.plot(x, one.fields[channel], color=tone, label=_when(one))
        left.set_ylabel(_label(spec, channel))
        scale, colours = _scale(kept, channel)
        rows_of = np.stack([one.fields[channel] for one in kept])
        x = _along(spec, rows_of.shape[1])
        mesh = right.pcolormesh(
            x, times, rows_of, norm=scale, cmap=colours, shading="nearest", rasterized=True
        )
        right.set_ylabel("t / s")
        bar = figure.colorbar(mesh, ax=right, label=_label(spec, channel))
        bar.outline.set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=FRAMES, fontsize=8.5)
    for axes in grid[-1]:
        axes.set_xlabel("x / m")
    _title(figure, member, columns=120)
    return figure


def _courses(member: Member) -> Figure:
    """A single point: every channel over time."""
    spec, kept = member.spec, member.snapshots
    figure = Figure(figsize=(9.0, 1.7 * len(spec.names) + 1.0), layout="constrained")
    grid = figure.subplots(len(spec.names), 1, squeeze=False, sharex=True)[:, 0]
    times = np.array([one.time for one in kept])
    for channel, axes in enumerate(grid):
        axes.plot(times, [float(one.fields[channel].flat[0]) for one in kept], color="#4285f4")
        axes.set_ylabel(_label(spec, channel))
    grid[-1].set_xlabel("t / s")
    _title(figure, member, columns=115)
    return figure


def _film_of(member: Member) -> tuple[Figure, Any]:
    """A figure of the first snapshot, and what turns it into one of another."""
    spec, kept = member.spec, member.snapshots
    channels = len(spec.names)
    first, flat = kept[0], len(spec.shape) == 1
    figure = Figure(figsize=(max(4.4, 3.6 * channels), 3.9), layout="constrained")
    grid = figure.subplots(1, channels, squeeze=False)[0]
    artists: list[AxesImage | Line2D] = []
    for channel, axes in enumerate(grid):
        scale, colours = _scale(kept, channel)
        if flat:
            x = _along(spec, first.fields.shape[1])
            (line,) = axes.plot(x, first.fields[channel], color="#4285f4")
            low, high = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            axes.set_ylabel(_label(spec, channel))
            artists.append(line)
        else:
            image = _draw(axes, first.fields[channel], scale, colours, spec)
            bar = figure.colorbar(image, ax=axes, location="bottom", label=_label(spec, channel))
            bar.outline.set_visible(False)
            artists.append(image)
        axes.set_xlabel("x / m")
    title = figure.suptitle(_when(first), fontsize=10)

    def update(one: Snapshot) -> list[AxesImage | Line2D]:
        for channel, artist in enumerate(artists):
            if isinstance(artist, Line2D):
                artist.set_ydata(one.fields[channel])
            else:
                artist.set_data(one.fields[channel])
        title.set_text(_when(one))
        return artists

    return figure, update
