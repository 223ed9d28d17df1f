"""What a study may set about the cavity, and what it is told when it says something else."""

import math

import pytest
from pydantic import ValidationError

from solvers.configs.cavity import CavityConfig


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        CavityConfig.model_validate({"kind": "cavity"} | settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [2, 64]}, "need at least 3 points per axis (y, x). Give at least [3, 64]"),
        ({"grid": [64, 64, 64]}, "grid=[64, 64, 64]: "),
        ({"grid": [64, 64.0]}, "grid.1=64.0: Input should be a valid integer"),
        ({"mode": "laminar"}, "mode='laminar': Input should be 'unsteady' or 'steady'"),
        ({"lid": "smooth"}, "lid='smooth': Input should be 'uniform' or 'regularised'"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
        ({"dt": math.nan}, "dt=nan: Input should be a finite number"),
        ({"length": [1.0, 0.0]}, "length.1=0.0: Input should be greater than 0"),
        ({"length": [math.inf, 1.0]}, "length.0=inf: Input should be a finite number"),
        ({"petsc_options": "ksp_type gmres"}, "PETSc options start with '-'"),
        ({"reynolds": 100}, "reynolds=100: Extra inputs are not permitted"),
        ({"kind": "heat"}, "kind='heat': Input should be 'cavity'"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_json_round_trip() -> None:
    config = CavityConfig(mode="steady", grid=(24, 40), length=(0.8, 1.3), lid="regularised")
    assert CavityConfig.model_validate_json(config.model_dump_json()) == config
    assert hash(config) == hash(config.model_copy())


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CavityConfig().steps = 3


def test_the_walls_are_one_spacing_beyond_the_outermost_points() -> None:
    spec = CavityConfig(grid=(24, 39), length=(1.25, 4.0)).spec()
    assert spec.sample_shape == (3, 24, 39)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (spec.names, spec.units) == (("u", "v", "vorticity"), ("m/s", "m/s", "1/s"))


def test_unsteady_snapshots_are_dt_apart() -> None:
    config = CavityConfig(steps=7, dt=0.2)
    assert config.max_snapshots == 8
    assert config.end_time == pytest.approx(1.4)
    assert config.time_of(0) == 0.0


def test_steady_snapshots_are_shares_of_the_lid_speed() -> None:
    config = CavityConfig(mode="steady", steps=4, dt=0.2)
    assert config.max_snapshots == 5
    assert [config.time_of(step) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert config.end_time == 1.0


def test_a_member_is_told_its_reynolds_number_and_lid_speed() -> None:
    reynolds, lid_speed = CavityConfig().parameters()
    assert (reynolds.name, reynolds.unit, reynolds.low, reynolds.high) == (
        "reynolds", "1", 10.0, 1000.0,
    )  # fmt: skip
    assert (lid_speed.name, lid_speed.unit) == ("lid_speed", "m/s")
    assert lid_speed.low > 0.0


def test_every_setting_says_its_unit_or_needs_none() -> None:
    described = {name: field.description or "" for name, field in CavityConfig.model_fields.items()}
    for name in ("mode", "grid", "steps", "dt", "length", "lid"):
        assert described[name].endswith("]"), described[name]
