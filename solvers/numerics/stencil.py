"""The cells of a rod, plate or block between walls, and the matrix of an implicit step over them.

The matrix is I + sum over axes of w K: K is the second-order finite-volume stencil of -(d/dx)^2
times h^2, which takes the neighbours on an axis from twice the cell itself. All axes together make
a star of 3, 5 or 7 points.

1. Axes are those of the grid: ``(x,)``, ``(y, x)`` or ``(z, y, x)``.
2. A wall is the outer face of the first or last cell, half a cell from its centre.
3. On several mpi_ranks each one has its own box of cells; together they are the grid.
"""

from collections.abc import Sequence
from math import prod
from typing import final

import numpy as np
from jaxtyping import Bool, Float64, Int

from solvers.petsc import Owned, PETSc, communicator

__all__ = ["Box", "Cells"]

Box = tuple[slice, ...]


@final
class Cells:
    """The cells of a grid, spread over a communicator.

    Args:
        grid: How many there are on each axis, at least three.
        comm: The communicator that they are spread over; collective.
        owned: Who destroys the PETSc objects made here.

    Attributes:
        box: Where this mpi_rank's cells lie in the grid.
        shape: How many of its own it has on each axis.
    """

    def __init__(self, grid: tuple[int, ...], *, comm: object, owned: Owned) -> None:
        self._grid = grid
        self._owned = owned
        self._da = owned(
            PETSc.DMDA().create(
                sizes=grid[::-1],
                dof=1,
                stencil_width=1,
                stencil_type=PETSc.DMDA.StencilType.STAR,  # type: ignore[arg-type]  # the stub's type
                comm=communicator(comm),
            )
        )
        self.box: Box = tuple(slice(*ends) for ends in self._da.getRanges()[::-1])
        self.shape = tuple(axis.stop - axis.start for axis in self.box)

    def is_on(self, comm: object) -> bool:
        """Whether ``comm`` is the communicator that they are spread over."""
        return bool(self._da.getComm() == communicator(comm))

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

        Args:
            weights: One w per axis of the grid.
            wall: What the image of a cell behind a wall is to the cell, with the sign turned: 1 to
                keep the value 0 on the wall, -1 to keep the slope 0.
        """
        matrix = self._owned(self._da.createMat())
        columns, entries = self._rows(weights, wall=wall)
        starts = np.arange(0, columns.size + 1, len(columns.T), dtype=PETSc.IntType)
        rows = columns[:, 0].copy()
        matrix.setValuesLocalIJV(starts, columns.ravel(), entries.ravel(), rowmap=rows)  # type: ignore[arg-type]
        matrix.assemble()
        matrix.setOption(PETSc.Mat.Option.SPD, True)  # type: ignore[arg-type]  # the stub's type
        return matrix

    def _rows(
        self, weights: Sequence[float], *, wall: float
    ) -> tuple[Int[np.ndarray, " cell star"], Float64[np.ndarray, " cell star"]]:
        """Where the entries of each row lie, the diagonal first, and what they are.

        PETSc numbers the cells of the box with its neighbours; -1 means "outside" and is skipped.
        """
        ghosted = [end - start for start, end in self._da.getGhostRanges()][::-1]
        starts = [start for start, _ in self._da.getGhostRanges()][::-1]
        index = [axis.ravel() for axis in np.mgrid[self.box]]
        cell = np.ravel_multi_index(
            [own - start for own, start in zip(index, starts, strict=True)], ghosted
        )
        columns, entries, diagonal = [cell], [], np.ones(cell.shape)
        for axis in reversed(range(len(self._grid))):
            stride = prod(ghosted[axis + 1 :])
            first, last = index[axis] == 0, index[axis] == self._grid[axis] - 1
            columns += [np.where(first, -1, cell - stride), np.where(last, -1, cell + stride)]
            entries += [np.full(cell.shape, -weights[axis])] * 2
            diagonal += weights[axis] * (2.0 + wall * (first | last))
        return (
            np.stack(columns, axis=1).astype(PETSc.IntType),
            np.stack([diagonal, *entries], axis=1),
        )
