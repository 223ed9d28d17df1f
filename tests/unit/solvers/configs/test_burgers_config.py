"""What a study may say about ``kind: burgers``, and what it is told when it says something else."""

import numpy as np
import pytest

from solvers.configs.burgers import BurgersConfig
from solvers.pdes.burgers import Burgers
from solvers.petsc import self_communicator


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


@pytest.mark.petsc
def test_the_forcing_is_what_the_initial_state_shows_and_stays() -> None:
    values = {"alpha": 1.0, "beta": 0.1, "gamma": 0.0, "amplitude": 0.5}
    config = BurgersConfig(grid=(24,), steps=3, frequency=0.0, forcing_field=True)
    assert (config.spec().names, config.spec().inputs) == (("u", "forcing"), ("forcing",))
    solver = Burgers(config)
    fields = [
        [s.fields for s in solver.run(values | {"seed": seed}, self_communicator())]
        for seed in (3.0, 4.0)
    ]
    solver.close()
    for member in fields:
        np.testing.assert_array_equal(member[0][0], member[0][1])
        np.testing.assert_array_equal(member[-1][1], member[0][1])
    assert not np.allclose(fields[0][0], fields[1][0])


@pytest.mark.petsc
def test_one_state_goes_on_in_two_ways_where_the_seed_draws_frequencies() -> None:
    moving, still = (
        BurgersConfig(grid=(24,), steps=60, dt=0.1, terms=1, frequency=omega)
        for omega in (0.4, 0.0)
    )
    ends = []
    for config in (moving, still):
        solver = Burgers(config)
        values = {"alpha": 1.0, "beta": 0.1, "gamma": 0.0, "amplitude": 0.5, "seed": 3.0}
        first, *_, last = solver.run(values, self_communicator())
        solver.close()
        ends.append((first.fields, last.fields))
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-6)
    assert np.linalg.norm(ends[0][1] - ends[1][1]) > 0.2 * np.linalg.norm(ends[1][1])
    assert (moving.seed_draws, still.seed_draws) == ("unsteady forcing", "steady forcing")
