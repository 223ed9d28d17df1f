"""Numbers that carry labels, by label: data frames, series, named tuples, labelled arrays, rows.

Kinds are told apart by their attributes: no library is imported for it.

1. Where there are labels, order counts for nothing, and a wrong label is refused
   (``tests/unit/trainers/surrogate/test_labels.py``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

Numbers = Any  # whatever holds numbers, with labels or without


def by_label(values: Numbers, names: Sequence[str]) -> Numbers:
    """A mapping from label to numbers where there are labels; else the values as they are.

    Args:
        values: Whatever a surrogate was given as its parameters.
        names: Labels that are expected: they tell which axis of an array has them.

    Raises:
        ValueError: A label stands twice, or rows have different labels.
    """
    if isinstance(values, Mapping):
        return values
    if isinstance(values, list | tuple):
        return _of_rows(values, names)
    if fields := getattr(getattr(values, "dtype", None), "names", None):  # a structured array
        return {name: values[name] for name in fields}
    if hasattr(values, "dims"):  # a DataArray of xarray
        return _of_axes(values, names)
    for attribute in ("columns", "index"):  # of a data frame; of a series
        labels = list(getattr(values, attribute, [])) if hasattr(values, "to_numpy") else []
        if _are_labels(labels):
            return {label: values[label] for label in labels}
    return values


def _of_rows(rows: Sequence[Numbers], names: Sequence[str]) -> Numbers:
    if hasattr(rows, "_fields"):  # a named tuple
        return dict(zip(rows._fields, rows, strict=True))
    if not rows or not isinstance(by_label(rows[0], names), Mapping):
        return rows
    labelled = [by_label(row, names) for row in rows]
    for row in labelled:
        if set(row) != set(labelled[0]):
            raise ValueError(f"rows with other labels: {list(labelled[0])} and {list(row)}")
    return {label: [row[label] for row in labelled] for label in labelled[0]}


def _of_axes(array: Numbers, names: Sequence[str]) -> Numbers:
    found = {axis: [*array.coords[axis].values] for axis in array.dims if axis in array.coords}
    labels = {axis: each for axis, each in found.items() if _are_labels(each)}
    if not labels:
        return array
    axis = next((axis for axis, each in labels.items() if set(each) == set(names)), [*labels][-1])
    return {label: array.isel({axis: place}) for place, label in enumerate(labels[axis])}


def _are_labels(labels: list[Any]) -> bool:
    if not any(isinstance(label, str | tuple) for label in labels):  # numbers only count
        return False
    if len(set(labels)) < len(labels):
        raise ValueError(f"a label stands twice: {labels}. Name each parameter once")
    return True
