"""What a study may say about a wave, and what it is told when it says something else."""

import math

import pytest
from pydantic import ValidationError

from solvers.base import SolverFailed
from solvers.configs.wave import WaveConfig
from solvers.pdes.wave import Wave
from solvers.petsc import self_communicator


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        WaveConfig.model_validate(settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


def test_json_round_trip() -> None:
    config = WaveConfig(
        grid=(24, 40), length=(0.8, 1.3), walls="free", petsc_options="-ksp_type cg"
    )
    assert WaveConfig.model_validate_json(config.model_dump_json()) == config


def test_configs_are_frozen_and_hashable() -> None:
    config = WaveConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    assert hash(config) == hash(WaveConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [2, 64]}, "need at least 3 points per axis (y, x). Give at least [3, 64]"),
        ({"grid": [64, 64.0]}, "grid.1=64.0: Input should be a valid integer"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
        ({"dt": math.nan}, "dt=nan: Input should be a finite number"),
        ({"length": [1.0, 0.0]}, "length.1=0.0: Input should be greater than 0"),
        ({"speed": -1.0}, "speed=-1.0: Input should be greater than 0"),
        ({"walls": "open"}, "walls='open': Input should be 'fixed' or 'free'"),
        ({"petsc_options": "ksp_type cg"}, "PETSc options start with '-'"),
        ({"gird": [64, 64]}, "gird=[64, 64]: Extra inputs are not permitted"),
        ({"kind": "heat"}, "kind='heat': Input should be 'wave'"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_what_is_announced() -> None:
    config = WaveConfig(grid=(24, 40), length=(1.2, 4.0), steps=7, dt=0.5)
    spec = config.spec()
    assert (spec.names, spec.units) == (("displacement", "velocity"), ("m", "m/s"))
    assert spec.sample_shape == (2, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_the_bump_keeps_away_from_the_walls_whatever_the_size() -> None:
    x, y, width, height = WaveConfig(length=(0.5, 3.0)).parameters()
    assert [p.name for p in (x, y, width, height)] == ["x", "y", "width", "height"]
    assert {p.unit for p in (x, y, width, height)} == {"m"}
    for place, length in ((x, 3.0), (y, 0.5)):
        assert min(place.low, length - place.high) >= 3.75 * width.high - 1e-12
    assert width.low > 0


def test_every_setting_says_its_unit_or_needs_none() -> None:
    fields = WaveConfig.model_fields
    for name in ("grid", "steps", "dt", "length", "speed"):
        assert (fields[name].description or "").endswith("]"), name


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
