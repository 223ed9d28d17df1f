"""What a study may say about a solver, and what it is told when it says something else."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from solvers.base import Parameter, SolverFailed
from solvers.config import AnySolverConfig, SolverConfig, member_values
from solvers.configs.heat import HeatConfig

SOLVER = TypeAdapter[AnySolverConfig](SolverConfig)


def test_the_study_of_the_design_loads() -> None:
    config = SOLVER.validate_python({"kind": "heat", "grid": [64, 64], "steps": 100, "dt": 0.01})
    assert isinstance(config, HeatConfig)
    assert (config.grid, config.steps, config.dt) == ((64, 64), 100, 0.01)


@pytest.mark.parametrize("grid", [[24], [24, 40], [5, 24, 40]])
def test_without_a_length_every_axis_is_a_metre_long(grid: list[int]) -> None:
    config = HeatConfig.model_validate({"grid": grid})
    assert config.length == (1.0,) * len(grid)
    assert config.spec().spacing == tuple(1.0 / cells for cells in grid)
    assert SOLVER.validate_json(config.model_dump_json()) == config


def test_a_study_must_name_the_pde() -> None:
    with pytest.raises(ValidationError, match="Unable to extract tag using discriminator 'kind'"):
        SOLVER.validate_python({"grid": [64, 64]})
    with pytest.raises(ValidationError, match="Input tag 'waves' found using 'kind' does not"):
        SOLVER.validate_python({"kind": "waves"})


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
