"""Round spots of one chemical in another, at seeded places: where patterns start from.

1. Places follow from the seed alone: neither from the grid nor from the number of mpi_ranks.
2. The field is smooth and periodic, so a finer grid shows the same spots.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

__all__ = ["State", "spots"]

# Given x and y of the grid points: u and v.
State = Callable[
    [Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]], Float64[np.ndarray, " 2 y x"]
]


def spots(number: int, *, width: float, length: tuple[float, float], seed: int) -> State:
    """Spots in which u = 1/2 and v = 1/4, in a dish in which u = 1 and v = 0.

    Args:
        number: Number of spots; where they overlap, they do not add up.
        width: Standard deviation of each spot.
        length: Periods ``(y, x)``.
        seed: Seed of the places.
    """
    places = np.random.default_rng(seed).random((number, 2)) * length

    def state(
        x: Float64[np.ndarray, " 1 x"], y: Float64[np.ndarray, " y 1"]
    ) -> Float64[np.ndarray, " 2 y x"]:
        outside = np.ones((y.size, x.size))
        for place_y, place_x in places:
            up = _periodic_bump(y - place_y, width=width, period=length[0])
            across = _periodic_bump(x - place_x, width=width, period=length[1])
            outside *= 1 - up * across
        return np.stack([(1 + outside) / 2, (1 - outside) / 4])

    return state


def _periodic_bump(
    distance: Float64[np.ndarray, "*any"], *, width: float, period: float
) -> Float64[np.ndarray, "*any"]:
    """1 at 0, and close to it a Gaussian: cos(a) - 1 is -a^2 / 2 there."""
    angle = 2 * np.pi / period
    exponent = (np.cos(angle * distance) - 1) / (angle * width) ** 2
    return np.asarray(np.exp(exponent))
