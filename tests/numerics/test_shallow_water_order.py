"""The shallow water solver against exact and manufactured solutions: fitted orders, mean errors.

The limiter takes an order away at crests. So the order in space is fitted for a wave without any;
with crests, whose share of the error falls faster than the rest, it is bounded from below.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.pdes.shallow_water import ShallowWater
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
Field = NDArray[np.inexact]  # complex where a derivative is taken
LENGTH = (8.0, 13.0)  # (y, x) in metres
GRAVITY = 9.81
RATE = 2.0  # rad/s
BOUNDARIES = ["walls", "periodic"]
EPSILON = 1e-30  # of a complex step: no difference is taken, so nothing cancels


def exact(time: complex, x: Field, y: Field, *, periods: float) -> Field:
    """Depth, discharges and bottom: even at the walls, but for the discharge into them."""
    ky, kx = 2 * np.pi * periods / np.array(LENGTH)
    depth = 1.0 + 0.15 * np.cos(kx * x) * np.cos(ky * y) * np.cos(RATE * time)
    bottom = 0.2 * np.cos(kx * x) + 0.1 * np.cos(ky * y)
    u = 0.8 * np.sin(kx * x) * np.cos(ky * y) * np.cos(RATE * time + 0.4)
    v = 0.6 * np.cos(kx * x) * np.sin(ky * y) * np.sin(RATE * time)
    return np.stack([depth, depth * u, depth * v, bottom + 0 * depth])


def source_of(periods: float) -> Callable[[float, Array, Array], Array]:
    """What is missing in the equations for that solution."""

    def fluxes(state: Field) -> tuple[Field, Field]:
        h, p, q, _ = state
        pressure = GRAVITY * h**2 / 2
        return np.stack([p, p**2 / h + pressure, p * q / h]), np.stack(
            [q, p * q / h, q**2 / h + pressure]
        )

    def source(time: float, x: Array, y: Array) -> Array:
        step = 1j * EPSILON
        in_time = exact(time + step, x, y, periods=periods).imag / EPSILON
        at_x = exact(time, x + step, y, periods=periods)
        at_y = exact(time, x, y + step, periods=periods)
        added = in_time[:3] + (fluxes(at_x)[0].imag + fluxes(at_y)[1].imag) / EPSILON
        depth = exact(time, x, y, periods=periods)[0].real
        added[1] += GRAVITY * depth * at_x[3].imag / EPSILON
        added[2] += GRAVITY * depth * at_y[3].imag / EPSILON
        return np.asarray(added)

    return source


def simple_wave(at: Array, time: float) -> tuple[Array, Array]:
    """A wave that runs to the right, and is higher there: depth and discharge.

    c = sqrt(g h) and u = 2 (c - 2 m/s) are constant along lines of speed u + c (Stoker, 10.2).
    """

    def speed(start: Array) -> Array:
        return np.asarray(2.3 + 0.3 * np.tanh(start - 8.0))

    low, high = at - 10.0, at + 10.0
    for _ in range(60):
        start = (low + high) / 2
        beyond = start + (3 * speed(start) - 4.0) * time > at
        low, high = np.where(beyond, low, start), np.where(beyond, start, high)
    depth = speed(low) ** 2 / GRAVITY
    return depth, 2 * (speed(low) - 2.0) * depth


@pytest.mark.parametrize("axis", [0, 1])
def test_second_order_for_a_wave_without_crests(axis: int) -> None:
    final, cells, errors = 0.8, [100, 200, 400], []
    for count in cells:
        spacing = 20.0 / count
        grid, length = (3, count), (3 * spacing, 20.0)
        config = ShallowWaterConfig(
            grid=grid if axis == 1 else grid[::-1],
            length=length if axis == 1 else length[::-1],
            steps=7 * count // 10,
            dt=final / (7 * count // 10),
            bottom="flat",
            gravity=GRAVITY,
        )
        at = np.linspace(spacing / 2, 20.0 - spacing / 2, count)

        def start(x: Array, y: Array, at: Array = at) -> Array:
            depth, discharge = simple_wave(at, 0.0)
            state = np.zeros((4, 3, at.size))
            state[0], state[1] = depth, discharge
            return state if axis == 1 else state[[0, 2, 1, 3]].swapaxes(1, 2)

        solver = ShallowWater(config, start=start)
        values = {p.name: p.low for p in config.parameters()}  # the start is given
        *_, found = solver.run(values, self_communicator())
        solver.close()
        assert (found.iterations, found.refused) == (1, 0)
        fields = found.fields if axis == 1 else found.fields[[0, 2, 1, 3]].swapaxes(1, 2)
        depth, discharge = simple_wave(at, final)
        free = (at > 5.0) & (at < 17.0)  # the walls' waves have not come so far
        errors.append(
            [
                float(np.abs(field[1] - exact)[free].mean())
                for field, exact in zip(fields, (depth, discharge), strict=False)
            ]
        )
        assert not fields[2].any()
    for of_one_field in zip(*errors, strict=True):
        assert_order(2.0, [1 / count for count in cells], of_one_field)


def last(grid: tuple[int, int], *, steps: int, final: float, boundary: str) -> Array:
    """Depth and discharges at the end."""
    periods = {"walls": 0.5, "periodic": 1.0}[boundary]
    config = ShallowWaterConfig.model_validate(
        {
            "grid": grid, "length": LENGTH, "steps": steps, "dt": final / steps,
            "boundary": boundary, "gravity": GRAVITY,
        }
    )  # fmt: skip
    solver = ShallowWater(
        config,
        start=lambda x, y: exact(0.0, x, y, periods=periods).real,
        source=source_of(periods),
    )
    values = {p.name: p.low for p in config.parameters()}  # the start is given
    *_, found = solver.run(values, self_communicator())
    solver.close()
    assert found.time == pytest.approx(final)
    assert (found.iterations, found.refused) == (1, 0), "dt is not the scheme's own step"
    return np.asarray(found.fields[:3], np.float64)


def mean(error: Field) -> list[float]:
    return [float(e) for e in np.abs(error).mean(axis=(1, 2))]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_at_least_second_order_with_crests_and_over_a_bottom(boundary: str) -> None:
    final, errors, refinements = 0.4, [], [1, 2, 4]
    for refinement in refinements:
        grid = (20 * refinement, 32 * refinement)
        found = last(grid, steps=20 * refinement, final=final, boundary=boundary)
        ny, nx = grid
        y = (np.arange(ny)[:, None] + 0.5) * LENGTH[0] / ny
        x = (np.arange(nx)[None, :] + 0.5) * LENGTH[1] / nx
        periods = {"walls": 0.5, "periodic": 1.0}[boundary]
        errors.append(mean(found - exact(final, x, y, periods=periods)[:3]))
    for of_one_field in zip(*errors, strict=True):
        fitted = -np.polyfit(np.log(refinements), np.log(of_one_field), 1)[0]
        assert 1.85 <= fitted <= 2.6, (fitted, errors)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_second_order_in_time(boundary: str) -> None:
    # Against the same grid with far smaller steps: the error in space is in both.
    grid, final, counts = (12, 20), 0.6, [20, 40, 80]
    reference = last(grid, steps=400, final=final, boundary=boundary)
    errors = [
        mean(last(grid, steps=steps, final=final, boundary=boundary) - reference)
        for steps in counts
    ]
    for of_one_field in zip(*errors, strict=True):
        assert_order(2.0, [final / n for n in counts], of_one_field)
