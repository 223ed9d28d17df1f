"""The Gray-Scott solver against manufactured solutions: fitted orders, exact decay, conservation.

A source is added for which the solution is known. With the grid's own Laplacian in it the error is
that of the time scheme alone; with the true one, and a fine time step, that of the stencil.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import Snapshot, SolverFailed
from solvers.configs.gray_scott import GrayScottConfig
from solvers.numerics.spots import State, spots
from solvers.pdes.gray_scott import GrayScott, Source
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x)
GRIDS = [(8, 12), (12, 18), (18, 27)]  # float32 shows no smaller errors
DIFFUSION = np.array([2e-3, 1e-3])  # of u and v: strong, so that the stencil's error shows
FEED, KILL = 0.04, 0.06
PEARSON = {"F": FEED, "k": KILL}
WAVES = 2 * np.pi / np.array(LENGTH)  # one wave in each direction
RATE = 1.5  # rad per unit of time


def snapshots(
    grid: tuple[int, int],
    *,
    steps: int,
    dt: float,
    values: dict[str, float] = PEARSON,
    state: State | None = None,
    source: Source | None = None,
    petsc_options: str = "",
) -> list[Snapshot]:
    config = GrayScottConfig(
        grid=grid,
        steps=steps,
        dt=dt,
        length=LENGTH,
        diffusion_u=DIFFUSION[0],
        diffusion_v=DIFFUSION[1],
        petsc_options=petsc_options,
    )
    solver = GrayScott(config, state=state, source=source)
    found = list(solver.run(values, self_communicator()))
    solver.close()
    assert found[-1].time == pytest.approx(steps * dt)
    return found


def points(grid: tuple[int, int]) -> tuple[Array, Array]:
    """``(1, x)`` and ``(y, 1)``."""
    (ny, nx), (ly, lx) = grid, LENGTH
    return np.arange(nx)[None, :] * lx / nx, np.arange(ny)[:, None] * ly / ny


def wave(x: Array, y: Array) -> Array:
    """One wave for u, another for v, both eigenfunctions of the Laplacian and of its stencil."""
    ky, kx = WAVES
    return np.stack([np.cos(kx * x) * np.sin(ky * y), np.sin(kx * x) * np.cos(ky * y)])


def laplacian(grid: tuple[int, int] | None) -> float:
    """Eigenvalue of those waves: on a grid, or of the continuum."""
    if grid is None:
        return float(-np.sum(WAVES**2))
    h = np.array(LENGTH) / grid
    s = 4 * np.sin(WAVES * h / 2) ** 2
    return float(-np.sum((s + s * s / 12) / h**2))


def per_species(u: float, v: float) -> Array:
    return np.array([u, v]).reshape(2, 1, 1)


def manufactured(time: float, x: Array, y: Array) -> Array:
    swing = per_species(0.2 * np.cos(RATE * time), 0.1 * np.sin(RATE * time + 1))
    return np.asarray(per_species(0.6, 0.25) + swing * wave(x, y))


def source_for(grid: tuple[int, int] | None) -> Source:
    """What makes ``manufactured`` the solution."""

    def source(time: float, x: Array, y: Array) -> Array:
        u, v = fields = manufactured(time, x, y)
        change = RATE * per_species(-0.2 * np.sin(RATE * time), 0.1 * np.cos(RATE * time + 1))
        diffusion = DIFFUSION[:, None, None] * laplacian(grid) * (fields - per_species(0.6, 0.25))
        reaction = np.stack([-u * v**2 + FEED * (1 - u), u * v**2 - (FEED + KILL) * v])
        return np.asarray(change * wave(x, y) - diffusion - reaction)

    return source


def start(x: Array, y: Array) -> Array:
    return manufactured(0.0, x, y)


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def test_fourth_order_in_space_for_a_manufactured_solution() -> None:
    final, steps, errors = 4.0, 120, []
    for grid in GRIDS:
        *_, last = snapshots(
            grid, steps=steps, dt=final / steps, state=start, source=source_for(None)
        )
        exact = manufactured(final, *points(grid))
        errors.append([root_mean_square(e) for e in last.fields - exact])
    for species in zip(*errors, strict=True):
        assert_order(4.0, [1 / ny for ny, _ in GRIDS], species)


@pytest.mark.parametrize(
    ("options", "order", "counts"),
    [
        ("", 4.0, [12, 24, 48]),
        ("-ts_type cn -snes_rtol 1e-12 -ksp_rtol 1e-9", 2.0, [12, 24, 48]),
        ("-ts_type beuler -snes_rtol 1e-12 -ksp_rtol 1e-9", 1.0, [48, 96, 192]),
    ],
)
def test_order_in_time_for_a_manufactured_solution(
    options: str, order: float, counts: list[int]
) -> None:
    grid, final, errors = (12, 20), 6.0, []
    exact = manufactured(final, *points(grid))
    for steps in counts:
        *_, last = snapshots(
            grid,
            steps=steps,
            dt=final / steps,
            state=start,
            source=source_for(grid),
            petsc_options=options,
        )
        errors.append([root_mean_square(e) for e in last.fields - exact])
    for species in zip(*errors, strict=True):
        assert_order(order, [final / n for n in counts], species)


def test_without_v_a_wave_of_u_decays_at_its_own_rate() -> None:
    grid = (13, 20)
    x, y = points(grid)

    def only_u(x: Array, y: Array) -> Array:
        shape = wave(x, y)[0]
        return np.stack([1 - 0.4 * shape, 0 * shape])

    for snapshot in snapshots(grid, steps=40, dt=0.25, state=only_u):
        left = np.exp((DIFFUSION[0] * laplacian(grid) - FEED) * snapshot.time)
        np.testing.assert_allclose(snapshot.fields[0], 1 - 0.4 * left * wave(x, y)[0], atol=2e-7)
        np.testing.assert_array_equal(snapshot.fields[1], 0)


def test_without_feed_and_kill_the_sum_of_both_is_conserved() -> None:
    found = snapshots((13, 20), steps=75, dt=0.4, values={"F": 0.0, "k": 0.0})
    totals = [float(s.fields.sum(axis=0, dtype=np.float64).mean()) for s in found]
    assert np.ptp([s.fields[1].mean() for s in found]) > 0.01, "nothing reacted"
    np.testing.assert_allclose(totals, totals[0], rtol=1e-7)


def test_the_mean_changes_by_what_is_fed_and_washed_out() -> None:
    found = snapshots((13, 20), steps=80, dt=0.25)
    u, v = np.array([s.fields.mean(axis=(1, 2), dtype=np.float64) for s in found]).T
    flow = FEED * (1 - u) - (FEED + KILL) * v
    gained = np.cumsum((flow[1:] + flow[:-1]) / 2) * 0.25  # its error: 1e-6
    np.testing.assert_allclose((u + v)[1:] - (u + v)[0], gained, atol=2e-6)


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (5, 7)])
def test_the_field_is_periodic_and_no_point_is_special(shift: tuple[int, int]) -> None:
    grid = (13, 20)
    fields = np.random.default_rng(3).uniform(0.1, 0.9, (2, *grid))

    def last(start: Array) -> Array:
        return snapshots(grid, steps=20, dt=0.4, state=lambda x, y: start)[-1].fields

    expected, computed = last(fields), last(np.roll(fields, shift, (1, 2)))
    np.testing.assert_allclose(computed, np.roll(expected, shift, (1, 2)), rtol=3e-7)


def test_the_jacobian_is_that_of_the_right_hand_side() -> None:
    # Only with an exact one does Newton's method gain all these digits in four iterations.
    options = "-ts_type beuler -snes_rtol 1e-12 -snes_stol 0 -snes_max_it 4 -ksp_rtol 1e-12"
    found = snapshots((13, 20), steps=10, dt=1.0, petsc_options=options)
    assert len(found) == 11


@pytest.mark.parametrize("options", ["-ts_type cn -pc_type ilu", "-ts_type rk -ts_rk_type 3bs"])
def test_the_choice_of_scheme_hardly_shows_at_small_steps(options: str) -> None:
    expected = snapshots((13, 20), steps=40, dt=0.1)[-1].fields
    computed = snapshots((13, 20), steps=40, dt=0.1, petsc_options=options)[-1].fields
    np.testing.assert_allclose(computed, expected, atol=2e-5)


def test_the_limit_of_the_step_is_where_it_becomes_unstable() -> None:
    # Named explicitly, the scheme is not checked at load: the user has taken it over.
    grid, diffusion = (12, 20), 16 / 3 * 2e-3 * ((12 / 0.8) ** 2 + (20 / 1.3) ** 2)
    limit, allowed = 2.785 / diffusion, 2.785 / (diffusion + 0.3)  # no v here, so no reaction
    rough = np.random.default_rng(1).uniform(0.5, 1.0, (2, *grid)) * per_species(1.0, 0.0)
    quiet = snapshots(grid, steps=400, dt=0.99 * allowed, state=lambda x, y: rough)[-1]
    assert np.all(np.abs(quiet.fields) <= 1.0)
    with pytest.raises(SolverFailed, match=r"field is not finite at solver step \d+, time"):
        snapshots(
            grid,
            steps=4000,
            dt=1.1 * limit,
            state=lambda x, y: rough,
            petsc_options="-ts_type rk",
        )


@pytest.mark.parametrize("share", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_a_pattern_lives_in_every_corner_of_the_announced_range(share: tuple[float, float]) -> None:
    config = GrayScottConfig()
    values = {
        p.name: p.low + s * (p.high - p.low)
        for p, s in zip(config.parameters(), share, strict=True)
    }
    solver = GrayScott(config)
    *_, last = solver.run(values, self_communicator())
    solver.close()
    u, v = last.fields
    assert v.max() > 0.3, "died out"
    assert v.std() > 0.01, "uniform"
    assert u.min() > 0.0
    assert u.max() < 1.0 + 1e-6
    assert v.min() > -1e-6


def spectral(
    config: GrayScottConfig, *, points: int, dt: float, times: tuple[float, ...]
) -> dict[float, Array]:
    """v at some times: Fourier and Runge-Kutta 4, diffusion and decay integrated exactly."""
    (ly, lx), fraction = config.length, np.arange(points) / points
    start = spots(config.spots, width=config.spot_width, length=config.length, seed=config.seed)
    state = np.fft.rfft2(start(fraction[None, :] * lx, fraction[:, None] * ly))
    ky, kx = np.fft.fftfreq(points, ly / points), np.fft.rfftfreq(points, lx / points)
    squares = (2 * np.pi) ** 2 * np.add.outer(ky**2, kx**2)
    u, v = config.diffusion_u * squares + FEED, config.diffusion_v * squares + FEED + KILL
    half = np.exp(-np.stack([u, v]) * dt / 2)

    def rate(state: NDArray[np.complex128]) -> NDArray[np.complex128]:
        u, v = np.fft.irfft2(state)
        reaction = np.fft.rfft2(u * v * v)
        rates = np.stack([-reaction, reaction])
        rates[0, 0, 0] += FEED * points**2
        return rates

    found = {}
    for step in range(1, round(max(times) / dt) + 1):
        a = dt * rate(state)
        b = dt * rate(half * (state + a / 2))
        c = dt * rate(half * state + b / 2)
        d = dt * rate(half * (half * state + c))
        state = half * (half * (state + a / 6) + (b + c) / 3) + d / 6
        if step * dt in times:
            found[step * dt] = np.asarray(np.fft.irfft2(state)[1])
    return found


# As docs/study.md and the solver's docstring state them, in per cent of v's norm.
@pytest.mark.parametrize(
    ("settings", "points", "stated"),
    [
        ({}, 128, {250.0: 0.3, 500.0: 0.6}),
        ({"grid": (48, 48), "steps": 500, "dt": 1.0}, 96, {250.0: 1.0, 500.0: 1.8}),
        (
            {"length": (1.0, 1.0), "spots": 5, "steps": 750, "dt": 2.0},
            128,
            {240.0: 6.0, 500.0: 11.0, 1500.0: 48.0},
        ),
    ],
    ids=["default, 6 points a spot", "5 points", "3 points"],
)
def test_the_errors_of_default_and_advised_settings_are_those_described(
    settings: dict[str, object], points: int, stated: dict[float, float]
) -> None:
    config = GrayScottConfig.model_validate(settings)
    exact = spectral(config, points=points, dt=1.0, times=tuple(stated))
    solver = GrayScott(config)
    computed = {s.time: s.fields[1] for s in solver.run(PEARSON, self_communicator())}
    solver.close()
    coarser = points // config.grid[0]
    for time, percent in stated.items():
        v = exact[time][::coarser, ::coarser]
        error = 100 * np.linalg.norm(computed[time] - v) / np.linalg.norm(v)
        assert error == pytest.approx(percent, rel=0.1), f"at time {time:g}"
