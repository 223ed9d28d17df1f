"""2-D flow against exact and manufactured solutions: fitted orders, decay, what is conserved.

A source is added for which the solution is known. Its waves are eigenfunctions of the stencils as
well, so that with the grid's own operators in the source the error is that of the time scheme
alone, and with the true ones, and a fine time step, that of the space scheme.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import Snapshot, SolverFailed
from solvers.configs.navier_stokes import NavierStokesConfig
from solvers.configs.random_fields import GaussianFieldConfig
from solvers.numerics.arakawa import jacobian
from solvers.pdes.navier_stokes import Initial, NavierStokes, Source
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x)
KY, KX = 2 * np.pi / np.array(LENGTH)  # of one wave in each direction
GRIDS = [(24, 40), (48, 80), (96, 160)]
FEW_MODES = GaussianFieldConfig(length_scale=0.2, smoothness=2.5, modes=5)
STILL = {"viscosity": 1e-3, "forcing": 0.0, "seed": 3.0}
RATE = 1.1  # rad/s


def snapshots(
    grid: tuple[int, int], *, steps: int, dt: float, values: dict[str, float] = STILL,
    initial: Initial | None = None, source: Source | None = None,
    length: tuple[float, float] = LENGTH, petsc_options: str = "",
) -> list[Snapshot]:  # fmt: skip
    config = NavierStokesConfig(
        grid=grid, steps=steps, dt=dt, length=length, initial=FEW_MODES, petsc_options=petsc_options
    )
    solver = NavierStokes(config, initial=initial, source=source)
    found = list(solver.run(values, self_communicator()))
    solver.close()
    assert found[-1].time == pytest.approx(steps * dt)
    return found


def points(grid: tuple[int, int], length: tuple[float, float] = LENGTH) -> tuple[Array, Array]:
    """``(1, x)`` and ``(y, 1)``."""
    (ny, nx), (ly, lx) = grid, length
    return np.arange(nx)[None, :] * lx / nx, np.arange(ny)[:, None] * ly / ny


def laplacian(ky: float, kx: float, grid: tuple[int, int] | None) -> float:
    """Eigenvalue of a wave: on a grid, or of the continuum."""
    if grid is None:
        return -(ky**2 + kx**2)
    h, k = np.array(LENGTH) / grid, np.array([ky, kx])
    return float(-np.sum((2 / h * np.sin(k * h / 2)) ** 2))


def waves(x: Array, y: Array) -> tuple[Array, Array]:
    """Two stream functions [m^2/s] with different eigenvalues: they carry each other about."""
    return 0.02 * np.sin(KX * x) * np.cos(KY * y), 0.015 * np.cos(2 * KX * x + KY * y)


def swings(time: float) -> tuple[float, float]:
    return np.cos(RATE * time), np.sin(RATE * time + 1)


def manufactured(time: float, x: Array, y: Array, grid: tuple[int, int] | None = None) -> Array:
    """Vorticity."""
    (one, two), (first, second) = waves(x, y), swings(time)
    rates = laplacian(KY, KX, grid), laplacian(KY, 2 * KX, grid)
    return np.asarray(-rates[0] * first * one - rates[1] * second * two)


def carried(x: Array, y: Array, grid: tuple[int, int] | None) -> Array:
    """J(one, two)."""
    if grid is not None:
        one, two = (np.pad(wave, 1, mode="wrap") for wave in waves(x, y))
        return jacobian(one, two, area=LENGTH[0] * LENGTH[1] / (grid[0] * grid[1]))
    turned = -0.015 * np.sin(2 * KX * x + KY * y)
    one_x, one_y = (
        0.02 * KX * np.cos(KX * x) * np.cos(KY * y),
        -0.02 * KY * np.sin(KX * x) * np.sin(KY * y),
    )
    return np.asarray(one_x * KY * turned - one_y * 2 * KX * turned)


def source_for(grid: tuple[int, int] | None, viscosity: float) -> Source:
    """What makes ``manufactured`` the solution."""
    rates = laplacian(KY, KX, grid), laplacian(KY, 2 * KX, grid)

    def source(x: Array, y: Array, time: float) -> Array:
        (one, two), (first, second) = waves(x, y), swings(time)
        change = (RATE * np.sin(RATE * time) * rates[0] * one) - (
            RATE * np.cos(RATE * time + 1) * rates[1] * two
        )
        diffusion = -viscosity * (rates[0] ** 2 * first * one + rates[1] ** 2 * second * two)
        # -J(psi, w), of which only the products of different waves are left.
        advection = (rates[1] - rates[0]) * first * second * carried(x, y, grid)
        return np.asarray(change - diffusion + advection)

    return source


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def test_second_order_in_space_for_a_manufactured_solution() -> None:
    final, steps, errors, viscosity = 1.2, 24, [], 2e-3
    for grid in GRIDS:
        *_, last = snapshots(
            grid, steps=steps, dt=final / steps, values=STILL | {"viscosity": viscosity},
            initial=lambda x, y: manufactured(0.0, x, y), source=source_for(None, viscosity),
        )  # fmt: skip
        errors.append(root_mean_square(last.fields[0] - manufactured(final, *points(grid))))
    assert_order(2.0, [1 / ny for ny, _ in GRIDS], errors)


def test_the_manufactured_solution_depends_on_advection() -> None:
    grid = (24, 40)
    x, y = points(grid)
    still = np.abs(source_for(None, 2e-3)(x, y, 0.4)).max()
    change = laplacian(KY, 2 * KX, None) - laplacian(KY, KX, None)
    moving = np.abs(change * np.prod(swings(0.4)) * carried(x, y, None)).max()
    assert moving > 0.2 * still


def test_fourth_order_in_time_for_a_manufactured_solution() -> None:
    # Fast waves: the error has to show in float32 (1e-7 of the field).
    grid, final, errors, viscosity, counts = (12, 20), 4.0, [], 1e-3, (16, 32, 64)
    exact = manufactured(final, *points(grid), grid)
    for steps in counts:
        found = snapshots(
            grid, steps=steps, dt=final / steps, values=STILL | {"viscosity": viscosity},
            initial=lambda x, y: manufactured(0.0, x, y, grid), source=source_for(grid, viscosity),
        )  # fmt: skip
        assert max(s.iterations for s in found) == 4, "an interval is one step"
        errors.append(root_mean_square(found[-1].fields[0] - exact))
    assert_order(4.0, [final / n for n in counts], errors)


def test_taylor_green_vortices_decay_at_the_rate_of_the_stencil() -> None:
    grid, viscosity = (12, 20), 2e-3
    x, y = points(grid)
    shape = np.sin(KX * x) * np.cos(KY * y)
    found = snapshots(
        grid, steps=10, dt=0.2, values=STILL | {"viscosity": viscosity},
        initial=lambda x, y: 1.5 * shape,
    )  # fmt: skip
    for snapshot in found:
        left = 1.5 * np.exp(viscosity * laplacian(KY, KX, grid) * snapshot.time)
        np.testing.assert_allclose(snapshot.fields[0], left * shape, atol=1e-6)


def test_the_forcing_is_balanced_by_viscosity_in_the_end() -> None:
    # One wave along the diagonal does not carry itself: w = f / (nu |k|^2).
    grid, values = (12, 20), {"viscosity": 0.02, "forcing": 0.3, "seed": 0.0}
    x, y = points(grid)
    *_, last = snapshots(
        grid, steps=10, dt=2.0, values=values, initial=lambda x, y: np.zeros((y.size, x.size))
    )
    angle = KX * x + KY * y
    exact = 0.3 * (np.sin(angle) + np.cos(angle)) / (-0.02 * laplacian(KY, KX, grid))
    np.testing.assert_allclose(last.fields[0], exact, atol=2e-6 * np.abs(exact).max())


def energy_and_enstrophy(grid: tuple[int, int], w: Array) -> tuple[float, float]:
    """Means of u^2 and w^2, with the stencil's stream function."""
    h = np.array(LENGTH) / grid
    k = [np.pi * np.fft.fftfreq(n) for n in grid]
    eigenvalues = (2 / h[0] * np.sin(k[0][:, None])) ** 2 + (2 / h[1] * np.sin(k[1])) ** 2
    eigenvalues[0, 0] = np.inf
    psi = np.fft.ifft2(np.fft.fft2(w) / eigenvalues).real
    return float(np.mean(psi * w)), float(np.mean(w**2))


def test_without_viscosity_energy_and_enstrophy_are_conserved() -> None:
    # By the space scheme, that is: the time scheme's share falls like dt^5 and more.
    grid, lost = (24, 40), []
    values = {"viscosity": 0.0, "forcing": 0.0, "seed": 5.0}
    for steps in (80, 160):
        found = snapshots(grid, steps=steps, dt=8.0 / steps, values=values)
        first, *_, last = (s.fields[0].astype(np.float64) for s in found)
        assert root_mean_square(last - first) > 0.5 * root_mean_square(first), "nothing moved"
        before, after = energy_and_enstrophy(grid, first), energy_and_enstrophy(grid, last)
        lost.append([abs(1 - b / a) for a, b in zip(before, after, strict=True)])
    assert max(lost[1]) < 1e-4
    assert max(lost[1]) < max(lost[0]) / 16


def test_the_mean_stays_zero_whatever_it_was_given() -> None:
    grid = (24, 40)
    for snapshot in snapshots(
        grid, steps=10, dt=0.5, values=STILL | {"forcing": 0.2},
        initial=lambda x, y: 7.0 + 2 * np.sin(KX * x) * np.cos(2 * KY * y) + np.cos(KX * x),
    ):  # fmt: skip
        assert abs(snapshot.fields.mean(dtype=np.float64)) < 1e-7


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (5, 7)])
def test_the_flow_is_periodic_and_no_point_is_special(shift: tuple[int, int]) -> None:
    grid = (13, 20)
    fields = np.random.default_rng(3).normal(size=grid)

    def last(start: Array) -> Array:
        found = snapshots(grid, steps=10, dt=0.05, initial=lambda x, y: start)
        return np.asarray(found[-1].fields[0])

    expected, computed = last(fields), last(np.roll(fields, shift, (0, 1)))
    np.testing.assert_allclose(computed, np.roll(expected, shift, (0, 1)), atol=2e-6)


@pytest.mark.parametrize("options", ["-ksp_type cg -pc_type gamg", "-ksp_type cg -pc_type icc"])
def test_the_choice_of_solver_does_not_show(options: str) -> None:
    values = STILL | {"forcing": 0.1}
    expected = snapshots((24, 40), steps=10, dt=0.2, values=values)
    found = snapshots((24, 40), steps=10, dt=0.2, values=values, petsc_options=options)
    assert found[5].iterations > expected[5].iterations > 0
    np.testing.assert_allclose(found[-1].fields, expected[-1].fields, atol=1e-6)


def test_an_interval_has_as_many_steps_as_stability_asks_for() -> None:
    # 2 s at up to 3 cells a second and more would not be stable in one step.
    fine = snapshots((24, 40), steps=40, dt=0.05)
    coarse = snapshots((24, 40), steps=1, dt=2.0)
    assert coarse[-1].iterations > 4
    np.testing.assert_allclose(coarse[-1].fields, fine[-1].fields, atol=0.02)
    assert np.abs(fine[-1].fields).max() > 1.0


def test_a_flow_that_is_too_fast_is_refused_with_what_to_do() -> None:
    with pytest.raises(SolverFailed, match=r"too fast at solver step 1, time 1 s: .* Reduce dt"):
        snapshots((12, 20), steps=2, dt=1.0, values=STILL | {"viscosity": 1e3})


def test_the_benchmark_on_two_grids_is_the_same_flow() -> None:
    values = {"viscosity": 1e-3, "forcing": 0.1, "seed": 3.0}
    config = NavierStokesConfig(steps=5, dt=2.0)
    fields = []
    for n in (48, 96):
        solver = NavierStokes(config.model_copy(update={"grid": (n, n)}))
        *_, last = solver.run(values, self_communicator())
        solver.close()
        fields.append(last.fields[0, :: n // 48, :: n // 48])
    np.testing.assert_allclose(fields[0], fields[1], atol=0.01 * np.abs(fields[1]).max())
