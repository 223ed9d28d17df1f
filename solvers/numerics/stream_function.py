"""Finite differences of a stream function between four walls: the formulas of ``kind: cavity``.

    psi -> u = psi_y, v = -psi_x, w = -psi_xx - psi_yy
    rate w + (u w)_x + (v w)_y - viscosity (w_xx + w_yy) = right side

Central differences; psi = 0 on a wall, and beyond it the mirror image, plus 2 hy u on the lid
(north), which is Thom's formula for w on the wall. Order, source and behaviour:
``solvers.pdes.cavity``.

1. ``entries`` are the derivatives of ``residual``, at the columns that ``couplings`` names.
2. Nothing here knows of PETSc: arrays in, arrays out.
"""

from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

__all__ = ["GHOSTS", "Flow", "StreamFunction", "couplings"]

# Points around a box that its differences reach.
GHOSTS = 2
# (y, x) of the points that an equation knows: a point's neighbours and their neighbours.
_OFFSETS = np.array(
    [(j, i) for j in range(-2, 3) for i in range(-2, 3) if abs(j) + abs(i) <= 2], dtype=np.int64
)

Indices = Int64[np.ndarray, " offset y x"]
Plane = Float64[np.ndarray, " y x"]


class Flow(NamedTuple):
    """Velocity and vorticity where fluxes need them.

    The outermost values may belong to a wall or to another mpi_rank.
    """

    u: Float64[np.ndarray, " y columns"]  # at the points, and west and east of them
    v: Float64[np.ndarray, " rows x"]  # at the points, and south and north of them
    w: Float64[np.ndarray, " rows columns"]  # on all four sides


@final
class StreamFunction:
    """psi on a box of the grid, with ``GHOSTS`` points around it.

    Args:
        shape: Points of the box.
        spacing: ``(hy, hx)``.
        at_walls: Whether the box touches the wall in the south, north, west and east.

    Attributes:
        psi: To be filled with the values of the box and of its neighbours.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        spacing: tuple[float, float],
        at_walls: tuple[bool, bool, bool, bool],
    ) -> None:
        self.psi: Plane = np.zeros(tuple(points + 2 * GHOSTS for points in shape))
        self._hy, self._hx = spacing
        self._at_walls = at_walls

    def flow(self, lid: Float64[np.ndarray, " x"]) -> Flow:
        """What follows from ``psi``, of which what is on and beyond walls is set.

        Args:
            lid: Speed along the lid.
        """
        psi = self.psi
        south, north, west, east = self._at_walls
        if south:
            psi[1], psi[0, 2:-2] = 0.0, psi[2, 2:-2]
        if north:
            psi[-2], psi[-1, 2:-2] = 0.0, psi[-3, 2:-2] + 2 * self._hy * lid
        if west:
            psi[:, 1], psi[2:-2, 0] = 0.0, psi[2:-2, 2]
        if east:
            psi[:, -2], psi[2:-2, -1] = 0.0, psi[2:-2, -3]
        u = (psi[3:-1, 1:-1] - psi[1:-3, 1:-1]) / (2 * self._hy)
        v = (psi[1:-1, 1:-3] - psi[1:-1, 3:-1]) / (2 * self._hx)
        kx, ky = 1 / self._hx**2, 1 / self._hy**2
        vorticity = (2 * kx + 2 * ky) * psi[1:-1, 1:-1]
        vorticity -= kx * (psi[1:-1, :-2] + psi[1:-1, 2:])
        vorticity -= ky * (psi[:-2, 1:-1] + psi[2:, 1:-1])
        return Flow(u, v, vorticity)

    def residual(self, flow: Flow, right: Plane | float, *, rate: float, viscosity: float) -> Plane:
        """Left side minus ``right`` of the vorticity equation."""
        u, v, w = flow
        rx, ry = viscosity / self._hx**2, viscosity / self._hy**2
        value: Plane = (rate + 2 * rx + 2 * ry) * w[1:-1, 1:-1] - right
        value -= rx * (w[1:-1, 2:] + w[1:-1, :-2])
        value -= ry * (w[2:, 1:-1] + w[:-2, 1:-1])
        along, up = u * w[1:-1], v * w[:, 1:-1]
        value += (along[:, 2:] - along[:, :-2]) / (2 * self._hx)
        value += (up[2:] - up[:-2]) / (2 * self._hy)
        return value

    def entries(
        self, flow: Flow, *, rate: float, viscosity: float
    ) -> Float64[np.ndarray, " offset y x"]:
        """Derivatives of the residual by psi at the points of ``couplings``."""
        hx, hy = self._hx, self._hy
        u, v, w = flow
        rx, ry = viscosity / hx**2, viscosity / hy**2
        # What the equation has of w at a point and its four neighbours, ...
        centre = rate + 2 * rx + 2 * ry
        east, west = u[:, 2:] / (2 * hx) - rx, -u[:, :-2] / (2 * hx) - rx
        north, south = v[2:] / (2 * hy) - ry, -v[:-2] / (2 * hy) - ry
        # ... what w has of psi there, ...
        own, beside, above = 2 / hx**2 + 2 / hy**2, -1 / hx**2, -1 / hy**2
        # ... and what the velocities that carry it have of psi.
        w = w / (4 * hx * hy)
        w_east, w_west, w_north, w_south = w[1:-1, 2:], w[1:-1, :-2], w[2:, 1:-1], w[:-2, 1:-1]
        entries = {
            (0, 0): centre * own + beside * (east + west) + above * (north + south),
            (0, 1): centre * beside + east * own,
            (0, -1): centre * beside + west * own,
            (1, 0): centre * above + north * own,
            (-1, 0): centre * above + south * own,
            (0, 2): east * beside,
            (0, -2): west * beside,
            (2, 0): north * above,
            (-2, 0): south * above,
            (1, 1): east * above + north * beside + w_east - w_north,
            (1, -1): west * above + north * beside - w_west + w_north,
            (-1, 1): east * above + south * beside - w_east + w_south,
            (-1, -1): west * above + south * beside + w_west - w_south,
        }
        return np.stack([entries[j, i] for j, i in _OFFSETS.tolist()])


def couplings(
    box: tuple[slice, ...], grid: tuple[int, int]
) -> tuple[Indices, Indices, Bool[np.ndarray, " offset y x"]]:
    """Row and column in ``grid`` of what each point's equation knows, and whether it is on a wall.

    Beyond a wall it is the point that is mirrored there.
    """
    j, i = np.mgrid[box]
    dj, di = (offset[:, None, None] for offset in _OFFSETS.T)
    row, column = j + dj, i + di
    on_wall = (row == -1) | (row == grid[0]) | (column == -1) | (column == grid[1])
    return _mirrored(row, grid[0]), _mirrored(column, grid[1]), on_wall


def _mirrored(index: Indices, points: int) -> Indices:
    """Indices beyond a wall, mirrored at it."""
    last = points - 1
    return np.where(index < 0, -2 - index, np.where(index > last, 2 * last + 2 - index, index))
