"""What a study may say about a wave, and what it is told when it says something else."""

import math

import pytest

from solvers.base import SolverFailed
from solvers.configs.wave import WaveConfig
from solvers.pdes.wave import Wave
from solvers.petsc import self_communicator


def test_what_is_announced() -> None:
    config = WaveConfig(grid=(24, 40), length=(1.2, 4.0), steps=7, dt=0.02)
    spec = config.spec()
    assert (spec.names, spec.units) == (("displacement", "velocity"), ("m", "m/s"))
    assert spec.sample_shape == (2, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (8, 0.14)


def test_the_bump_keeps_away_from_the_walls_whatever_the_size() -> None:
    x, y, width, height = WaveConfig(length=(0.5, 3.0), dt=0.005).parameters()
    assert [p.name for p in (x, y, width, height)] == ["x", "y", "width", "height"]
    assert {p.unit for p in (x, y, width, height)} == {"m"}
    for place, length in ((x, 3.0), (y, 0.5)):
        assert min(place.low, length - place.high) >= 3.75 * width.high - 1e-12
    assert width.low > 0


@pytest.mark.petsc
@pytest.mark.parametrize("width", [0.0, -0.1])
def test_a_bump_without_width_fails_the_member(width: float) -> None:
    solver = Wave(WaveConfig(grid=(10, 20)))
    with pytest.raises(SolverFailed, match=rf"width={width:g} m: .* at least 3 cells \(0.3 m\)"):
        solver.run({"x": 0.5, "y": 0.5, "width": width, "height": 1.0}, self_communicator())
    solver.close()


@pytest.mark.petsc
def test_a_member_starts_at_rest_with_the_bump_where_its_parameters_say() -> None:
    solver = Wave(WaveConfig(grid=(20, 40), length=(1.0, 2.0)))
    values = {"x": 1.325, "y": 0.625, "width": 0.1, "height": 0.7}
    displacement, velocity = next(solver.run(values, self_communicator())).fields
    solver.close()
    assert displacement[12, 26] == pytest.approx(0.7)
    assert displacement[12, 28] == pytest.approx(0.7 * math.exp(-0.5))
    assert displacement[14, 26] == pytest.approx(0.7 * math.exp(-0.5))
    assert not velocity.any()


@pytest.mark.petsc
def test_a_member_ends_when_the_next_one_begins() -> None:
    solver = Wave(WaveConfig(grid=(10, 20)))
    values = {"x": 0.5, "y": 0.5, "width": 0.1, "height": 1.0}
    first = solver.run(values, self_communicator())
    next(first)
    solver.run(values, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)
    solver.close()


@pytest.mark.petsc
def test_a_snapshot_says_how_many_iterations_it_took() -> None:
    values = {"x": 0.5, "y": 0.5, "width": 0.1, "height": 1.0}
    for options, least in (("", 1), ("-ksp_type cg -pc_type none", 2)):
        solver = Wave(WaveConfig(grid=(10, 20), steps=3, petsc_options=options))
        first, *later = (s.iterations for s in solver.run(values, self_communicator()))
        solver.close()
        assert first == 0
        assert min(later) >= least
        assert options or later == [1, 1, 1]
