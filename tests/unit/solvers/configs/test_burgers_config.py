"""What a study may say about ``kind: burgers``, and what it is told when it says something else."""

import math

import pytest
from pydantic import ValidationError

from solvers.configs.burgers import BurgersConfig


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        BurgersConfig.model_validate(settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


def test_the_defaults_are_those_of_the_paper() -> None:
    config = BurgersConfig()
    assert (config.length, config.steps, config.terms, config.waves) == (16.0, 250, 5, 3)
    assert config.end_time == pytest.approx(4.0)
    assert config.max_snapshots == 251
    assert config.frequency == 0.4


def test_json_round_trip() -> None:
    config = BurgersConfig(grid=(40,), petsc_options="-ts_arkimex_type 4")
    assert BurgersConfig.model_validate_json(config.model_dump_json()) == config


def test_configs_are_frozen_and_hashable() -> None:
    config = BurgersConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    assert hash(config) == hash(BurgersConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [7]}, "grid=[7]: Value error, need at least 8 cells. Give at least [8]"),
        ({"grid": [64, 64]}, "grid=[64, 64]: "),
        ({"grid": [64.0]}, "grid.0=64.0: Input should be a valid integer"),
        ({"grid": 64}, "grid=64: Input should be a valid tuple"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
        ({"dt": math.nan}, "dt=nan: Input should be a finite number"),
        ({"length": -16.0}, "length=-16.0: Input should be greater than 0"),
        ({"terms": 0}, "terms=0: Input should be greater than or equal to 1"),
        ({"terms": 1001}, "terms=1001: Input should be less than or equal to 1000"),
        ({"waves": 0}, "waves=0: Input should be greater than or equal to 1"),
        ({"frequency": -0.1}, "frequency=-0.1: Input should be greater than or equal to 0"),
        ({"petsc_options": "ksp_type cg"}, "PETSc options start with '-'"),
        ({"alpha": 1.0}, "alpha=1.0: Extra inputs are not permitted"),
        ({"kind": "heat"}, "kind='heat': Input should be 'burgers'"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_one_channel_on_the_cells() -> None:
    spec = BurgersConfig(grid=(50,), length=4.0).spec()
    assert (spec.names, spec.units, spec.shape) == (("u",), ("1",), (50,))
    assert spec.spacing == pytest.approx((0.08,))


def test_the_ranges_cover_the_three_regimes() -> None:
    ranges = {p.name: (p.low, p.high) for p in BurgersConfig().parameters()}
    assert ranges == {
        "alpha": (0.0, 3.0),
        "beta": (0.0, 0.4),
        "gamma": (0.0, 1.0),
        "amplitude": (0.0, 0.5),
        "seed": (0.0, 1e6),
    }


def test_every_setting_says_its_unit_or_needs_none() -> None:
    for name, field in BurgersConfig.model_fields.items():
        if name not in ("kind", "petsc_options"):
            assert (field.description or "").endswith("]"), name
