"""What a study may say about a solver, and what it is told when it says something else."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from solvers.base import Parameter, SolverFailed
from solvers.config import AnySolverConfig, SolverConfig, member_values
from solvers.configs.heat import HeatConfig

SOLVER = TypeAdapter[AnySolverConfig](SolverConfig)


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        SOLVER.validate_python({"kind": "heat"} | settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"


def test_the_study_of_the_design_loads() -> None:
    config = SOLVER.validate_python({"kind": "heat", "grid": [64, 64], "steps": 100, "dt": 0.01})
    assert isinstance(config, HeatConfig)
    assert (config.grid, config.steps, config.dt) == ((64, 64), 100, 0.01)


def test_json_round_trip() -> None:
    config = HeatConfig(grid=(24, 40), length=(0.8, 1.3), petsc_options="-ksp_type cg")
    assert SOLVER.validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("grid", [[24], [24, 40], [5, 24, 40]])
def test_without_a_length_every_axis_is_a_metre_long(grid: list[int]) -> None:
    config = HeatConfig.model_validate({"grid": grid})
    assert config.length == (1.0,) * len(grid)
    assert config.spec().spacing == tuple(1.0 / cells for cells in grid)
    assert SOLVER.validate_json(config.model_dump_json()) == config


def test_configs_are_frozen_and_hashable() -> None:
    config = HeatConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    assert hash(config) == hash(HeatConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"grid": [2, 64]},
            "need at least 3 points per axis (y, x). Give at least [3, 64]",
        ),
        ({"grid": [64, -1]}, "Give at least [64, 3]"),
        ({"grid": [64] * 4}, "grid=[64, 64, 64, 64]: Value error, 4 axes: need 1 to 3. Give the"),
        ({"grid": []}, "grid=[]: Value error, 0 axes: need 1 to 3"),
        ({"grid": [2]}, "need at least 3 points per axis (x). Give at least [3]"),
        ({"grid": [2, 5, 1]}, "need at least 3 points per axis (z, y, x). Give at least [3, 5, 3]"),
        (
            {"grid": [9], "length": [1.0, 2.0]},
            "length=[1.0, 2.0]: need one number per axis of grid=[9]. Give 1, or leave length out",
        ),
        ({"length": [1.0]}, "length=[1.0]: need one number per axis of grid=[64, 64]. Give 2, or"),
        ({"source": "square"}, "source='square': Input should be 'none' or 'gaussian'"),
        ({"source_field": True}, "source_field=true, but there is no source to show. Write source"),
        ({"source_field": 1}, "source_field=1: Input should be a valid boolean"),
        ({"grid": [64, 64.0]}, "grid.1=64.0: Input should be a valid integer"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"steps": True}, "steps=True: Input should be a valid integer"),
        ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
        ({"dt": -0.1}, "dt=-0.1: Input should be greater than 0"),
        ({"dt": math.nan}, "dt=nan: Input should be a finite number"),
        ({"dt": "soon"}, "dt='soon': Input should be a valid number"),
        ({"length": [1.0, 0.0]}, "length.1=0.0: Input should be greater than 0"),
        ({"length": [math.inf, 1.0]}, "length.0=inf: Input should be a finite number"),
        ({"diffusivity": 0}, "diffusivity=0: Input should be greater than 0"),
        ({"petsc_options": "ksp_type cg"}, "PETSc options start with '-'"),
        ({"gird": [64, 64]}, "gird=[64, 64]: Extra inputs are not permitted"),
        ({"kind": "waves"}, "Input tag 'waves' found using 'kind' does not match any"),
    ],
)
def test_what_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(**settings)


def test_a_study_must_name_the_pde() -> None:
    with pytest.raises(ValidationError, match="Unable to extract tag using discriminator 'kind'"):
        SOLVER.validate_python({"grid": [64, 64]})


def test_the_spacing_is_that_of_cells_between_the_walls() -> None:
    spec = HeatConfig(grid=(24, 40), length=(1.2, 4.0)).spec()
    assert spec.shape == (24, 40)
    assert spec.sample_shape == (1, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (spec.names, spec.units) == (("temperature",), ("K",))


def test_five_temperatures_from_100_to_500_kelvin() -> None:
    parameters = HeatConfig().parameters()
    assert [p.name for p in parameters] == ["initial", "west", "east", "south", "north"]
    assert {(p.unit, p.low, p.high) for p in parameters} == {("K", 100.0, 500.0)}
    assert len({p.description for p in parameters}) == 5


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ((9,), ["initial", "west", "east"]),
        ((8, 9), ["initial", "west", "east", "south", "north"]),
        ((7, 8, 9), ["initial", "west", "east", "south", "north", "bottom", "top"]),
    ],
)
def test_two_walls_per_axis_and_the_place_of_a_source(
    grid: tuple[int, ...], names: list[str]
) -> None:
    assert [p.name for p in HeatConfig(grid=grid).parameters()] == names
    length = (3.0, 0.5, 2.0)[-len(grid) :]
    heated = HeatConfig(grid=grid, length=length, source="gaussian").parameters()
    place = [f"source_{axis}" for axis in "xyz"[: len(grid)]]
    assert [p.name for p in heated] == [*names, "source_rate", *place, "source_width"]
    assert len({p.description for p in heated}) == len(heated)
    found = {p.name: p for p in heated}
    assert found["source_rate"].unit == "K/s"
    assert found["source_width"].low > 0
    for name, side in zip(place, length[::-1], strict=True):
        assert (found[name].unit, found[name].low, found[name].high) == ("m", side / 4, 0.75 * side)


def test_the_source_is_a_given_channel_if_it_is_asked_for() -> None:
    spec = HeatConfig(grid=(7, 8, 9), source="gaussian", source_field=True).spec()
    assert (spec.names, spec.units, spec.inputs) == (
        ("temperature", "source"),
        ("K", "K/s"),
        ("source",),
    )
    assert HeatConfig(source="gaussian").spec() == HeatConfig().spec()


def test_the_initial_state_is_a_snapshot_too() -> None:
    assert HeatConfig(steps=7).max_snapshots == 8


def test_every_setting_says_its_unit_or_needs_none() -> None:
    fields = HeatConfig.model_fields
    described = {name: field.description or "" for name, field in fields.items()}
    for name in ("grid", "steps", "dt", "length", "diffusivity"):
        assert described[name].endswith("]"), described[name]


TWO = tuple(
    Parameter(name=name, unit="m", low=0.0, high=2.0, description=name)
    for name in ("width", "depth")
)


def test_member_values_are_floats_in_the_announced_order() -> None:
    values = member_values(TWO, {"depth": 2, "width": 1.5})
    assert list(values.items()) == [("width", 1.5), ("depth", 2.0)]


def test_member_values_name_what_is_missing_and_unknown() -> None:
    message = r"needs exactly \['width', 'depth'\] \(missing: \['width'\], unknown: \['wdith'\]\)"
    with pytest.raises(ValueError, match=message):
        member_values(TWO, {"wdith": 1.0, "depth": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.1e30])
def test_member_values_that_are_not_finite_fail_the_member(value: float) -> None:
    with pytest.raises(
        SolverFailed, match=rf"depth={value:g} m: not a finite number".replace("+", "\\+")
    ):
        member_values(TWO, {"width": 1.0, "depth": value})
