"""The report's fields: truth, prediction and error of validation members, as images or curves.

1. Truth and prediction of all shown members share one scale, their errors another, around zero.
2. An image has at most ``MAX_PIXELS`` pixels an axis; a 3-D field shows its middle plane.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deploy import figures
from deploy.report.runfiles import Channels, Picture
from deploy.report.svg import BLUE, INK, ORANGE, markup, style

MAX_PIXELS = 256
FIELD_COLOURS, ERROR_COLOURS = "inferno", "RdBu_r"


def fields(shown: Sequence[Picture], channel: int, channels: Channels) -> Markup:
    """Truth, prediction and error of the shown members, for one channel."""
    name = channels.names[channel] if channels.names else f"channel {channel}"
    unit = channels.units[channel] if channels.units else ""
    with style(f"pictures-{channel}"):
        if shown[0].truth.ndim == 2:
            figure = _curves(shown, channel, channels, figures.labelled(name, unit))
        else:
            figure = _images(shown, channel, channels, name, unit)
        return markup(figure, f"truth, prediction and error of {name} for validation members")


def _images(
    shown: Sequence[Picture], channel: int, channels: Channels, name: str, unit: str
) -> Figure:
    truth = [_plane(one.truth[channel]) for one in shown]
    prediction = [_plane(one.prediction[channel]) for one in shown]
    low, high = _ends([*truth, *prediction])
    worst = max(map(abs, _ends([p - t for t, p in zip(truth, prediction, strict=True)])))
    field_scale, error_scale = Normalize(low, high), Normalize(-worst, worst)
    height, width = _extent(shown[0], channels)
    row_inches = 2.5 * float(np.clip(height / width, 0.3, 1.6)) + 0.3
    figure = Figure(figsize=(8.4, len(shown) * row_inches + 0.9), layout="compressed")
    grid = figure.subplots(len(shown), 3, squeeze=False, sharex=True, sharey=True)
    for row, one in enumerate(shown):
        error = prediction[row] - truth[row]
        for axes, title, field, scale, colours in zip(
            grid[row],
            (_caption(one), "prediction", "prediction - truth"),
            (truth[row], prediction[row], error),
            (field_scale, field_scale, error_scale),
            (FIELD_COLOURS, FIELD_COLOURS, ERROR_COLOURS),
            strict=True,
        ):
            _image(axes, field, scale, colours, (height, width))
            axes.set_title(title)
    for axes in grid[-1]:
        axes.set_xlabel("x / m" if channels.spacing else "x / grid points")
    for axes in grid[:, 0]:
        axes.set_ylabel("y / m" if channels.spacing else "y / grid points")
    for columns, scale, colours, label in (
        (grid[:, :2], field_scale, FIELD_COLOURS, figures.labelled(name, unit)),
        (grid[:, 2], error_scale, ERROR_COLOURS, figures.labelled("error", unit)),
    ):
        bar = figure.colorbar(
            ScalarMappable(scale, colours), ax=columns, location="bottom", aspect=34, label=label
        )
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5)
    return figure


def _ends(fields: Sequence[Float[np.ndarray, " y x"]]) -> tuple[float, float]:
    """Least and largest finite value: of a rollout that diverged others are not."""
    values = np.concatenate([field[np.isfinite(field)] for field in fields])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _extent(one: Picture, channels: Channels) -> tuple[float, float]:
    """Height and width of the last two axes: metres, or grid points where that is unknown."""
    points = one.truth.shape[-2:]
    spacing = channels.spacing[-2:] if channels.spacing else (1.0, 1.0)
    return points[0] * spacing[0], points[1] * spacing[1]


def _image(
    axes: Axes,
    field: Float[np.ndarray, " y x"],
    scale: Normalize,
    colours: str,
    extent: tuple[float, float],
) -> None:
    height, width = extent
    axes.imshow(
        field,
        norm=scale,
        cmap=colours,
        origin="lower",
        extent=(0.0, width, 0.0, height),
        interpolation="none",
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _plane(field: Float[np.ndarray, " *grid"]) -> Float[np.ndarray, " y x"]:
    """A 2-D field as it is, the middle plane of a 3-D one, thinned to ``MAX_PIXELS`` an axis."""
    plane: np.ndarray = field[field.shape[0] // 2] if field.ndim == 3 else field
    return plane[tuple(slice(None, None, -(-points // MAX_PIXELS)) for points in plane.shape)]


def _curves(shown: Sequence[Picture], channel: int, channels: Channels, titled: str) -> Figure:
    figure = Figure(figsize=(8.2, 2.3 * len(shown) + 0.3), layout="constrained")
    grid = figure.subplots(len(shown), 2, squeeze=False, sharex=True, sharey="col")
    spacing = channels.spacing[0] if channels.spacing else 1.0
    for row, one in enumerate(shown):
        truth, prediction = one.truth[channel], one.prediction[channel]
        x = (np.arange(truth.size) + 0.5) * spacing
        grid[row, 0].plot(x, truth, color=BLUE, lw=2.4, alpha=0.6, label="truth")
        grid[row, 0].plot(x, prediction, color=ORANGE, lw=1.2, label="prediction")
        grid[row, 0].set_title(_caption(one))
        grid[row, 0].set_ylabel(titled)
        grid[row, 1].plot(x, prediction - truth, color=ORANGE, lw=1.2)
        grid[row, 1].axhline(0.0, color=INK, lw=0.8)
        grid[row, 1].set_title("prediction - truth")
    grid[0, 0].legend(loc="best")
    for axes in grid[-1]:
        axes.set_xlabel("x / m" if channels.spacing else "grid point")
    return figure


def _caption(one: Picture) -> str:
    place = f"{one.place}: " if one.place else ""
    return f"{place}member {one.member} at {figures.number(one.time, 's')}"
