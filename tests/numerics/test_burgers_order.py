"""The Burgers family against a spectral reference: orders, regimes, shocks, conservation.

Orders are fitted in double precision on the line itself; what the solver streams is float32.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.configs.burgers import BurgersConfig
from solvers.numerics.periodic_line import PeriodicLine
from solvers.numerics.sines import Sines
from solvers.pdes.burgers import Burgers, advection, linear_stencil, weno
from solvers.petsc import Owned, self_communicator
from tests.numerics import spectral_line
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
Coefficients = tuple[float, float, float]  # alpha, beta, gamma
LENGTH = 16.0
FINE = 512  # points of the reference
E1, E2, E3 = (1.0, 0.0, 0.0), (1.0, 0.2, 0.0), (1.0, 0.2, 0.6)


def forcing(waves: int) -> Sines:
    """Smooth, and before any shock at the times below."""
    return Sines.draw(3.0, amplitude=0.5, frequency=0.4, waves=waves, terms=5, length=LENGTH)


def reference(coefficients: Coefficients, sines: Sines, final: float) -> spectral_line.Complex:
    alpha, beta, gamma = coefficients
    delta = sines.on(np.arange(FINE) * LENGTH / FINE)
    k = spectral_line.wavenumbers(FINE, LENGTH)
    return spectral_line.solve(
        delta(0.0),
        symbol=-beta * k**2 + 1j * gamma * k**3,
        explicit=lambda t, u: -1j * k * alpha * spectral_line.squared(u) + np.fft.rfft(delta(t)),
        final=final,
        steps=800,
    )


def on_line(
    coefficients: Coefficients, sines: Sines, cells: int, *, steps: int, final: float
) -> Array:
    (alpha, beta, gamma), h, dt = coefficients, LENGTH / cells, final / steps
    with Owned() as owned:
        line = PeriodicLine(cells, "", self_communicator(), owned)
        delta = sines.averaged(h).on(line.cells(h))
        line.set_linear(linear_stencil(beta, gamma, h))
        line.start(delta(0.0), advection(alpha, h, delta), dt=dt)
        for step in range(1, steps + 1):
            line.advance(step, dt=dt, courant=lambda u: 2 * alpha * u * dt / h)
        return line.values


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


@pytest.mark.parametrize(
    ("coefficients", "waves", "order", "grids", "steps"),
    [
        (E1, 1, 5.0, (64, 128, 256), 250),
        (E2, 1, 5.0, (64, 96, 128), 250),
        (E3, 1, 4.0, (64, 96, 128), 250),
    ],
    ids=["E1", "E2", "E3"],
)
def test_order_in_space(
    coefficients: Coefficients, waves: int, order: float, grids: tuple[int, ...], steps: int
) -> None:
    sines, final = forcing(waves), 1.0
    exact = reference(coefficients, sines, final)
    errors = [
        root_mean_square(
            on_line(coefficients, sines, cells, steps=steps, final=final)
            - spectral_line.at_cells(exact, cells, length=LENGTH, means=True)
        )
        for cells in grids
    ]
    assert_order(order, [1 / cells for cells in grids], errors)


@pytest.mark.parametrize("coefficients", [(0.0, 0.4, 1.0), (1.0, 0.3, 0.5)], ids=["linear", "E3"])
def test_third_order_in_time(coefficients: Coefficients) -> None:
    # On one grid: what is left is the error in time. dt keeps each interval at a single step.
    sines, final, cells, counts = forcing(3), 2.0, 32, (80, 160, 320)
    exact = on_line(coefficients, sines, cells, steps=2000, final=final)
    errors = [
        root_mean_square(on_line(coefficients, sines, cells, steps=n, final=final) - exact)
        for n in counts
    ]
    assert_order(3.0, [1 / n for n in counts], errors)


def test_fifth_order_of_the_reconstruction() -> None:
    errors, grids = [], (40, 80, 160)
    for cells in grids:
        h = 2 * np.pi / cells
        faces = (np.arange(-3, cells + 3) + 1) * h  # the right end of each cell
        points, weights = np.polynomial.legendre.leggauss(8)
        inside = faces[:, None] + (points - 1) * h / 2
        means = np.exp(np.sin(inside)) @ weights / 2
        at_faces = weno(np.stack([means, means]))[0]
        errors.append(root_mean_square(at_faces - np.exp(np.sin(faces[2:-3]))))
    assert_order(5.0, [1 / cells for cells in grids], errors)


def streamed(values: dict[str, float], **settings: object) -> Array:
    """All snapshots ``(step, x)``."""
    solver = Burgers(BurgersConfig.model_validate(settings))
    fields = [s.fields[0] for s in solver.run(values, self_communicator())]
    solver.close()
    return np.asarray(fields, np.float64)


@pytest.mark.parametrize("coefficients", [E1, E2, E3, (0.0, 0.0, 0.0)])
def test_what_is_streamed_is_the_reference(coefficients: Coefficients) -> None:
    values = dict(zip(("alpha", "beta", "gamma"), coefficients, strict=True))
    fields = streamed(
        values | {"amplitude": 0.5, "seed": 3.7}, grid=[100], steps=50, dt=0.02, waves=1
    )
    exact = reference(coefficients, forcing(1), 1.0)
    cells = spectral_line.at_cells(exact, 100, length=LENGTH, means=True)
    np.testing.assert_allclose(fields[-1], cells, atol=2e-5)
    np.testing.assert_allclose(fields[0], forcing(1).averaged(0.16).on(x_of(100))(0.0), atol=1e-7)


def x_of(cells: int) -> Array:
    return np.asarray((np.arange(cells) + 0.5) * LENGTH / cells)


@pytest.mark.parametrize("coefficients", [(3.0, 0.0, 0.0), (3.0, 0.4, 1.0), (0.5, 0.0, 1.0)])
def test_the_mean_stays_zero(coefficients: Coefficients) -> None:
    sines = forcing(3)
    values = on_line(coefficients, sines, 50, steps=100, final=4.0)
    assert np.abs(values).max() > 0.1
    assert abs(values.mean()) < 1e-14


def test_shocks_do_not_ring() -> None:
    # Long after the first shock: each step downwards is a few cells wide, and nothing overshoots.
    case = {"alpha": 1.0, "beta": 0.0, "gamma": 0.0, "amplitude": 0.5, "seed": 0.0}
    coarse, fine = streamed(case), streamed(case, grid=[400])
    assert np.diff(fine[-1]).min() < -0.5, "no shock: the test sees nothing"
    for snapshot, finer in zip(coarse[::25], fine[::25], strict=True):
        means = finer.reshape(100, 4).mean(axis=1)
        assert snapshot.max() <= finer.max() + 0.02
        assert snapshot.min() >= finer.min() - 0.02
        assert variation(snapshot) <= variation(finer) * 1.02
        assert np.abs(snapshot - means).mean() < 0.03  # a shock is lost within its own cell


def variation(values: Array) -> float:
    return float(np.abs(np.diff(values, append=values[:1])).sum())


@pytest.mark.parametrize(
    ("left", "right", "flux"),
    [(1.0, 0.5, 1.0), (-0.5, -1.0, 1.0), (1.0, -2.0, 4.0), (-1.0, 1.0, 0.0), (0.0, 0.0, 0.0)],
)
def test_the_flux_is_godunovs(left: float, right: float, flux: float) -> None:
    # Two constant states: the cells beside the jump lose and gain what flows through it.
    ghosted = np.where(np.arange(14) < 7, left, right)
    rate = advection(1.0, 1.0, lambda _time: np.zeros(8))(0.0, ghosted)
    assert rate[3] == pytest.approx(left**2 - flux, abs=1e-12)
    assert rate[4] == pytest.approx(flux - right**2, abs=1e-12)
    np.testing.assert_allclose(np.delete(rate, [3, 4]), 0.0, atol=1e-12)


def test_long_intervals_are_divided() -> None:
    case = {"alpha": 3.0, "beta": 0.4, "gamma": 0.0, "amplitude": 0.5, "seed": 1.0}
    whole = streamed(case, steps=5, dt=0.5)
    small = streamed(case, steps=500, dt=0.005)
    np.testing.assert_allclose(whole, small[::100], atol=2e-3)
