"""The heat solver against exact solutions: fitted orders in space and time, steady state, decay.

Orders are fitted over three resolutions of a grid with unequal axes and unequal spacing; every
comparison prints its errors and orders when it fails.
"""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.configs.heat import HeatConfig
from solvers.pdes.heat import Heat, Perturbation
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x) in metres
LENGTHS: dict[int, tuple[float, ...]] = {1: (1.3,), 2: LENGTH, 3: (0.9, 0.8, 1.3)}
DIFFUSIVITY = 0.1  # m^2/s
GRIDS = [(12, 20), (24, 40), (48, 80)]
FINER: dict[int, list[tuple[int, ...]]] = {
    1: [(20,), (40,), (80,)],
    2: list(GRIDS),
    3: [(7, 6, 10), (14, 12, 20), (28, 24, 40)],
}
WALLS = {"initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0}
COLD = dict.fromkeys(WALLS, 300.0)
# Of the smooth initial state, in the grid's order.
HALF_WAVES: dict[int, tuple[int, ...]] = {1: (2,), 2: (1, 2), 3: (1, 1, 2)}
AMPLITUDE = 100.0  # kelvin


class Plate(NamedTuple):
    y: Array  # (y, 1), cell centres in metres
    x: Array  # (1, x)


def centres(grid: tuple[int, ...]) -> list[Array]:
    """Cell centres on each axis [m], in the grid's order, open as from ``numpy.ogrid``."""
    lengths = LENGTHS[len(grid)]
    axes = [(np.arange(n) + 0.5) * side / n for n, side in zip(grid, lengths, strict=True)]
    return list(np.ix_(*axes))


def plate(grid: tuple[int, int]) -> Plate:
    return Plate(*centres(grid))


def sine(*coordinates: Array) -> Array:
    """The smooth initial state, given x, y and z."""
    axes = len(coordinates)
    waves = [
        np.sin(m * np.pi * along / side)
        for along, m, side in zip(
            coordinates, HALF_WAVES[axes][::-1], LENGTHS[axes][::-1], strict=True
        )
    ]
    product: Array = AMPLITUDE * waves[0]
    for wave in waves[1:]:
        product = product * wave
    return product


def all_at(temperature: float, axes: int) -> dict[str, float]:
    return {p.name: temperature for p in HeatConfig(grid=(3,) * axes).parameters()}


def last_field(
    grid: tuple[int, ...],
    *,
    steps: int,
    dt: float,
    values: dict[str, float],
    perturbation: Perturbation | None = None,
    petsc_options: str = "",
) -> Array:
    config = HeatConfig(
        grid=grid,
        steps=steps,
        dt=dt,
        length=LENGTHS[len(grid)],
        diffusivity=DIFFUSIVITY,
        petsc_options=petsc_options,
    )
    solver = Heat(config, perturbation=perturbation)
    *_, last = solver.run(values, self_communicator())
    solver.close()
    assert last.time == pytest.approx(steps * dt)
    return np.asarray(last.fields[0], np.float64)


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_second_order_in_space_for_a_decaying_mode(axes: int) -> None:
    final, steps = 0.25, 400  # time error below 1 % of the finest grid's space error
    decay = sum((m / side) ** 2 for m, side in zip(HALF_WAVES[axes], LENGTHS[axes], strict=True))
    rate = DIFFUSIVITY * np.pi**2 * decay
    cold, errors = all_at(300.0, axes), []
    for grid in FINER[axes]:
        exact = 300.0 + sine(*centres(grid)[::-1]) * np.exp(-rate * final)
        computed = last_field(grid, steps=steps, dt=final / steps, values=cold, perturbation=sine)
        errors.append(root_mean_square(computed - exact))
    assert_order(2.0, [1 / grid[-1] for grid in FINER[axes]], errors)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_second_order_in_time_for_a_decaying_mode(axes: int) -> None:
    # On the grid, the sine is an eigenvector: what is left is the error in time alone. It decays to
    # 0 K, where the float32 of a snapshot is finest.
    grid, final = FINER[axes][1], 0.5
    rate = (4 * DIFFUSIVITY) * sum(
        (np.sin(m * np.pi / (2 * n)) * n / side) ** 2
        for n, m, side in zip(grid, HALF_WAVES[axes], LENGTHS[axes], strict=True)
    )
    exact = sine(*centres(grid)[::-1]) * np.exp(-rate * final)
    counts = [40, 80, 160, 320]
    zero = all_at(0.0, axes)
    errors = [
        root_mean_square(
            last_field(grid, steps=n, dt=final / n, values=zero, perturbation=sine) - exact
        )
        for n in counts
    ]
    assert_order(2.0, [final / n for n in counts], errors)


def cooling(along: Array, side: float, time: float, terms: int = 400) -> Array:
    """A rod at 1 K that is put between ends at 0 K, as a sine series; for ``time`` > 0."""
    k = np.arange(1, terms, 2) * np.pi / side
    left = 4 / (k * side) * np.exp(-DIFFUSIVITY * k**2 * time)
    return np.asarray(np.sin(along.reshape(-1, 1) * k) @ left).reshape(along.shape)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_second_order_after_the_walls_are_cooled(axes: int) -> None:
    # Between equal walls the solution is a product over the axes. Grid and time step are refined
    # together.
    final, errors = 0.3, []
    values = all_at(200.0, axes) | {"initial": 450.0}
    for refinement, grid in zip((1, 2, 4), FINER[axes], strict=True):
        steps, exact = 15 * refinement, np.full(grid, 250.0)
        for along, side in zip(centres(grid), LENGTHS[axes], strict=True):
            exact = exact * cooling(along, side, final)
        computed = last_field(grid, steps=steps, dt=final / steps, values=values)
        errors.append(root_mean_square(computed - 200.0 - exact))
    assert errors[-1] < 0.3, errors
    assert_order(2.0, [1 / grid[-1] for grid in FINER[axes]], errors)


def test_a_rod_goes_to_the_straight_line_between_its_ends() -> None:
    values = {"initial": 400.0, "west": 120.0, "east": 480.0}
    (x,) = centres((20,))
    line = 120.0 + (480.0 - 120.0) * x / LENGTHS[1][0]
    computed = last_field((20,), steps=40, dt=5.0, values=values)
    np.testing.assert_allclose(computed, line, rtol=1e-6)


def test_the_middle_of_a_cube_goes_to_the_mean_of_its_walls() -> None:
    temperatures = [120.0, 480.0, 200.0, 330.0, 150.0, 500.0]
    config = HeatConfig(grid=(7, 7, 7), steps=40, dt=5.0)
    names = [p.name for p in config.parameters()]
    solver = Heat(config)
    *_, last = solver.run(
        dict(zip(names, [400.0, *temperatures], strict=True)), self_communicator()
    )
    solver.close()
    assert last.fields[0, 3, 3, 3] == pytest.approx(np.mean(temperatures), rel=1e-6)


def laplace(y: Array, x: Array, walls: dict[str, float], terms: int = 4000) -> Array:
    """The harmonic function between four walls, wall by wall as a sine-sinh series."""
    ly, lx = LENGTH

    def one_wall(along: Array, side: float, away: Array, depth: float) -> Array:
        """1 on the wall, at ``away = 0``, and 0 on the others; ``(along, away)``."""
        k = np.arange(1, terms, 2) * np.pi / side
        # sinh(k (depth - away)) / sinh(k depth), without overflow
        fading = (np.exp(-k * away) - np.exp(-k * (2 * depth - away))) / (
            1 - np.exp(-2 * k * depth)
        )
        return np.asarray(np.sin(along * k) @ (4 / (k * side) * fading).T)

    across, up = x.reshape(-1, 1), y.reshape(-1, 1)
    return np.asarray(
        walls["west"] * one_wall(up, ly, across, lx)
        + walls["east"] * one_wall(up, ly, lx - across, lx)
        + (walls["south"] * one_wall(across, lx, up, ly)).T
        + (walls["north"] * one_wall(across, lx, ly - up, ly)).T
    )


def plate_at(time: float, y: Array, x: Array, values: dict[str, float], modes: int = 400) -> Array:
    """The exact temperature for a uniform initial state and four walls, for ``time`` > 0.

    The steady state plus sine modes; the modes of the steady state follow from Green's identity.
    """
    ly, lx = LENGTH
    n, m = np.arange(1, modes)[:, None], np.arange(1, modes)[None, :]
    ky, kx = n * np.pi / ly, m * np.pi / lx
    odd_n, odd_m = 1 - (-1.0) ** n, 1 - (-1.0) ** m
    initial = values["initial"] * 4 / (lx * ly) * (odd_n / ky) * (odd_m / kx)
    steady = (4 / (lx * ly) / (kx**2 + ky**2)) * (
        kx / ky * odd_n * (values["west"] - (-1.0) ** m * values["east"])
        + ky / kx * odd_m * (values["south"] - (-1.0) ** n * values["north"])
    )
    left = (initial - steady) * np.exp(-DIFFUSIVITY * (kx**2 + ky**2) * time)
    return np.asarray(laplace(y, x, values) + np.sin(y * ky.T) @ left @ np.sin(kx.T * x))


def far_from_corners(y: Array, x: Array, distance: float = 0.25) -> Array:
    """Where the exact solution is smooth up to the walls."""
    ly, lx = LENGTH
    return np.asarray(np.hypot(np.minimum(x, lx - x), np.minimum(y, ly - y)) > distance)


def test_the_exact_solution_is_exact() -> None:
    # Near the walls and corners, and just after the start: what the comparisons below rest on.
    y, x = np.array([[0.0123], [0.4], [0.79]]), np.array([[0.0087, 0.65, 1.29]])
    uniform = dict.fromkeys(WALLS, 250.0)
    np.testing.assert_allclose(laplace(y, x, uniform), 250.0, atol=1e-6)
    middle = plate_at(1e-3, np.array([[0.4]]), np.array([[0.65]]), WALLS)
    np.testing.assert_allclose(middle, WALLS["initial"], atol=1e-6)


def test_second_order_towards_the_steady_state_between_four_walls() -> None:
    errors = []
    for grid in GRIDS:
        y, x = plate(grid)
        difference = last_field(grid, steps=40, dt=5.0, values=WALLS) - laplace(y, x, WALLS)
        errors.append(root_mean_square(difference[far_from_corners(y, x)]))
        assert np.abs(difference).max() < 12.0  # in a corner: 3 % of the 360 K between the walls
    assert errors[-1] < 0.1, errors
    assert_order(2.0, [1 / ny for ny, _ in GRIDS], errors)


def test_second_order_after_a_start_that_does_not_fit_the_walls() -> None:
    # Grid and time step are refined together.
    final, errors = 0.3, []
    for refinement, grid in zip((1, 2, 4), GRIDS, strict=True):
        y, x = plate(grid)
        steps = 15 * refinement
        exact = plate_at(final, y, x, WALLS)
        difference = last_field(grid, steps=steps, dt=final / steps, values=WALLS) - exact
        errors.append(root_mean_square(difference[far_from_corners(y, x)]))
    assert errors[-1] < 0.1, errors
    assert_order(2.0, [1 / ny for ny, _ in GRIDS], errors)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_wall_warms_its_own_side(axes: int) -> None:
    grid, cold = FINER[axes][1], all_at(300.0, axes)
    ends = {"west": (-1, 0), "east": (-1, -1), "south": (-2, 0), "north": (-2, -1),
            "bottom": (-3, 0), "top": (-3, -1)}  # fmt: skip
    walls = [name for name in cold if name != "initial"]
    for warm in walls:
        field = last_field(grid, steps=3, dt=1e-3, values=cold | {warm: 500.0})
        for wall in walls:
            axis, end = ends[wall]
            middle = [cells // 2 for cells in grid]
            middle[axis] = end
            assert (field[tuple(middle)] > 320.0) == (wall == warm), (warm, wall)


@pytest.mark.parametrize(("dt", "limit"), [(1e-4, 0.012), (1e-2, 0.012), (0.1, 0.012), (2.0, 0.05)])
@pytest.mark.parametrize("values", [COLD | {"initial": 100.0}, COLD | {"west": 500.0}, WALLS])
def test_temperatures_stay_between_the_given_ones(
    dt: float, limit: float, values: dict[str, float]
) -> None:
    config = HeatConfig(grid=(24, 40), steps=30, dt=dt, length=LENGTH, diffusivity=DIFFUSIVITY)
    solver = Heat(config)
    low, high = min(values.values()), max(values.values())
    excess = [
        max(low - float(s.fields.min()), float(s.fields.max()) - high) / (high - low)
        for s in solver.run(values, self_communicator())
    ]
    solver.close()
    rounding = 1e-6
    assert max(excess[:2]) <= rounding, "the initial state and the first step never leave it"
    assert max(excess[2:]) <= limit


@pytest.mark.parametrize("options", ["-ksp_type cg -pc_type gamg", "-pc_type cholesky"])
def test_the_choice_of_linear_solver_does_not_show(options: str) -> None:
    case = {"steps": 20, "dt": 0.01, "values": WALLS}
    expected = last_field((24, 40), **case)  # type: ignore[arg-type]
    computed = last_field((24, 40), petsc_options=options, **case)  # type: ignore[arg-type]
    np.testing.assert_allclose(computed, expected, rtol=2e-7)  # float32 resolution


def test_the_defaults_are_transient_for_more_than_a_third_of_the_time() -> None:
    config = HeatConfig()
    (ly, lx), final = config.length, config.steps * config.dt
    rate = config.diffusivity * np.pi**2 * (1 / ly**2 + 1 / lx**2)
    assert np.exp(-rate * final / 3) == pytest.approx(0.52, abs=0.005)
    assert np.exp(-rate * final) == pytest.approx(0.14, abs=0.005)
