"""Five-point matrices on a DMDA: an entry for each point and its four neighbours.

1. A neighbour beyond a wall has no column: its entry is left out. On a periodic grid there is one
   on every side.
2. Filling a matrix again keeps its structure.
"""

import numpy as np
from jaxtyping import Float64

from solvers.petsc import PETSc

__all__ = ["fill"]

# Of the point itself and its neighbours in the west, east, south and north.
Entries = Float64[np.ndarray, " 5 y x"]


def fill(da: PETSc.DMDA, matrix: PETSc.Mat, entries: Entries) -> None:
    """Write this mpi_rank's rows of ``matrix``, which ``da`` has made; collective.

    Args:
        da: With one unknown a point and a stencil width of 1.
        matrix: Assembled afterwards.
        entries: Of the points of this mpi_rank.
    """
    (west, east), (south, north) = da.getGhostRanges()
    (first_x, last_x), (first_y, last_y) = da.getRanges()
    j, i = np.mgrid[first_y:last_y, first_x:last_x]
    columns = np.stack([(j, i), (j, i - 1), (j, i + 1), (j - 1, i), (j + 1, i)])
    row, column = columns[:, 0], columns[:, 1]
    inside = (row >= south) & (row < north) & (column >= west) & (column < east)
    local = np.where(inside, (row - south) * (east - west) + (column - west), -1)
    local = local.reshape(5, -1).T.astype(PETSc.IntType)
    starts = np.arange(0, local.size + 1, 5, dtype=PETSc.IntType)
    values = np.ascontiguousarray(entries.reshape(5, -1).T)
    matrix.setValuesLocalIJV(starts, local.ravel(), values.ravel(), rowmap=local[:, 0].copy())  # type: ignore[arg-type]
    matrix.assemble()
