import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline.study.distributions import (
    AnyDistribution,
    Constant,
    Distribution,
    LogUniform,
    Uniform,
    Values,
    grid_levels,
    nearest_grids,
)

ADAPTER: TypeAdapter[AnyDistribution] = TypeAdapter(Distribution)
KINDS: list[AnyDistribution] = [
    Uniform(uniform=(-3.5, 7.25)),
    Uniform(uniform=(-1.5e308, 1.5e308)),
    LogUniform(loguniform=(1e-6, 40.0)),
    Values(values=(5.0, -1.0, 2.0)),
    Constant(constant=300.0),
]


@pytest.mark.parametrize("distribution", KINDS, ids=repr)
@given(quantiles=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_at_stays_in_the_range_and_does_not_decrease(
    distribution: AnyDistribution, quantiles: list[float]
) -> None:
    values = distribution.at(np.array(sorted(quantiles)))
    assert np.isfinite(values).all()
    assert distribution.lowest <= values.min()
    assert values.max() <= distribution.highest
    # Up to rounding; halved, because the difference of the largest two would overflow.
    assert (np.diff(values / 2) >= -1e-12 * np.abs(values[1:])).all()


def test_the_ends_of_a_range_are_reached() -> None:
    ends = np.array([0.0, 1.0])
    assert Uniform(uniform=(0.1, 0.7)).at(ends).tolist() == [0.1, 0.7]
    assert LogUniform(loguniform=(0.1, 0.7)).at(ends).tolist() == pytest.approx([0.1, 0.7])


def test_loguniform_has_the_geometric_mean_in_its_middle() -> None:
    assert LogUniform(loguniform=(1e-4, 1e2)).at(np.array([0.5]))[0] == pytest.approx(0.1)


def test_values_are_equally_likely() -> None:
    values = Values(values=(5.0, -1.0, 2.0)).at((np.arange(300) + 0.5) / 300)
    assert np.unique(values, return_counts=True)[1].tolist() == [100, 100, 100]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"uniform": [500, 100]}, ["reversed", "low=500", "high=100", "uniform: [100, 500]"]),
        ({"uniform": [3, 3]}, ["empty", "low=3", "{constant: 3}"]),
        ({"loguniform": [9, 1]}, ["reversed", "loguniform: [1, 9]"]),
        ({"loguniform": [0, 1]}, ["low=0", "above 0", "use uniform"]),
        ({"values": [1, 2, 1]}, ["once", "1 of 3", "Remove"]),
        ({"values": []}, ["at least 1"]),
        ({"uniform": [0, math.inf]}, ["finite"]),
        ({"constant": math.nan}, ["finite"]),
    ],
)
def test_a_range_that_is_none_is_refused(written: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(written)
    for word in words:
        assert word in str(caught.value)


def test_two_distributions_in_one_entry_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ADAPTER.validate_python({"uniform": [1, 2], "constant": 3})


def test_a_grid_needs_equally_many_levels_in_every_range() -> None:
    ranges = [KINDS[0], KINDS[2], Values(values=(1.0, 2.0, 3.0)), KINDS[4]]
    assert grid_levels(ranges, 3 * 16) == 4
    assert grid_levels(ranges, 50) is None
    assert nearest_grids(ranges, 50) == [48, 75]
    assert grid_levels([Values(values=(1.0, 2.0))], 2) == 1
    assert grid_levels([Values(values=(1.0, 2.0))], 4) is None
    assert nearest_grids([Values(values=(1.0, 2.0))], 4) == [2]
    assert nearest_grids(ranges, 2) == [3, 12]
