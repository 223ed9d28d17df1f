from deploy import figures


def test_a_quantity_without_dimension_is_shown_without_a_unit() -> None:
    units = ("m", "1", "")
    assert [figures.labelled("depth", unit) for unit in units] == ["depth / m", "depth", "depth"]
    assert [figures.number(2.0, unit) for unit in units] == ["2.00 m", "2.00", "2.00"]
