"""What a study may say about shallow water, and what it is told when it says something else."""

import math

import numpy as np
import pytest

from solvers.base import Snapshot, SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.pdes.shallow_water import ShallowWater
from solvers.petsc import self_communicator

DAM = {"level_left": 1.5, "level_right": 0.4, "dam_position": 0.9}
HUMP = {"level": 0.5, "height": 0.3, "x": 1.325, "y": 0.625, "width": 0.1}
HILL = {"bottom_height": 0.7, "bottom_x": 1.325, "bottom_y": 0.625, "bottom_width": 0.1}


def first(values: dict[str, float], **settings: object) -> Snapshot:
    """The initial state on cells of 5 cm."""
    solver = ShallowWater(
        ShallowWaterConfig.model_validate({"grid": (20, 40), "length": (1.0, 2.0)} | settings)
    )
    try:
        return next(solver.run(values, self_communicator()))
    finally:
        solver.close()


def test_what_is_announced() -> None:
    config = ShallowWaterConfig(grid=(24, 40), length=(1.2, 4.0), steps=7, dt=0.5)
    spec = config.spec()
    assert spec.names == ("depth", "discharge_x", "discharge_y", "bottom")
    assert spec.units == ("m", "m^2/s", "m^2/s", "m")
    assert spec.inputs == ("bottom",)
    assert spec.sample_shape == (4, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"initial": "dam", "bottom": "flat"}, [*DAM]),
        ({"initial": "hump", "bottom": "bump"}, [*HUMP, *HILL]),
        ({"initial": "dam", "bottom": "slope"}, [*DAM, "bottom_height", "bottom_start"]),
    ],
)
def test_parameters_follow_from_the_settings(settings: dict[str, object], names: list[str]) -> None:
    config = ShallowWaterConfig.model_validate(settings | {"length": (0.5, 3.0)})
    parameters = config.parameters()
    assert [p.name for p in parameters] == names
    assert {p.unit for p in parameters} == {"m"}
    assert all(p.low < p.high for p in parameters)
    for p in parameters:
        if p.name in ("x", "bottom_x", "bottom_start", "dam_position"):
            assert 0 < p.low < p.high < 3.0
        if p.name in ("y", "bottom_y"):
            assert 0 < p.low < p.high < 0.5


@pytest.mark.petsc
def test_a_dam_stands_where_its_position_says() -> None:
    depth, discharge_x, discharge_y, bottom = first(
        DAM | {"dam_position": 0.91}, initial="dam", bottom="flat"
    ).fields
    np.testing.assert_allclose(depth[:, :18], 1.5)
    np.testing.assert_allclose(depth[:, 18], 0.4 + 1.1 * 0.2, rtol=1e-6)  # a fifth of the cell
    np.testing.assert_allclose(depth[:, 19:], 0.4)
    assert not discharge_x.any()
    assert not discharge_y.any()
    assert not bottom.any()


@pytest.mark.petsc
def test_a_hump_and_a_hill_lie_where_their_parameters_say() -> None:
    depth, _, _, bottom = first(HUMP | HILL, bottom="bump").fields
    assert bottom[12, 26] == pytest.approx(0.7)
    assert bottom[12, 28] == bottom[14, 26] == pytest.approx(0.7 * math.exp(-0.5))
    assert depth[12, 26] == pytest.approx(0.1)
    assert depth[12, 28] == pytest.approx(0.5 - 0.4 * math.exp(-0.5))
    assert first(HUMP | HILL | {"height": 0.0}, bottom="bump").fields[0, 12, 26] == 0.0


@pytest.mark.petsc
def test_a_hump_goes_on_at_the_other_side_where_that_is_the_neighbour() -> None:
    values = HUMP | {"x": 1.975, "y": 0.025}
    depth = first(values, bottom="flat", boundary="periodic").fields[0]
    assert depth[0, 39] == pytest.approx(0.8)
    assert depth[0, 1] == depth[2, 39] == depth[18, 39] == pytest.approx(0.5 + 0.3 * math.exp(-0.5))
    between_walls = first(values, bottom="flat").fields[0]
    assert between_walls[2, 39] == depth[2, 39]
    assert between_walls[0, 1] == between_walls[18, 39] == 0.5


@pytest.mark.petsc
def test_a_beach_rises_from_its_foot_to_the_wall() -> None:
    values = DAM | {"bottom_height": 2.0, "bottom_start": 1.0}
    depth, _, _, bottom = first(values, initial="dam", bottom="slope").fields
    assert not bottom[:, :20].any()
    np.testing.assert_allclose(bottom[:, 20:], np.tile(0.05 + 0.1 * np.arange(20), (20, 1)))
    np.testing.assert_allclose(depth[:, 20:], np.maximum(0.4 - bottom[:, 20:], 0.0), atol=1e-7)


@pytest.mark.petsc
@pytest.mark.parametrize("name", ["width", "bottom_width"])
@pytest.mark.parametrize("width", [0.0, -0.1])
def test_what_has_no_width_fails_the_member(name: str, width: float) -> None:
    message = rf"{name}={width:g} m: need a width > 0, better at least 3 cells \(0.15 m\)"
    with pytest.raises(SolverFailed, match=message):
        first(HUMP | HILL | {name: width}, bottom="bump")


@pytest.mark.petsc
def test_a_beach_beyond_the_wall_fails_the_member() -> None:
    values = DAM | {"bottom_height": 2.0, "bottom_start": 2.0}
    with pytest.raises(SolverFailed, match=r"bottom_start=2 m: .* before the east wall at 2 m"):
        first(values, initial="dam", bottom="slope")


@pytest.mark.petsc
def test_a_member_ends_when_the_next_one_begins() -> None:
    solver = ShallowWater(ShallowWaterConfig(grid=(10, 20), bottom="flat"))
    values = HUMP | {"width": 8.0}
    older = solver.run(values, self_communicator())
    next(older)
    solver.run(values, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(older)
    solver.close()
