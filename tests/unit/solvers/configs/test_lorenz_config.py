"""What a study may say about ``kind: lorenz``, and what it is told when it says something else."""

import math

import pytest
from pydantic import ValidationError

from solvers.configs.lorenz import LorenzConfig


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        LorenzConfig.model_validate(settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


def test_json_round_trip() -> None:
    config = LorenzConfig(steps=7, petsc_options="-ts_type bdf")
    assert LorenzConfig.model_validate_json(config.model_dump_json()) == config


def test_configs_are_frozen_and_hashable() -> None:
    config = LorenzConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    assert hash(config) == hash(LorenzConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"steps": 2.0}, "steps=2.0: Input should be a valid integer"),
        ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
        ({"dt": math.inf}, "dt=inf: Input should be a finite number"),
        ({"petsc_options": "ts_type bdf"}, "PETSc options start with '-'"),
        ({"grid": [1]}, "grid=[1]: Extra inputs are not permitted"),
        ({"kind": "heat"}, "kind='heat': Input should be 'lorenz'"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_three_channels_at_one_point() -> None:
    config = LorenzConfig(steps=7, dt=0.5)
    spec = config.spec()
    assert spec.names == ("x", "y", "z")
    assert spec.sample_shape == (3, 1)
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_the_ranges_hold_the_classical_values() -> None:
    ranges = {p.name: (p.low, p.high) for p in LorenzConfig().parameters()}
    assert list(ranges) == ["sigma", "rho", "beta", "x", "y", "z"]
    for name, value in (("sigma", 10.0), ("rho", 28.0), ("beta", 8 / 3)):
        assert ranges[name][0] < value < ranges[name][1]


def test_every_setting_says_its_unit_or_needs_none() -> None:
    for name, field in LorenzConfig.model_fields.items():
        if name not in ("kind", "petsc_options"):
            assert (field.description or "").endswith("]"), name
