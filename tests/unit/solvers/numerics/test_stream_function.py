"""The formulas of the cavity: the flow of a stream function, and the equation's derivatives."""

import numpy as np
import pytest

from solvers.numerics.stream_function import GHOSTS, StreamFunction, couplings

GRID = (6, 9)
SPACING = (0.1, 0.15)
LID = np.linspace(0.5, 1.5, GRID[1])
COEFFICIENTS = {"rate": 7.0, "viscosity": 0.3}


def between_walls(values: np.ndarray) -> StreamFunction:
    local = StreamFunction(GRID, spacing=SPACING, at_walls=(True, True, True, True))
    local.psi[GHOSTS:-GHOSTS, GHOSTS:-GHOSTS] = values
    return local


def residual(values: np.ndarray) -> np.ndarray:
    local = between_walls(values)
    return local.residual(local.flow(LID), 0.5, **COEFFICIENTS)


def test_the_flow_of_a_parabola_is_exact() -> None:
    y, x = np.mgrid[-2:8, -2:11] * np.array(SPACING)[:, None, None]
    local = StreamFunction(GRID, spacing=SPACING, at_walls=(False, False, False, False))
    local.psi[:] = 3 * x**2 - x * y + 2 * y**2
    u, v, w = local.flow(LID)
    np.testing.assert_allclose(u, (4 * y - x)[2:-2, 1:-1], atol=1e-13)
    np.testing.assert_allclose(v, (y - 6 * x)[1:-1, 2:-2], atol=1e-13)
    np.testing.assert_allclose(w, -10.0, atol=1e-11)


def test_no_slip_on_the_walls_and_the_lid_moves() -> None:
    u, v, w = between_walls(np.random.default_rng(3).random(GRID)).flow(LID)
    assert not u[:, [0, -1]].any()
    assert not v[[0, -1]].any()
    # Thom: -2 (psi + hy u) / hy^2 on the lid, which carries the speed of the lid alone.
    still = between_walls(np.zeros(GRID)).flow(LID)
    np.testing.assert_allclose(still.w[-1, 1:-1], -2 * LID / SPACING[0])
    np.testing.assert_array_equal(still.w[:-1], 0.0)
    assert w[-1, 1:-1].all()


def test_the_entries_are_the_derivatives_of_the_residual() -> None:
    state = np.random.default_rng(7).random(GRID)
    local = between_walls(state)
    entries = local.entries(local.flow(LID), **COEFFICIENTS)
    rows, columns, on_wall = couplings((slice(0, 6), slice(0, 9)), GRID)
    jacobian = np.zeros((*GRID, *GRID))  # equation, unknown
    j, i = np.mgrid[0:6, 0:9]
    for entry, row, column, wall in zip(entries, rows, columns, on_wall, strict=True):
        inside = ~wall
        np.add.at(
            jacobian,
            (j[inside], i[inside], row[inside], column[inside]),
            entry[inside],
        )
    for unknown in np.ndindex(GRID):
        step = np.zeros(GRID)
        step[unknown] = 0.5
        # The equation is quadratic in psi, for which a central difference is exact.
        expected = residual(state + step) - residual(state - step)
        np.testing.assert_allclose(jacobian[:, :, *unknown], expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("box", [(slice(0, 3), slice(0, 9)), (slice(3, 6), slice(4, 9))])
def test_a_part_of_the_grid_knows_the_same_points(box: tuple[slice, slice]) -> None:
    whole = couplings((slice(0, 6), slice(0, 9)), GRID)
    for part, all_of_it in zip(couplings(box, GRID), whole, strict=True):
        np.testing.assert_array_equal(part, all_of_it[:, *box])
