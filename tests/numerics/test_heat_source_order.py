"""The heat solver with a source against exact solutions: orders in space and time, its channel.

Between walls at 0 K the temperature is a sum of products of sines, of which each takes its own
share of the source: exact in space and time.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.configs.heat import HeatConfig
from solvers.pdes.heat import Heat
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTHS: dict[int, tuple[float, ...]] = {1: (1.3,), 2: (0.8, 1.3), 3: (0.9, 0.8, 1.3)}
FINER: dict[int, list[tuple[int, ...]]] = {
    1: [(20,), (40,), (80,)],
    2: [(12, 20), (24, 40), (48, 80)],
    3: [(7, 6, 10), (14, 12, 20), (28, 24, 40)],
}
DIFFUSIVITY = 0.1  # m^2/s
RATE, WIDTH = 2000.0, 0.15  # K/s, m
PLACE = {"x": 0.7, "y": 0.35, "z": 0.5}  # m
TERMS = 60


def config_of(grid: tuple[int, ...], *, steps: int, dt: float, **settings: object) -> HeatConfig:
    given = {"grid": grid, "steps": steps, "dt": dt, "length": LENGTHS[len(grid)]}
    return HeatConfig.model_validate(
        given | {"diffusivity": DIFFUSIVITY, "source": "gaussian"} | settings
    )


def values_of(config: HeatConfig, **changed: float) -> dict[str, float]:
    """Walls and initial state at 0 K, and the source."""
    values = dict.fromkeys([p.name for p in config.parameters()], 0.0)
    place = {f"source_{axis}": PLACE[axis] for axis in "xyz"[: len(config.grid)]}
    return values | place | {"source_rate": RATE, "source_width": WIDTH} | changed


def last_fields(config: HeatConfig, **changed: float) -> Array:
    solver = Heat(config)
    *_, last = solver.run(values_of(config, **changed), self_communicator())
    solver.close()
    return np.asarray(last.fields, np.float64)


def places(grid: tuple[int, ...]) -> list[Array]:
    """Cell centres of each axis, in the grid's order [m]."""
    return [
        (np.arange(n) + 0.5) * side / n for n, side in zip(grid, LENGTHS[len(grid)], strict=True)
    ]


def source_in_sines(axes: int) -> list[Array]:
    """The Gaussian's sine coefficients on each axis, in the grid's order."""
    found, points = [], 4000
    for axis, side in zip("xyz"[:axes][::-1], LENGTHS[axes], strict=True):
        along = (np.arange(points) + 0.5) * side / points
        spot = np.exp(-0.5 * ((along - PLACE[axis]) / WIDTH) ** 2)
        k = np.arange(1, TERMS)[:, None] * np.pi / side
        found.append(np.sin(k * along) @ spot * 2 / points)
    return found


def decay_rates(axes: int) -> list[Array]:
    """How fast each sine on each axis decays [1/s]."""
    k = np.arange(1, TERMS) * np.pi
    return [np.asarray(DIFFUSIVITY * (k / side) ** 2, np.float64) for side in LENGTHS[axes]]


def heated(grid: tuple[int, ...], rates: list[Array], spots: list[Array], time: float) -> Array:
    """What the source has made of 0 K: each product of sines fills up at its own rate of decay.

    Args:
        grid: Where to tell it.
        rates: Of decay of each sine on each axis [1/s].
        spots: Coefficients of the source on each axis.
        time: Since it began [s].
    """
    decay = sum(np.ix_(*rates), start=np.zeros(()))
    share = RATE * np.ones(())
    for spot in np.ix_(*spots):
        share = share * spot
    field = share * -np.expm1(-decay * time) / decay
    for axis, (along, side) in enumerate(zip(places(grid), LENGTHS[len(grid)], strict=True)):
        terms = np.arange(1, field.shape[axis] + 1)
        sines = np.sin(along[:, None] * terms * np.pi / side)
        field = np.moveaxis(np.tensordot(sines, field, axes=(1, axis)), 0, axis)
    return np.asarray(field)


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def test_the_series_is_the_closed_form_in_a_rod() -> None:
    # T'' = -q / a: twice the integral of a Gaussian, and a straight line that fits the ends.
    (side,), (x,) = LENGTHS[1], places((80,))

    def bent(at: float) -> float:
        r = (at - PLACE["x"]) / WIDTH
        rise = math.sqrt(math.pi / 2) * r * math.erf(r / math.sqrt(2)) + math.exp(-0.5 * r**2)
        return -RATE * WIDTH**2 / DIFFUSIVITY * rise

    exact = np.array([bent(at) for at in x]) - (bent(0.0) + (bent(side) - bent(0.0)) * x / side)
    series = heated((80,), decay_rates(1), source_in_sines(1), time=1e9)
    np.testing.assert_allclose(series, exact, rtol=1e-4)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("steps", "dt"), [(40, 5.0), (200, 0.25 / 200)])
def test_second_order_in_space_while_it_heats_and_in_the_end(
    axes: int, steps: int, dt: float
) -> None:
    errors = []
    for grid in FINER[axes]:
        exact = heated(grid, decay_rates(axes), source_in_sines(axes), time=steps * dt)
        computed, *_ = last_fields(config_of(grid, steps=steps, dt=dt))
        errors.append(root_mean_square(computed - exact))
    assert errors[-1] < 0.01 * exact.max(), errors
    assert_order(2.0, [1 / grid[-1] for grid in FINER[axes]], errors)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_second_order_in_time_while_it_heats(axes: int) -> None:
    # As many sines as there are cells are all that the grid can hold, and each is an eigenvector:
    # what is left is the error in time alone.
    grid, final = FINER[axes][1], 0.5
    rates, spots = [], []
    for axis, along, side in zip("xyz"[:axes][::-1], places(grid), LENGTHS[axes], strict=True):
        n = len(along)
        k = np.arange(1, n + 1)
        rates.append(4 * DIFFUSIVITY * (np.sin(k * np.pi / (2 * n)) * n / side) ** 2)
        sines = np.sin(along * k[:, None] * np.pi / side)
        spots.append(sines @ np.exp(-0.5 * ((along - PLACE[axis]) / WIDTH) ** 2) * 2 / n)
        spots[-1][-1] /= 2  # the last sine is +1 and -1 in turn
    exact = heated(grid, rates, spots, time=final)
    counts = [20, 40, 80, 160]
    errors = []
    for n in counts:
        computed, *_ = last_fields(config_of(grid, steps=n, dt=final / n))
        errors.append(root_mean_square(computed - exact))
    assert_order(2.0, [final / n for n in counts], errors)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_source_adds_to_what_the_walls_do(axes: int) -> None:
    config = config_of(FINER[axes][0], steps=5, dt=0.1)
    both, walls, source = (
        last_fields(config, **changed)
        for changed in (
            {"initial": 300.0, "east": 450.0},
            {"initial": 300.0, "east": 450.0, "source_rate": 0.0},
            {},
        )
    )
    assert source.max() > 10.0
    np.testing.assert_allclose(both, walls + source, rtol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_channel_of_the_source_is_the_heating_rate_at_the_cell_centres(axes: int) -> None:
    grid = FINER[axes][0]
    config = config_of(grid, steps=3, dt=0.1, source_field=True)
    assert config.spec().inputs == ("source",)
    temperature, source = last_fields(config)
    distance = sum(
        (along - PLACE[axis]) ** 2
        for axis, along in zip("xyz"[:axes][::-1], np.ix_(*places(grid)), strict=True)
    )
    np.testing.assert_allclose(source, RATE * np.exp(-0.5 * distance / WIDTH**2), rtol=1e-5)
    (alone,) = last_fields(config_of(grid, steps=3, dt=0.1))
    np.testing.assert_array_equal(temperature, alone)
