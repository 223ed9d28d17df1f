import pytest

from deploy import figures
from pipeline.study.problems import counted


def test_a_quantity_without_dimension_is_shown_without_a_unit() -> None:
    units = ("m", "1", "")
    assert [figures.labelled("depth", unit) for unit in units] == ["depth / m", "depth", "depth"]
    assert [figures.number(2.0, unit) for unit in units] == ["2.00 m", "2.00", "2.00"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (figures.size(1.0), "1 B"),
        (figures.size(999.0), "999 B"),
        (counted(1, "retry", "retries"), "1 retry"),
        (counted(2, "retry", "retries"), "2 retries"),
        (counted(1, "member"), "1 member"),
        (counted(12_000, "member"), "12,000 members"),
        (counted(0, "file"), "0 files"),
    ],
)
def test_one_of_a_thing_is_not_several(text: str, expected: str) -> None:
    assert text == expected
