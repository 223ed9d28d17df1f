"""The Lorenz system against its exact solutions: order in time, decay, steady states, chaos."""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import SolverFailed
from solvers.configs.lorenz import LorenzConfig
from solvers.pdes.lorenz import Lorenz
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
CLASSICAL = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3, "x": 1.0, "y": 1.0, "z": 1.0}

GENTLE = {"sigma": 2.0, "rho": 28.0, "beta": 1.0, "x": 3.0, "y": -5.0, "z": 10.0}


def orbit(values: dict[str, float], *, steps: int, dt: float, petsc_options: str = "") -> Array:
    """All snapshots ``(step, xyz)``."""
    solver = Lorenz(LorenzConfig(steps=steps, dt=dt, petsc_options=petsc_options))
    snapshots = list(solver.run(values, self_communicator()))
    solver.close()
    assert [s.time for s in snapshots] == [step * dt for step in range(steps + 1)]
    return np.asarray([s.fields.ravel() for s in snapshots], np.float64)


@pytest.mark.parametrize(
    ("options", "order", "counts"),
    [
        ("", 4.0, (20, 40, 80)),
        ("-ts_type cn", 2.0, (80, 160, 320)),
        ("-ts_type bdf -ts_bdf_order 2", 2.0, (80, 160, 320)),
        ("-ts_type arkimex -ts_arkimex_fully_implicit", 3.0, (40, 80, 160)),
    ],
)
def test_order_in_time(options: str, order: float, counts: tuple[int, ...]) -> None:
    final = 1.0
    exact = orbit(GENTLE, steps=1000, dt=final / 1000, petsc_options="-ts_rk_type 8vr")[-1]
    errors = []
    for steps in counts:
        last = orbit(GENTLE, steps=steps, dt=final / steps, petsc_options=options)[-1]
        errors.append(float(np.linalg.norm(last - exact)))
    assert_order(order, [1 / steps for steps in counts], errors)


@pytest.mark.parametrize("options", ["", "-ts_rk_type 8vr"])
def test_an_exact_integral(options: str) -> None:
    # With beta = 2 sigma, x^2 - 2 sigma z decays exactly like exp(-2 sigma t).
    sigma, dt = 0.5, 0.005
    values = {"sigma": sigma, "rho": 20.0, "beta": 2 * sigma, "x": 3.0, "y": -5.0, "z": 10.0}
    x, _, z = orbit(values, steps=400, dt=dt, petsc_options=options).T
    exact = (9.0 - 2 * sigma * 10.0) * np.exp(-2 * sigma * dt * np.arange(401))
    np.testing.assert_allclose(x**2 - 2 * sigma * z, exact, atol=1e-5)


def test_the_axis_decays_exactly() -> None:
    states = orbit(CLASSICAL | {"x": 0.0, "y": 0.0, "z": 40.0}, steps=100, dt=0.01)
    np.testing.assert_array_equal(states[:, :2], 0.0)
    times = 0.01 * np.arange(101)
    np.testing.assert_allclose(states[:, 2], 40.0 * np.exp(-8 / 3 * times), rtol=1e-6)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_steady_states_stay(side: float) -> None:
    c = side * np.sqrt(8 / 3 * 27.0)
    states = orbit(CLASSICAL | {"x": c, "y": c, "z": 27.0}, steps=50, dt=0.01)
    np.testing.assert_allclose(states, states[:1].repeat(51, axis=0), rtol=1e-6)


def test_below_the_onset_an_orbit_ends_in_a_steady_state() -> None:
    last = orbit(CLASSICAL | {"rho": 10.0}, steps=3000, dt=0.01)[-1]
    np.testing.assert_allclose(np.abs(last), [24**0.5, 24**0.5, 9.0], rtol=1e-4)
    np.testing.assert_allclose(
        orbit(CLASSICAL | {"rho": 0.5}, steps=3000, dt=0.01)[-1], 0, atol=1e-4
    )


def test_the_classical_orbit_is_chaotic_on_the_butterfly() -> None:
    one = orbit(CLASSICAL, steps=3000, dt=0.01)
    other = orbit(CLASSICAL | {"x": 1.0 + 1e-6}, steps=3000, dt=0.01)
    apart = np.linalg.norm(one - other, axis=1)
    assert apart[100] < 1e-3
    assert apart[2500:].max() > 10.0
    assert np.abs(one).max() < 60.0
    assert one[:, 0].min() < -10.0 < 10.0 < one[:, 0].max()


def test_too_large_a_step_fails_and_is_never_yielded() -> None:
    with pytest.raises(SolverFailed, match=r"field is not finite at solver step \d+, time"):
        orbit(CLASSICAL, steps=100, dt=0.3)
