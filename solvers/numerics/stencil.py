"""Grids spread over mpi_ranks, and matrices that know the nearest neighbours of each point on them.

1. Axes are those of the grid: ``(x,)``, ``(y, x)`` or ``(z, y, x)``.
2. On several mpi_ranks each one has its own box of points; together they are the grid.
3. A neighbour beyond a wall has no column: its entry is left out. On a periodic grid there is one
   on every side.
4. Filling a matrix again keeps its structure.
"""

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from jaxtyping import Bool, Float64, Int

from solvers.petsc import Owned, PETSc, communicator

__all__ = ["Cells", "Slices", "coupled_matrix", "fill", "set_rows", "slices_of", "spread"]

Slices = tuple[slice, ...]
Index = Int[np.ndarray, "..."]
Entries = Float64[np.ndarray, "..."]


def spread(
    grid: tuple[int, ...], comm: object, owned: Owned, *, dof: int = 1, reach: int = 1,
    ends: Literal["none", "ghosted", "periodic"] = "none", corners: bool = False,
) -> PETSc.DMDA:  # fmt: skip
    """The points of a grid, spread over a communicator; collective.

    Args:
        grid: Number of points on each axis.
        comm: The communicator.
        owned: Who destroys the PETSc object.
        dof: Number of values at a point.
        reach: Number of neighbours on either side that an mpi_rank is told of.
        ends: What lies beyond the ends of an axis.
        corners: Whether an mpi_rank is told of diagonal neighbours, too.
    """
    kinds = PETSc.DMDA.StencilType
    return owned(
        PETSc.DMDA().create(
            sizes=grid[::-1],
            dof=dof,
            boundary_type=(ends,) * len(grid),
            stencil_width=reach,
            stencil_type=kinds.BOX if corners else kinds.STAR,  # type: ignore[arg-type]  # the stub's type
            comm=communicator(comm),
        )
    )


def slices_of(da: PETSc.DMDA) -> Slices:
    """Where this mpi_rank's points lie in the grid."""
    return tuple(slice(*ends) for ends in da.getRanges()[::-1])


def fill(da: PETSc.DMDA, matrix: PETSc.Mat, entries: Float64[np.ndarray, " star *grid"]) -> None:
    """Write this mpi_rank's rows of ``matrix``, which ``da`` has made; collective.

    Args:
        da: The grid, with one unknown a point.
        matrix: Assembled afterwards.
        entries: Coefficients of each point itself, then of its neighbours on the x axis: west,
            east, and the two beyond them if ``da`` reaches so far; then those on the other axes.
    """
    # PETSc numbers the points of the box with its neighbours; -1 means "outside" and is skipped.
    starts, stops = np.array(da.getGhostRanges()[::-1]).T
    shape = tuple(stops - starts)
    own = np.stack([axis.ravel() for axis in np.mgrid[slices_of(da)]]) - starts[:, None]
    columns = [np.ravel_multi_index(tuple(own), shape)]
    for axis in reversed(range(len(shape))):
        for distance in range(1, da.getStencilWidth() + 1):
            away = distance * int(np.prod(shape[axis + 1 :]))
            columns.append(np.where(own[axis] >= distance, columns[0] - away, -1))
            columns.append(np.where(own[axis] < shape[axis] - distance, columns[0] + away, -1))
    set_rows(matrix, columns[0], np.stack(columns, axis=1), entries.reshape(len(columns), -1).T)


def set_rows(
    matrix: PETSc.Mat, rows: Index, columns: Index, entries: Index | Float64[np.ndarray, "..."]
) -> None:
    """Write rows with as many entries each, in PETSc's local numbers, and assemble; collective."""
    columns = np.ascontiguousarray(columns, PETSc.IntType)
    starts = np.arange(0, columns.size + 1, columns.shape[1], dtype=PETSc.IntType)
    rows = np.ascontiguousarray(rows, PETSc.IntType)
    matrix.setValuesLocalIJV(starts, columns.ravel(), entries.ravel(), rowmap=rows)  # type: ignore[arg-type]  # the stub's type
    matrix.assemble()


def coupled_matrix(
    da: PETSc.DMDA, row: Index, column: Index, absent: Bool[np.ndarray, "..."], *, owned: Owned
) -> PETSc.Mat:
    """A matrix that knows other points than a star's, for ``setValuesCOO``; collective.

    Args:
        da: The grid, with one unknown a point and ghosts.
        row: Of the points that each point's equation knows, ``(offset, y, x)``; one that it names
            twice gets the sum. The point itself is in the middle of the offsets.
        column: Of the same points.
        absent: Which of them are left out.
        owned: Who destroys the PETSc object.
    """
    (west, east), (south, _) = da.getGhostRanges()
    local = (row - south) * (east - west) + (column - west)
    columns = da.getLGMap().apply(local.ravel().astype(PETSc.IntType))
    rows = np.tile(np.split(columns, len(row))[len(row) // 2], len(row))
    columns[absent.ravel()] = -1
    matrix = owned(PETSc.Mat().create(da.getComm()))
    size = (len(rows) // len(row), PETSc.DETERMINE)
    matrix.setSizes((size, size))
    matrix.setType(PETSc.Mat.Type.AIJ)
    matrix.setPreallocationCOO(rows, columns)  # type: ignore[arg-type]  # the stub's type
    return matrix


@final
class Cells:
    """The cells of a rod, plate or block between walls, spread over a communicator.

    A wall is the outer face of the first or last cell, half a cell from its centre.

    Args:
        grid: Number of cells on each axis, at least three.
        comm: The communicator that they are spread over; collective.
        owned: Who destroys the PETSc objects made here.
        order: Order of the differences, 2 or 4.

    Attributes:
        box: Where this mpi_rank's cells lie in the grid.
        shape: Number of its own cells on each axis.
    """

    def __init__(
        self, grid: tuple[int, ...], *, comm: object, owned: Owned, order: Literal[2, 4] = 2
    ) -> None:
        self._grid, self._owned, self._reach = grid, owned, order // 2
        self._da = spread(grid, comm, owned, reach=self._reach)
        self.box = slices_of(self._da)
        self.shape = tuple(axis.stop - axis.start for axis in self.box)

    def centres(self, spacing: Sequence[float]) -> list[Float64[np.ndarray, "..."]]:
        """Coordinates of the cell centres, x first; each varies along its own axis only."""
        return [(index + 0.5) * h for index, h in zip(np.ogrid[self.box], spacing, strict=True)][
            ::-1
        ]

    def at_walls(self) -> list[tuple[Bool[np.ndarray, "..."], Bool[np.ndarray, "..."]]]:
        """Which cells lie at the first and at the last wall of each axis; as ``centres``."""
        return [
            (index == 0, index == points - 1)
            for index, points in zip(np.ogrid[self.box], self._grid, strict=True)
        ][::-1]

    def matrix(self, weights: Sequence[float], *, wall: float) -> PETSc.Mat:
        """I + the sum of w K over the axes; symmetric and positive definite.

        K is the stencil of -(d/dx)^2 times h^2. Of second order it takes the neighbours on an axis
        from twice the cell itself; of fourth order it is that K + K^2 / 12.

        Args:
            weights: One w per axis of the grid.
            wall: What the image of a cell behind a wall is to the cell, with the sign turned: 1 to
                keep the value 0 on the wall, -1 to keep the slope 0.
        """
        own, *beside = (2.0, -1.0) if self._reach == 1 else (30 / 12, -16 / 12, 1 / 12)
        entries = np.ones((1 + 2 * self._reach * len(weights), *self.shape))
        stars = np.split(entries[1:], len(weights))  # x first
        for star, w, places, cells in zip(
            stars, weights[::-1], np.ogrid[self.box][::-1], self._grid[::-1], strict=True
        ):
            sides = (places, cells - 1 - places)  # cells between this one and either wall
            entries[0] += w * (own - wall * beside[0] * ((sides[0] == 0) | (sides[1] == 0)))
            for distance, coefficient in enumerate(beside):
                star[2 * distance : 2 * distance + 2] = w * coefficient
            if self._reach == 2:  # behind a wall, the second cell is the image of the second one
                for side, away in enumerate(sides):
                    star[1 - side] -= w * wall * beside[1] * (away == 0)
                    star[side] -= w * wall * beside[1] * (away == 1)
        matrix = self._owned(self._da.createMat())
        fill(self._da, matrix, entries)
        matrix.setOption(PETSc.Mat.Option.SPD, True)  # type: ignore[arg-type]  # the stub's type
        return matrix
