"""What a study may set about the cavity, and what it is told when it says something else."""

import pytest

from solvers.configs.cavity import CavityConfig


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
