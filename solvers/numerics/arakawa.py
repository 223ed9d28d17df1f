"""Arakawa's form of the advection term of 2-D flow, which creates neither energy nor enstrophy.

    J(a, b) = a_x b_y - a_y b_x

is the mean of three second-order differences of it (advective, and two in flux form).

1. On a periodic grid the sums over all points of J(a, b), a J(a, b) and b J(a, b) are 0 up to
   rounding, whatever a and b are.
2. J(a, b) = -J(b, a).

Source: Arakawa, J. Comput. Phys. 1 (1966) 119.
"""

import numpy as np
from jaxtyping import Float64

__all__ = ["jacobian"]

# With one ring of ghost points around the inner ones.
Ghosted = Float64[np.ndarray, " _rows _columns"]


def jacobian(a: Ghosted, b: Ghosted, *, area: float) -> Float64[np.ndarray, " y x"]:
    """J(a, b) at the inner points; ``area`` is that of a cell of the grid [m^2]."""
    east, west, north, south = a[1:-1, 2:], a[1:-1, :-2], a[2:, 1:-1], a[:-2, 1:-1]
    # How a grows southwards, and eastwards, over two cells.
    below, beside = a[:-2] - a[2:], a[:, 2:] - a[:, :-2]
    total = b[1:-1, 2:] * (below[:, 1:-1] + below[:, 2:])
    total -= b[1:-1, :-2] * (below[:, 1:-1] + below[:, :-2])
    total += b[2:, 1:-1] * (beside[1:-1] + beside[2:])
    total -= b[:-2, 1:-1] * (beside[1:-1] + beside[:-2])
    total += b[2:, 2:] * (east - north)
    total += b[:-2, 2:] * (south - east)
    total += b[2:, :-2] * (north - west)
    total += b[:-2, :-2] * (west - south)
    return np.asarray(total / (12 * area))
