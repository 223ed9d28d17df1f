"""The wave solver against exact solutions: fitted orders in space and time, energy, reflections.

A standing wave is an eigenvector of the grid, so the error in time is measured alone.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import dctn, dstn, idstn

from solvers.base import Snapshot
from solvers.configs.wave import WaveConfig
from solvers.pdes.wave import State, Wave
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x) in metres
SPEED = 1.7  # m/s
GRIDS = [(12, 20), (24, 40), (48, 80)]
MODE = (1, 2)  # half waves (y, x) of the standing wave
BUMP = {"x": 0.5, "y": 0.35, "width": 0.08, "height": 1.2}
WALLS = ["fixed", "free"]


def centres(grid: tuple[int, int]) -> tuple[Array, Array]:
    """``(y, 1)`` and ``(1, x)`` in metres."""
    (ny, nx), (ly, lx) = grid, LENGTH
    return (
        (np.arange(ny)[:, None] + 0.5) * ly / ny,
        (np.arange(nx)[None, :] + 0.5) * lx / nx,
    )


def mode(walls: str) -> Callable[[Array, Array], Array]:
    """A standing wave at its largest displacement."""
    shape = {"fixed": np.sin, "free": np.cos}[walls]
    (ly, lx), (my, mx) = LENGTH, MODE
    return lambda x, y: np.asarray(shape(my * np.pi * y / ly) * shape(mx * np.pi * x / lx))


def at_rest(displacement: Callable[[Array, Array], Array]) -> State:
    def state(x: Array, y: Array) -> Array:
        start = displacement(x, y)
        return np.stack([start, np.zeros_like(start)])

    return state


def frequency() -> float:
    """Of the standing wave, in rad/s."""
    (ly, lx), (my, mx) = LENGTH, MODE
    return float(SPEED * np.pi * np.hypot(my / ly, mx / lx))


def frequency_on(grid: tuple[int, int]) -> float:
    """The same as the nine-point star has it."""
    squared = 0.0
    for points, length, waves in zip(grid, LENGTH, MODE, strict=True):
        s = 4 * np.sin(waves * np.pi / (2 * points)) ** 2
        squared += (s + s * s / 12) * (points / length) ** 2
    return float(SPEED * np.sqrt(squared))


def snapshots(
    grid: tuple[int, int],
    *,
    steps: int,
    dt: float,
    walls: str,
    state: State | None = None,
    petsc_options: str = "",
) -> list[Snapshot]:
    config = WaveConfig.model_validate(
        {
            "grid": grid, "steps": steps, "dt": dt, "length": LENGTH, "speed": SPEED,
            "walls": walls, "petsc_options": petsc_options,
        }
    )  # fmt: skip
    solver = Wave(config, state=state)
    found = list(solver.run(BUMP, self_communicator()))
    solver.close()
    assert found[-1].time == pytest.approx(steps * dt)
    return found


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize("walls", WALLS)
def test_fourth_order_in_space_for_a_standing_wave(walls: str) -> None:
    steps, dt, errors = 125, 0.002, []  # the error in time is below that of the finest grid
    for grid in GRIDS[:2]:
        y, x = centres(grid)
        *_, last = snapshots(grid, steps=steps, dt=dt, walls=walls, state=at_rest(mode(walls)))
        shape, phase = mode(walls)(x, y), steps * dt * frequency()
        exact = np.stack([shape * np.cos(phase), -frequency() * shape * np.sin(phase)])
        errors.append([root_mean_square(e) for e in last.fields - exact])
    for displacement_or_velocity in zip(*errors, strict=True):
        assert_order(4.0, [1 / ny for ny, _ in GRIDS[:2]], displacement_or_velocity)


@pytest.mark.parametrize("walls", WALLS)
def test_fourth_order_in_time_for_a_standing_wave(walls: str) -> None:
    grid, final, counts = (12, 20), 1.0, [40, 60, 80]
    y, x = centres(grid)
    rate, shape = frequency_on(grid), mode(walls)(x, y)
    exact = np.stack([shape * np.cos(rate * final), -rate * shape * np.sin(rate * final)])
    errors = []
    for steps in counts:
        *_, last = snapshots(
            grid, steps=steps, dt=final / steps, walls=walls, state=at_rest(mode(walls))
        )
        errors.append([root_mean_square(e) for e in last.fields - exact])
    for displacement_or_velocity in zip(*errors, strict=True):
        assert_order(4.0, [final / n for n in counts], displacement_or_velocity)


@pytest.mark.parametrize(("width", "limits"), [(0.04, (0.018, 0.036)), (3 / 64, (0.009, 0.017))])
def test_the_advised_settings_are_as_near_to_the_exact_wave_as_described(
    width: float, limits: tuple[float, float]
) -> None:
    solver = Wave(WaveConfig())
    values = {"x": 0.4, "y": 0.55, "width": width, "height": 1.0}
    first, *rest = solver.run(values, self_communicator())
    solver.close()
    waves = dstn(first.fields[0].astype(np.float64), type=2)
    rate = np.pi * np.hypot(np.arange(1, 65)[:, None], np.arange(1, 65))
    for snapshot, limit in zip((rest[99], rest[199]), limits, strict=True):
        exact = idstn(waves * np.cos(rate * snapshot.time), type=2)
        error = root_mean_square(snapshot.fields[0] - exact) / root_mean_square(exact)
        assert error < limit


def test_fourth_order_for_a_wave_that_is_reflected() -> None:
    # Without a change along y it is d'Alembert's: half of the bump runs each way. Free walls send
    # it back as it is, so it looks as if mirror images came in from outside.
    width, centre, final, errors = 0.1, 0.5, 0.7, []
    lx = LENGTH[1]

    def bump(x: Array) -> Array:
        images = (m * 2 * lx + side * centre for m in (-1, 0, 1) for side in (-1, 1))
        return np.asarray(sum(np.exp(-0.5 * ((x - image) / width) ** 2) for image in images))

    for refinement in (2, 3, 4):
        grid, steps = (5, 20 * refinement), 24 * refinement
        _, x = centres(grid)
        *_, last = snapshots(
            grid,
            steps=steps,
            dt=final / steps,
            walls="free",
            state=at_rest(lambda x, y: bump(x) + 0 * y),
        )
        np.testing.assert_allclose(last.fields, last.fields[:, :1].repeat(5, axis=1), atol=1e-5)
        exact = (bump(x - SPEED * final) + bump(x + SPEED * final)) / 2
        errors.append(root_mean_square(last.fields[0] - exact))
    assert_order(4.0, [1 / 2, 1 / 3, 1 / 4], errors)


def energy(fields: Array, walls: str, grid: tuple[int, int], dt: float) -> float:
    """What the scheme conserves, in m^4/s^2; the waves of the grid are those of a transform."""
    transform = {"fixed": dstn, "free": dctn}[walls]
    rate = np.zeros(grid)
    for axis, (points, length) in enumerate(zip(grid, LENGTH, strict=True)):
        number = np.arange(points) + (walls == "fixed")
        s = 4 * np.sin(number * np.pi / (2 * points)) ** 2
        rate += np.expand_dims(SPEED**2 * (s + s * s / 12) * (points / length) ** 2, 1 - axis)
    z = rate * dt**2
    u, v = (transform(field, type=2, norm="ortho") for field in fields)
    area = np.prod(LENGTH) / np.prod(grid)
    return float(area / 2 * np.sum(v**2 + rate * (1 - z / 6) * (1 + z / 12) ** 2 * u**2))


@pytest.mark.parametrize("walls", WALLS)
@pytest.mark.parametrize("options", ["", "-ksp_type cg -pc_type jacobi"])
@pytest.mark.parametrize("dt", [0.004, 0.0143])
def test_energy_is_conserved_up_to_the_largest_step(walls: str, options: str, dt: float) -> None:
    grid = (24, 40)
    energies = [
        energy(s.fields.astype(np.float64), walls, grid, dt)
        for s in snapshots(grid, steps=100, dt=dt, walls=walls, petsc_options=options)
    ]
    np.testing.assert_allclose(energies, energies[0], rtol=2e-6)  # float32 snapshots


def test_the_energy_of_the_bump_is_that_of_the_continuum() -> None:
    # Integral of c^2 / 2 |grad u|^2 over the plane; at 4 widths from the walls nothing is missing.
    state = {"x": 0.65, "y": 0.4, "width": 0.08, "height": 1.2}
    exact = SPEED**2 / 2 * np.pi * state["height"] ** 2
    for grid, limit in (((24, 40), 1e-2), ((48, 80), 1e-3)):
        solver = Wave(WaveConfig(grid=grid, length=LENGTH, speed=SPEED, steps=1, dt=1e-4))
        first = next(solver.run(state, self_communicator()))
        solver.close()
        found = energy(first.fields.astype(np.float64), "fixed", grid, 1e-4)
        assert found == pytest.approx(exact, rel=limit)


def test_free_walls_take_no_momentum() -> None:
    def pushed(x: Array, y: Array) -> Array:
        bump = np.exp(-30 * ((x - 0.4) ** 2 + (y - 0.3) ** 2))
        return np.stack([bump, 1.0 + 0 * bump])

    found = snapshots((13, 20), steps=50, dt=0.02, walls="free", state=pushed)
    start = found[0].fields[0].mean(dtype=np.float64)
    for snapshot in found:
        displacement, velocity = snapshot.fields.mean(axis=(1, 2), dtype=np.float64)
        assert velocity == pytest.approx(1.0, abs=1e-6)
        assert displacement == pytest.approx(start + snapshot.time, abs=1e-6)


@pytest.mark.parametrize(("walls", "sign"), [("fixed", -1.0), ("free", 1.0)])
def test_fixed_walls_turn_a_wave_over_and_free_walls_do_not(walls: str, sign: float) -> None:
    # A ridge along y, seen in the middle row before the walls south and north can be felt there.
    final, start = 0.19, 0.2
    ridge = at_rest(lambda x, y: np.exp(-0.5 * ((x - start) / 0.05) ** 2) + 0 * y)
    *_, last = snapshots((96, 160), steps=60, dt=final / 60, walls=walls, state=ridge)
    row, (_, x) = last.fields[0, 48], centres((96, 160))
    echo, other = SPEED * final - start, SPEED * final + start
    assert np.interp(echo, x[0], row) == pytest.approx(sign / 2, abs=0.05)
    assert np.interp(other, x[0], row) == pytest.approx(1 / 2, abs=0.05)


@pytest.mark.parametrize("options", ["-ksp_type cg -pc_type gamg", "-pc_type cholesky"])
def test_the_choice_of_linear_solver_does_not_show(options: str) -> None:
    expected = snapshots((24, 40), steps=20, dt=0.01, walls="fixed")[-1].fields
    computed = snapshots((24, 40), steps=20, dt=0.01, walls="fixed", petsc_options=options)
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(computed[-1].fields / largest, expected / largest, atol=3e-7)
