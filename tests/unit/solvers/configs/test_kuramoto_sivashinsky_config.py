"""What a study may say about ``kind: kuramoto_sivashinsky``, and what it is told otherwise."""

import math

import pytest
from pydantic import ValidationError

from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig as Config


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


def test_json_round_trip() -> None:
    config = Config(grid=(64,), length=22.0, petsc_options="-ts_arkimex_type 4")
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_configs_are_frozen_and_hashable() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    assert hash(config) == hash(Config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [7], "length": 5.0}, "need at least 8 points. Give at least [8]"),
        ({"grid": [64, 64]}, "grid=[64, 64]: "),
        ({"grid": [True]}, "grid.0=True: Input should be a valid integer"),
        ({"grid": [32], "length": 64.5}, "the spacing is 2.02, and above 1 short waves are not"),
        ({"grid": [32], "length": 64.5}, "Give at least 65 points, or a shorter line"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"dt": -0.1}, "dt=-0.1: Input should be greater than 0"),
        ({"length": math.inf}, "length=inf: Input should be a finite number"),
        ({"terms": 0}, "terms=0: Input should be greater than or equal to 1"),
        ({"waves": 0}, "waves=0: Input should be greater than or equal to 1"),
        ({"petsc_options": "ksp_type cg"}, "PETSc options start with '-'"),
        ({"seed": 1}, "seed=1: Extra inputs are not permitted"),
        ({"kind": "heat"}, "kind='heat': Input should be 'kuramoto_sivashinsky'"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_the_coarsest_grid_is_one_point_per_unit() -> None:
    assert Config(grid=(64,), length=64.0).spec().spacing == (1.0,)


def test_one_channel_on_the_points() -> None:
    config = Config(grid=(44,), length=22.0, steps=7, dt=0.5)
    spec = config.spec()
    assert (spec.names, spec.units, spec.shape, spec.spacing) == (("u",), ("1",), (44,), (0.5,))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_two_parameters_choose_the_initial_state() -> None:
    ranges = {p.name: (p.low, p.high) for p in Config().parameters()}
    assert ranges == {"amplitude": (0.1, 1.0), "seed": (0.0, 1e6)}


def test_every_setting_says_its_unit_or_needs_none() -> None:
    for name, field in Config.model_fields.items():
        if name not in ("kind", "petsc_options"):
            assert (field.description or "").endswith("]"), name
