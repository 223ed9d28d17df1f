"""Fluxes of shallow water along one axis: what they conserve, balance, and never take."""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.numerics.hydrostatic import GHOSTS, Sweep, factor_of_velocity
from tests.numerics.fitted_order import assert_order

Array = NDArray[np.float64]
GRAVITY = 9.81
SHAPE = (7, 12)  # cells (y, x)
GHOSTED = (SHAPE[0] + 2 * GHOSTS, SHAPE[1] + 2 * GHOSTS)


def sweep(axis: int, *, shape: tuple[int, int] = SHAPE, spacing: float = 0.3) -> Sweep:
    return Sweep(axis=axis, shape=shape, spacing=spacing, gravity=GRAVITY)


def puddles(seed: int) -> tuple[Array, Array]:
    """Depth, surface and velocities of water in disorder, a third of it dry, and the bottom."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(4, *GHOSTED))
    state[0] = np.maximum(rng.uniform(-0.5, 1.0, GHOSTED), 0.0)
    state[2:] *= state[0] > 0
    bottom = rng.normal(size=GHOSTED)
    state[1] = state[0] + bottom
    return state, bottom


@pytest.mark.parametrize("axis", [0, 1])
def test_a_face_gives_what_it_takes(axis: int) -> None:
    state, _ = puddles(1)
    last = -1 - GHOSTS
    # Round and round: what leaves on one side comes in on the other.
    for ghost, cell in ((0, last - 1), (1, last), (-2, GHOSTS), (-1, GHOSTS + 1)):
        if axis == 1:
            state[:, :, ghost] = state[:, :, cell]
        else:
            state[:, ghost] = state[:, cell]
    rates = np.zeros((3, *SHAPE))
    sweep(axis).add(state, rates)
    assert np.abs(rates[0]).max() > 0.5
    assert abs(rates[0].sum()) <= 1e-13 * np.abs(rates[0]).sum()
    carried = rates[1 if axis == 0 else 2]  # no pressure acts across
    assert abs(carried.sum()) <= 1e-13 * np.abs(carried).sum()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_lake_at_rest_stays_at_rest_around_dry_islands(axis: int) -> None:
    bottom = np.random.default_rng(2).uniform(-1.0, 0.8, GHOSTED)
    state = np.zeros((4, *GHOSTED))
    np.maximum(0.3 - bottom, 0.0, out=state[0])
    state[1] = state[0] + bottom
    assert 0 < np.count_nonzero(state[0] == 0) < state[0].size
    rates = np.zeros((3, *SHAPE))
    fastest = sweep(axis).add(state, rates)
    assert np.abs(rates).max() <= 2e-14
    assert fastest >= np.sqrt(GRAVITY * 0.9)


@pytest.mark.parametrize("seed", range(20))
def test_half_a_courant_number_leaves_no_depth_negative(seed: int) -> None:
    state, _ = puddles(seed)
    rates, spacings = np.zeros((3, *SHAPE)), {1: 0.3, 0: 0.2}
    pace = sum(
        sweep(axis, spacing=spacing).add(state, rates) / spacing
        for axis, spacing in spacings.items()
    )
    depth = state[0, GHOSTS:-GHOSTS, GHOSTS:-GHOSTS]
    assert (depth + 0.5 / pace * rates[0]).min() >= -1e-15
    assert (depth + 5 / pace * rates[0]).min() < 0, "the limit is not what keeps them positive"


@pytest.mark.parametrize("axis", [0, 1])
def test_second_order_where_the_water_has_no_crest(axis: int) -> None:
    cells, errors = [80, 160, 320], []
    for count in cells:
        shape = (3, count) if axis == 1 else (count, 3)
        spacing = 1.0 / count
        at = (np.arange(-GHOSTS, count + GHOSTS) + 0.5) * spacing
        depth, bottom = 1 + 0.3 * np.exp(-at), 0.5 * np.sinh(at)
        along, across = np.exp(at / 2), 0.3 * np.exp(-2 * at)
        line = np.stack([depth, depth + bottom, along, across])
        rates = np.zeros((3, *shape))
        if axis == 0:
            line = line[[0, 1, 3, 2]]
        turned = line[:, None, :] if axis == 1 else line[:, :, None]
        others = (4, shape[0] + 4, shape[1] + 4)
        sweep(axis, shape=shape, spacing=spacing).add(
            np.ascontiguousarray(np.broadcast_to(turned, others)), rates
        )
        found = rates[:, 1] if axis == 1 else rates[[0, 2, 1], :, 1]
        x, h, u, v = (a[GHOSTS:-GHOSTS] for a in (at, depth, along, across))
        h_x, u_x, v_x = -0.3 * np.exp(-x), u / 2, -2 * v
        mass_x = h_x * u + h * u_x
        surface_x = h_x + 0.5 * np.cosh(x)
        exact = -np.stack(
            [
                mass_x,
                mass_x * u + h * u * u_x + GRAVITY * h * surface_x,
                mass_x * v + h * u * v_x,
            ]
        )
        errors.append([float(e) for e in np.abs(found - exact).mean(axis=1)])
    for of_one_rate in zip(*errors, strict=True):
        assert_order(2.0, [1 / count for count in cells], of_one_rate)


def test_a_part_of_the_water_has_the_same_rates() -> None:
    state, _ = puddles(3)
    whole, part = np.zeros((3, *SHAPE)), np.zeros((3, 3, 5))
    for axis in (0, 1):
        sweep(axis).add(state, whole)
        sweep(axis, shape=(3, 5)).add(state[:, 2:9, 4:13], part)
    np.testing.assert_array_equal(part, whole[:, 2:5, 4:9])


def test_rates_are_added_to_those_that_are_there() -> None:
    state, _ = puddles(4)
    alone, together = np.zeros((3, *SHAPE)), np.full((3, *SHAPE), 2.0)
    sweep(1).add(state, alone)
    sweep(1).add(state, together)
    np.testing.assert_allclose(together, alone + 2.0, rtol=1e-13)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_speed_tells_of_what_cannot_be_computed_with(value: float) -> None:
    state, _ = puddles(5)
    state[2, 5, 6] = value
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(sweep(1).add(state, np.zeros((3, *SHAPE))))


def test_thin_water_has_no_velocity() -> None:
    depth = np.array([[2.0, 1e-3, 1e-4, 1e-5, 1e-9, 0.0]])
    factor, scratch = np.empty_like(depth), np.empty_like(depth)
    factor_of_velocity(depth, thin=1e-4, out=factor, scratch=scratch)
    np.testing.assert_allclose(factor[0, :3], 1 / depth[0, :3], rtol=1e-12)
    velocities = factor[0] * depth[0] * 3.0  # of water that all runs at 3 m/s
    np.testing.assert_allclose(velocities[:3], 3.0, rtol=1e-12)
    assert velocities[3] == pytest.approx(2 * 3.0 * 0.01 / 1.01)
    assert velocities[4] < 1e-8
    assert velocities[5] == 0.0
