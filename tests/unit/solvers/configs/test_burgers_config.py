"""What a study may say about ``kind: burgers``, and what it is told when it says something else."""

import pytest

from solvers.configs.burgers import BurgersConfig


def test_the_defaults_are_those_of_the_paper() -> None:
    config = BurgersConfig()
    assert (config.length, config.steps, config.terms, config.waves) == (16.0, 250, 5, 3)
    assert config.end_time == pytest.approx(4.0)
    assert config.max_snapshots == 251
    assert config.frequency == 0.4


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
