"""trainers/surrogate/labels.py: where there are labels, order counts for nothing."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from trainers.surrogate.labels import Numbers, by_label

NAMES = ("west", "load")
WEST, LOAD = [120.0, 320.0, 480.0], [-1.5, 0.0, 2.5]


class Plate(NamedTuple):
    load: float
    west: float


FRAME = pd.DataFrame({"load": LOAD, "west": WEST})
ARRAY = xr.DataArray(
    [LOAD, WEST], dims=("parameter", "member"), coords={"parameter": ["load", "west"]}
)
ROWS = np.array([*zip(LOAD, WEST, strict=True)], dtype=[("load", "f8"), ("west", "f4")])


@pytest.mark.parametrize(
    "values",
    [
        {"load": LOAD, "west": WEST},
        FRAME,
        ROWS,
        ROWS.view(np.recarray),
        ARRAY,
        ARRAY.T.assign_coords(member=["a", "b", "c"]),
        ARRAY.to_dataset("parameter"),
        [Plate(load=load, west=west) for load, west in zip(LOAD, WEST, strict=True)],
        [*FRAME.itertuples(index=False)],
        [row for _, row in FRAME.iterrows()],
        [{"west": west, "load": load} for load, west in zip(LOAD, WEST, strict=True)],
    ],
)
def test_labels_count_and_not_the_order(values: Numbers) -> None:
    found = by_label(values, NAMES)
    assert set(found) == set(NAMES)
    np.testing.assert_array_equal(np.array(found["west"], np.float64), WEST)
    np.testing.assert_array_equal(np.array(found["load"], np.float64), LOAD)


@pytest.mark.parametrize(
    "values", [Plate(load=-1.5, west=120.0), FRAME.iloc[0], ROWS[0], ARRAY[:, 0]]
)
def test_one_member_has_labels_too(values: Numbers) -> None:
    found = by_label(values, NAMES)
    assert {name: float(each) for name, each in found.items()} == {"west": 120.0, "load": -1.5}


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 2)),
        pd.DataFrame(np.zeros((3, 2))),
        pd.Series([1.0, 2.0]),
        xr.DataArray(np.zeros((3, 2)), dims=("member", "parameter"), coords={"member": [4, 5, 6]}),
        [[1.0, 2.0], [3.0, 4.0]],
        (1.0, 2.0),
        [],
        3.0,
    ],
)
def test_what_has_no_labels_is_left_alone(values: Numbers) -> None:
    assert by_label(values, NAMES) is values


def test_a_label_that_stands_twice_is_refused() -> None:
    twice = pd.DataFrame([[1.0, 2.0]], columns=["west", "west"])
    with pytest.raises(ValueError, match=r"stands twice: \['west', 'west'\]"):
        by_label(twice, NAMES)
    with pytest.raises(ValueError, match=r"other labels: \['west'\] and \['load'\]"):
        by_label([{"west": 1.0}, {"load": 1.0}], NAMES)
