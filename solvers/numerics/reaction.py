"""Rates of two chemicals that lie side by side in memory: the formulas of ``kind: gray_scott``.

PETSc keeps u and v of a point next to each other. So a row of points is a row of twice as many
numbers, on which the nine-point star works for both at once: a neighbour in x is two numbers away.
Equation, order and source: ``solvers.pdes.gray_scott``.

1. ``entries`` are the derivatives of ``rates``, at the columns that ``columns`` names.
2. Nothing here allocates a grid in a right-hand side, or knows of PETSc.
"""

from typing import final

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["REACH", "Reaction", "Rows"]

# Neighbours on either side that the differences of fourth order need.
REACH = 2

Rows = Float64[np.ndarray, " y two_x"]


@final
class Reaction:
    """Diffusion and reaction on a box of the grid.

    Args:
        points: ``(y, x)`` of the box.
        diffusion: Diffusivities of u and of v.
        spacing: ``(hy, hx)``.

    Attributes:
        shape: Rows, and numbers in a row.
    """

    def __init__(
        self,
        points: tuple[int, int],
        *,
        diffusion: tuple[float, float],
        spacing: tuple[float, float],
    ) -> None:
        (ny, nx), (hy, hx) = points, spacing
        self.shape = (ny, 2 * nx)
        both = np.tile(diffusion, nx)
        self._rx, self._ry = both / (12 * hx**2), both / (12 * hy**2)
        self._sum, self._product = np.empty(self.shape), np.empty(points)
        self.choose(feed=0.0, kill=0.0)

    def choose(self, *, feed: float, kill: float) -> None:
        """What a member's parameters say: F, and the factors of u and v in their own equations."""
        self._feed = feed
        losses = np.tile([feed, feed + kill], self.shape[1] // 2)
        self._own = -30 * (self._rx + self._ry) - losses

    def rates(self, near: Float64[np.ndarray, " rows columns"], out: Rows) -> None:
        """Write u_t and v_t, given the box with ``REACH`` neighbours on every side."""
        here, row, column = near[2:-2, 4:-4], near[2:-2], near[:, 4:-4]
        np.add(row[:, 2:-6], row[:, 6:-2], out=out)
        out *= 16
        out -= row[:, :-8]
        out -= row[:, 8:]
        out *= self._rx
        np.add(column[1:-3], column[3:-1], out=self._sum)
        self._sum *= 16
        self._sum -= column[:-4]
        self._sum -= column[4:]
        self._sum *= self._ry
        out += self._sum
        np.multiply(here, self._own, out=self._sum)
        out += self._sum
        u, v, reaction = here[:, ::2], here[:, 1::2], self._product
        np.multiply(v, v, out=reaction)
        reaction *= u
        out[:, 1::2] += reaction
        reaction -= self._feed
        out[:, ::2] -= reaction

    def columns(self) -> Int64[np.ndarray, " row entry"]:
        """Columns of the entries: the point, its eight neighbours, the other chemical."""
        ny, width = self.shape
        line = width + 8
        row = np.add.outer(np.arange(2, ny + 2) * line, np.arange(4, width + 4)).ravel()
        steps = [step * side for step in (2, 4, line, 2 * line) for side in (-1, 1)]
        other = row + 1 - 2 * (row % 2)
        return np.stack([row, *(row + step for step in steps), other], axis=1)

    def entries(self, here: Rows) -> Float64[np.ndarray, " y two_x entry"]:
        """Derivatives of ``rates`` where the state is ``here``."""
        u, v = here[:, ::2], here[:, 1::2]
        entries = np.zeros((*self.shape, 10))
        entries[..., 0] = self._own
        for start, ratio in ((1, self._rx), (5, self._ry)):
            entries[..., start : start + 2] = 16 * ratio[:, None]
            entries[..., start + 2 : start + 4] = -ratio[:, None]
        entries[:, ::2, 0] -= v * v
        entries[:, 1::2, 0] += 2 * u * v
        entries[:, ::2, 9] = -2 * u * v
        entries[:, 1::2, 9] = v * v
        return entries
