"""Water at rest over a bottom: what ``kind: shallow_water`` starts from.

1. It follows from the parameters and the place alone, not from the grid or the mpi_ranks, but for
   a dam: the cell that it stands in has the mean of both sides.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64

from solvers.base import SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig

__all__ = ["Start", "X", "Y", "at_rest"]

X = Float64[np.ndarray, " 1 x"]
Y = Float64[np.ndarray, " y 1"]
Plane = Float64[np.ndarray, " y x"]
# Given x and y of the cell centres [m]: depth [m], discharges [m^2/s] and bottom [m] at time 0.
Start = Callable[[X, Y], Float64[np.ndarray, "4 y x"]]


def at_rest(config: ShallowWaterConfig, values: Mapping[str, float]) -> Start:
    """What a member's parameters say.

    Raises:
        SolverFailed: A width is not > 0, or a beach starts beyond the wall.
    """
    length_x = config.length[1]
    for name in ("width", "bottom_width"):
        if values.get(name, 1.0) <= 0:
            raise SolverFailed(
                f"{name}={values[name]:g} m: need a width > 0, better at least 3 cells "
                f"({3 * max(config.spec().spacing):g} m)"
            )
    if values.get("bottom_start", 0.0) >= length_x:
        raise SolverFailed(
            f"bottom_start={values['bottom_start']:g} m: the beach must start before the east "
            f"wall at {length_x:g} m"
        )

    def start(x: X, y: Y) -> Float64[np.ndarray, "4 y x"]:
        state = np.zeros((4, y.size, x.size))
        state[3] = _bottom(config, values, x, y)
        np.maximum(_surface(config, values, x, y) - state[3], 0.0, out=state[0])
        return state

    return start


def _bottom(config: ShallowWaterConfig, values: Mapping[str, float], x: X, y: Y) -> Plane | X:
    if config.bottom == "flat":
        return np.zeros_like(x)
    if config.bottom == "slope":
        foot = values["bottom_start"]
        return values["bottom_height"] * np.maximum((x - foot) / (config.length[1] - foot), 0.0)
    return _round(config, values, x, y, prefix="bottom_")


def _surface(config: ShallowWaterConfig, values: Mapping[str, float], x: X, y: Y) -> Plane | X:
    if config.initial == "hump":
        return values["level"] + _round(config, values, x, y, prefix="")
    spacing = config.spec().spacing[1]
    east = np.clip((x - values["dam_position"]) / spacing + 0.5, 0.0, 1.0)
    return values["level_left"] + (values["level_right"] - values["level_left"]) * east


def _round(
    config: ShallowWaterConfig, values: Mapping[str, float], x: X, y: Y, *, prefix: str
) -> Plane:
    """A Gaussian, of the parameters whose names begin like that."""
    across, up = x - values[f"{prefix}x"], y - values[f"{prefix}y"]
    if config.boundary == "periodic":  # the shortest way
        for apart, period in ((up, config.length[0]), (across, config.length[1])):
            apart -= period * np.round(apart / period)
    square = 2 * values[f"{prefix}width"] ** 2
    return values[f"{prefix}height"] * np.exp(-(across**2) / square) * np.exp(-(up**2) / square)
