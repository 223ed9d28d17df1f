"""The shallow water solver against exact solutions with shocks and shores, and what it conserves.

Stoker's and Ritter's dam breaks: Delestre et al., SWASHES, Int. J. Numer. Methods Fluids 72 (2013)
269, sections 4.1.1 and 4.1.2; Thacker's basin: section 4.2.2.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import Snapshot, SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.numerics.still_water import Start
from solvers.pdes.shallow_water import ShallowWater
from solvers.petsc import self_communicator

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
GRAVITY = 9.81
DAM = 10.0  # metres from the west wall, in the middle


def member(
    config: ShallowWaterConfig, values: dict[str, float], *, start: Start | None = None
) -> list[Snapshot]:
    """The rest of the parameters are at the low ends of their ranges."""
    solver = ShallowWater(config, start=start)
    given = {p.name: p.low for p in config.parameters()} | values
    found = list(solver.run(given, self_communicator()))
    solver.close()
    return found


def dam_break(cells: int, *, level_right: float) -> Snapshot:
    """1.5 s after the dam broke; no wave has reached a wall."""
    config = ShallowWaterConfig(
        grid=(3, cells), length=(60 / cells, 20.0), steps=10, dt=0.15, bottom="flat", initial="dam"
    )
    found = member(config, {"level_left": 1.0, "level_right": level_right, "dam_position": DAM})
    assert min(s.fields[0].min() for s in found) >= 0.0
    np.testing.assert_array_equal(found[-1].fields, found[-1].fields[:, :1].repeat(3, axis=1))
    return found[-1]


def rarefaction(speed: Array, level: float) -> tuple[Array, Array]:
    """Depth and velocity where x / t is that speed, between still water and a dry bed."""
    wave = np.sqrt(GRAVITY * level)
    inside = np.clip(speed, -wave, 2 * wave)
    return (2 * wave - inside) ** 2 / (9 * GRAVITY), 2 / 3 * (inside + wave)


def ritter(speed: Array) -> tuple[Array, Array]:
    """Depth and discharge behind a dam of 1 m, with a dry bed before it."""
    depth, velocity = rarefaction(speed, 1.0)
    return depth, depth * velocity


def stoker(speed: Array, *, right: float) -> tuple[Array, Array]:
    """The same with water before the dam: a rarefaction, a plateau and a bore."""
    low, high = right, 1.0
    for _ in range(60):
        plateau = (low + high) / 2
        falls = 2 * (np.sqrt(GRAVITY) - np.sqrt(GRAVITY * plateau))
        jumps = (plateau - right) * np.sqrt(GRAVITY / 2 * (1 / plateau + 1 / right))
        low, high = (plateau, high) if falls > jumps else (low, plateau)
    velocity = 2 * (np.sqrt(GRAVITY) - np.sqrt(GRAVITY * plateau))
    bore = plateau * velocity / (plateau - right)
    depth, run = rarefaction(np.minimum(speed, velocity - np.sqrt(GRAVITY * plateau)), 1.0)
    depth, run = np.where(speed < bore, depth, right), np.where(speed < bore, run, 0.0)
    return depth, depth * run


@pytest.mark.parametrize("level_right", [0.2, 0.0])
def test_a_dam_break_as_stoker_and_ritter_have_it(level_right: float) -> None:
    errors, cells = [], [50, 100, 200]
    for count in cells:
        snapshot = dam_break(count, level_right=level_right)
        speed = ((np.arange(count) + 0.5) * 20.0 / count - DAM) / snapshot.time
        exact = stoker(speed, right=level_right) if level_right else ritter(speed)
        errors.append(
            [
                float(np.abs(found[1] - expected).mean() / expected.mean())
                for found, expected in zip(snapshot.fields, exact, strict=False)
            ]
        )
    depths, discharges = zip(*errors, strict=True)
    # First order, as every scheme at a shock or at the kinks of a rarefaction.
    assert max(depths[-1], discharges[-1] / 4) < 0.005, errors
    for before, after in ((depths[0], depths[-1]), (discharges[0], discharges[-1])):
        assert np.log2(before / after) / 2 > 0.8, errors


def test_the_dry_side_of_a_dam_break_has_neither_water_nor_velocity() -> None:
    snapshot = dam_break(200, level_right=0.0)
    ahead = int((DAM + 2.05 * np.sqrt(GRAVITY) * snapshot.time) / 20.0 * 200)
    depth, discharge_x, discharge_y, _ = snapshot.fields[:, 1]
    assert ahead < 199
    assert depth[ahead:].max() < 1e-4
    assert np.abs(discharge_x[ahead:]).max() < 1e-4
    assert not discharge_y.any()


def thacker(x: Array, y: Array, time: float) -> Array:
    """A level disc of water that runs round in a paraboloid: its shore moves over every cell."""
    depth, radius, eccentricity = 0.1, 1.0, 0.5  # metres
    rate = np.sqrt(2 * GRAVITY * depth) / radius
    x, y = x - 2.0, y - 2.0
    bottom = depth * ((x**2 + y**2) / radius**2 - 1)
    turn = 2 * x * np.cos(rate * time) + 2 * y * np.sin(rate * time) - eccentricity
    water = np.maximum(eccentricity * depth / radius**2 * turn - bottom, 0.0)
    run = eccentricity * rate * water
    return np.stack([water, -run * np.sin(rate * time), run * np.cos(rate * time), bottom])


def test_the_shore_of_thackers_basin_comes_back_after_a_turn() -> None:
    period, errors = 2 * np.pi / np.sqrt(2 * GRAVITY * 0.1), []
    for count in (32, 64):
        config = ShallowWaterConfig(
            grid=(count, count), length=(4.0, 4.0), steps=20, dt=period / 20, gravity=GRAVITY
        )
        found = member(config, {}, start=lambda x, y: thacker(x, y, 0.0))
        assert min(s.fields[0].min() for s in found) == 0.0
        at = (np.arange(count) + 0.5) * 4.0 / count
        exact = thacker(at[None], at[:, None], period)
        errors.append(float(np.abs(found[-1].fields[0] - exact[0]).mean() / exact[0].mean()))
        masses = [s.fields[0].sum(dtype=np.float64) for s in found]
        np.testing.assert_allclose(masses, masses[0], rtol=1e-7)  # float32 snapshots
    assert errors[0] < 0.09, errors
    assert errors[1] < 0.03, errors


@pytest.mark.parametrize("bottom", ["bump", "slope"])
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_a_lake_at_rest_stays_at_rest(bottom: str, boundary: str) -> None:
    config = ShallowWaterConfig.model_validate(
        {"grid": (24, 40), "length": (60, 100), "steps": 40, "bottom": bottom, "boundary": boundary}
    )
    first, *_, last = member(config, {"height": 0.0, "level": 0.5, "bottom_height": 0.8})
    assert (first.fields[0] == 0).any(), "no island or beach"
    assert (first.fields[0] > 0.4).any()
    np.testing.assert_allclose(last.fields[0], first.fields[0], rtol=2e-7, atol=1e-12)
    assert np.abs(last.fields[1:3]).max() < 1e-12


@pytest.mark.parametrize("initial", ["dam", "hump"])
@pytest.mark.parametrize("boundary", ["walls", "periodic"])
def test_mass_and_bottom_are_the_same_in_every_snapshot(initial: str, boundary: str) -> None:
    config = ShallowWaterConfig.model_validate(
        {"grid": (24, 40), "length": (60, 100), "bottom": "slope", "steps": 60, "dt": 0.5}
        | {"initial": initial, "boundary": boundary}
    )
    found = member(config, {})
    masses = [s.fields[0].sum(dtype=np.float64) for s in found]
    np.testing.assert_allclose(masses, masses[0], rtol=1e-7)  # float32 snapshots
    for snapshot in found:
        np.testing.assert_array_equal(snapshot.fields[3], found[0].fields[3])
    assert np.ptp(found[0].fields[3]) > 0.9


def test_a_tsunami_floods_the_beach_and_runs_back() -> None:
    config = ShallowWaterConfig(
        grid=(24, 40), length=(60.0, 100.0), bottom="slope", steps=60, dt=0.5
    )
    values = {"level": 1.0, "height": 1.0, "x": 25.0, "y": 30.0, "width": 10.0}
    values |= {"bottom_height": 2.0, "bottom_start": 50.0}  # the shore is at 75 m
    wet = [int((s.fields[0] > 1e-3).sum()) for s in member(config, values)]
    assert max(wet) >= wet[0] + 24
    assert wet[-1] < max(wet)


def test_no_depth_is_negative_however_thin_the_water() -> None:
    # Films of 1e-17 m on a bottom whose own round-off is 1e-16 m: a face sees more than there is.
    def start(x: Array, y: Array) -> Array:
        rng = np.random.default_rng(3)
        state = rng.uniform(0.5, 1.0, (4, y.size, x.size))
        state[0] *= 1e-17
        state[1:3] = 0.0
        return state

    config = ShallowWaterConfig(grid=(13, 20), length=(13.0, 20.0), steps=10, dt=1e7)
    assert min(s.fields[0].min() for s in member(config, {}, start=start)) >= 0.0


def test_thin_water_keeps_no_discharge() -> None:
    def start(x: Array, y: Array) -> Array:
        film, discharge, nothing = 1e-6, 1e-3, 0.0
        return np.stack([value + 0 * x * y for value in (film, discharge, -discharge, nothing)])

    config = ShallowWaterConfig(grid=(5, 6), length=(5.0, 6.0), steps=1, dt=1e-6, thin=1e-4)
    first, last = member(config, {}, start=start)
    np.testing.assert_allclose(first.fields[1], 1e-3)
    np.testing.assert_allclose(last.fields[1], 2e-7, rtol=1e-2)  # 2 h^2 / (h^2 + thin^2) of it
    np.testing.assert_allclose(last.fields[2], -2e-7, rtol=1e-2)


def test_it_is_the_same_in_both_directions() -> None:
    settings: dict[str, object] = {"bottom": "bump", "steps": 20}
    lying = ShallowWaterConfig.model_validate({"grid": (20, 32), "length": (70, 100)} | settings)
    standing = ShallowWaterConfig.model_validate({"grid": (32, 20), "length": (100, 70)} | settings)
    values = {"level": 1.0, "height": 0.5, "width": 8.0, "bottom_height": 0.6, "bottom_width": 9.0}
    *_, one = member(lying, values | {"x": 40.0, "y": 30.0, "bottom_x": 60.0, "bottom_y": 45.0})
    *_, other = member(
        standing, values | {"x": 30.0, "y": 40.0, "bottom_x": 45.0, "bottom_y": 60.0}
    )
    swapped = other.fields[[0, 2, 1, 3]].swapaxes(1, 2)
    np.testing.assert_allclose(swapped, one.fields, rtol=1e-6, atol=1e-7)


def test_steps_follow_the_fastest_wave() -> None:
    config = ShallowWaterConfig(grid=(32, 32), bottom="flat", steps=2, dt=1.0)
    still = {"height": 0.0, "width": 5.0, "x": 50.0, "y": 50.0}
    shallow, deep = (member(config, still | {"level": level})[1] for level in (1.0, 16.0))
    assert shallow.iterations == np.ceil(np.sqrt(GRAVITY) * 2 * 32 / 100 / 0.45)
    assert deep.iterations == np.ceil(4 * np.sqrt(GRAVITY) * 2 * 32 / 100 / 0.45)
    dry = member(config, still | {"level": 0.0})
    assert [s.iterations for s in dry] == [0, 1, 1]
    assert not np.any(dry[-1].fields)


def test_a_step_that_turns_out_too_long_is_tried_again() -> None:
    # A discharge that a source makes out of rest within one step.
    config = ShallowWaterConfig(grid=(5, 12), length=(5.0, 12.0), steps=1, dt=0.05, bottom="flat")

    def source(time: float, x: Array, y: Array) -> Array:
        return np.stack([0 * x * y, 400.0 + 0 * x * y, 0 * x * y])

    solver = ShallowWater(config, source=source)
    values = {p.name: p.low for p in config.parameters()}
    first, last = solver.run(values, self_communicator())
    solver.close()
    assert first.refused == 0
    assert last.refused >= 1
    assert last.iterations >= 2
    assert last.fields[0].min() >= 0


def test_a_member_that_needs_too_many_steps_fails_alone() -> None:
    config = ShallowWaterConfig(grid=(32, 32), bottom="flat", dt=1.0, max_substeps=5, steps=2)
    solver = ShallowWater(config)
    values = {"height": 0.0, "width": 5.0, "x": 50.0, "y": 50.0, "level": 1.0}
    assert len(list(solver.run(values, self_communicator()))) == 3
    message = (
        r"^time step failed at solver step 1, time 1 s: dt=1 s needs 18 substeps, more than "
        r"max_substeps=5\. .* = 0\.0624 s \(fastest waves a_x=12.5 m/s, a_y=12.5 m/s, hx=3.12 m, "
        r"hy=3.12 m\)\. Reduce dt or the grid, or raise max_substeps$"
    )
    with pytest.raises(SolverFailed, match=message):
        list(solver.run(values | {"level": 16.0}, self_communicator()))
    assert len(list(solver.run(values, self_communicator()))) == 3
    solver.close()
