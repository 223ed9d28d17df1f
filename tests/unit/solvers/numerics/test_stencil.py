"""The matrix of an implicit step, against the sum of one matrix per axis."""

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.numerics.stencil import Cells
from solvers.petsc import Owned, PETSc, self_communicator

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
GRIDS = [(5,), (3, 4), (3, 5, 4)]
WEIGHTS = (0.5, 3.0, 0.25)


def dense(matrix: PETSc.Mat) -> Array:
    found = matrix.convert("dense")
    values = np.array(found.getDenseArray(), np.float64)
    found.destroy()
    return values


def on_a_line(cells: int, wall: float) -> Array:
    """h^2 times -(d/dx)^2."""
    line = 2.0 * np.eye(cells) - np.eye(cells, k=1) - np.eye(cells, k=-1)
    line[0, 0] += wall
    line[-1, -1] += wall
    return line


def expected(grid: tuple[int, ...], weights: tuple[float, ...], wall: float, order: int) -> Array:
    total = np.eye(int(np.prod(grid)))
    for axis, weight in enumerate(weights):
        factors = [np.eye(cells) for cells in grid]
        line = on_a_line(grid[axis], wall)
        factors[axis] = weight * (line if order == 2 else line + line @ line / 12)
        product: Array = np.eye(1)
        for factor in factors:
            product = np.asarray(np.kron(product, factor), np.float64)
        total += product
    return total


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("wall", [1.0, -1.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_matrix_is_the_sum_over_the_axes(
    grid: tuple[int, ...], wall: float, order: Literal[2, 4]
) -> None:
    weights = WEIGHTS[: len(grid)]
    with Owned() as owned:
        cells = Cells(grid, comm=self_communicator(), owned=owned, order=order)
        matrix, whole = (
            dense(cells.matrix(weights, wall=wall)),
            expected(grid, weights, wall, order),
        )
        np.testing.assert_allclose(matrix, whole, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("grid", GRIDS)
def test_centres_and_walls_come_x_first_and_spread_over_the_box(grid: tuple[int, ...]) -> None:
    spacing = (0.1, 2.0, 30.0)[: len(grid)]
    with Owned() as owned:
        cells = Cells(grid, comm=self_communicator(), owned=owned)
        assert cells.shape == grid
        assert cells.box == tuple(slice(0, n) for n in grid)
        for axis, (centres, (first, last)) in enumerate(
            zip(cells.centres(spacing)[::-1], cells.at_walls()[::-1], strict=True)
        ):
            own = (np.arange(grid[axis]) + 0.5) * spacing[axis]
            np.testing.assert_array_equal(centres.ravel(), own)
            assert centres.shape[axis] == centres.size
            assert list(np.flatnonzero(first)) == [0]
            assert list(np.flatnonzero(last)) == [grid[axis] - 1]
