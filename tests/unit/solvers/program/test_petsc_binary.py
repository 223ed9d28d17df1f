"""What PETSc's binary viewer writes is read byte for byte, and nothing else is taken for it."""

import struct
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.program.petsc_binary import TIME_ID, VECTOR_ID, Record, StreamRefused, VectorReader

LENGTH = 5
VALUES = [[float(10 * k + i) for i in range(LENGTH)] for k in range(3)]
TIMES = [0.0, 0.1, 0.35]


def vector(values: Iterable[float], *, integer: str = "i", real: str = "d") -> bytes:
    held = list(values)
    return struct.pack(f">2{integer}{len(held)}{real}", VECTOR_ID, len(held), *held)


def instant(value: float, *, integer: str = "i", real: str = "d") -> bytes:
    return struct.pack(f">{integer}{real}", TIME_ID, value)


def stream(*, timed: bool, integer: str = "i", real: str = "d", repeat: int = 1) -> bytes:
    """``repeat``: reals per value, 2 for complex numbers."""
    return b"".join(
        (instant(t, integer=integer, real=real if repeat == 1 else "d") if timed else b"")
        + struct.pack(f">2{integer}", VECTOR_ID, LENGTH)
        + struct.pack(f">{repeat * LENGTH}{real}", *np.repeat(v, repeat))
        for t, v in zip(TIMES, VALUES, strict=True)
    )


def read(data: bytes, *, timed: bool = True, most: int = 3, piece: int = 10**6) -> list[Record]:
    reader = VectorReader(length=LENGTH, timed=timed, most=most)
    records = []
    for start in range(0, len(data), piece):
        records += list(reader.feed(data[start : start + piece]))
    return records + list(reader.finish())


def assert_whole(records: list[Record], *, timed: bool) -> None:
    assert [r.number for r in records] == [0, 1, 2]
    assert [r.time for r in records] == (TIMES if timed else [None] * 3)
    for record, values in zip(records, VALUES, strict=True):
        np.testing.assert_array_equal(record.values, values)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("integer", ["i", "q"])
@pytest.mark.parametrize("piece", [1, 3, 7, 64, 10**6])
def test_the_cut_of_the_bytes_does_not_show(piece: int, integer: str, timed: bool) -> None:
    assert_whole(read(stream(timed=timed, integer=integer), timed=timed, piece=piece), timed=timed)


def test_a_record_comes_as_soon_as_it_is_whole_from_the_second_on() -> None:
    reader = VectorReader(length=LENGTH, timed=False, most=3)
    first, second = vector(VALUES[0]), vector(VALUES[1])
    assert list(reader.feed(first)) == []
    assert [r.number for r in reader.feed(second[:4])] == [0]
    assert list(reader.feed(second[4:-1])) == []
    assert [r.number for r in reader.feed(second[-1:])] == [1]
    assert reader.vectors == 2


def test_values_stay_as_they_are_when_more_is_fed() -> None:
    reader = VectorReader(length=LENGTH, timed=False, most=3)
    (first, *_) = [*reader.feed(vector(VALUES[0]) + vector(VALUES[1]))]
    list(reader.feed(vector(VALUES[2])))
    np.testing.assert_array_equal(first.values, VALUES[0])
    assert not first.values.flags.writeable


def test_a_single_vector_is_handed_out_at_the_end() -> None:
    (record,) = read(vector(VALUES[2]), timed=False)
    np.testing.assert_array_equal(record.values, VALUES[2])


def test_nothing_is_nothing() -> None:
    assert read(b"") == []


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("piece", [5, 10**6])
def test_complex_numbers_are_recognised(count: int, timed: bool, piece: int) -> None:
    whole = stream(timed=timed, repeat=2)
    with pytest.raises(StreamRefused, match=r"built with complex numbers.*scalar-type=real"):
        read(whole[: len(whole) // 3 * count], timed=timed, piece=piece)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("piece", [5, 10**6])
def test_single_precision_is_recognised(count: int, timed: bool, piece: int) -> None:
    whole = stream(timed=timed, real="f")
    with pytest.raises(StreamRefused, match="single precision"):
        read(whole[: len(whole) // 3 * count], timed=timed, piece=piece)


@given(cut=st.integers(min_value=1, max_value=3 * (12 + 8 + 8 * LENGTH) - 1), data=st.data())
def test_a_stream_that_ends_inside_a_record_is_refused(cut: int, data: st.DataObject) -> None:
    whole = stream(timed=True)
    piece = data.draw(st.integers(min_value=1, max_value=len(whole)))
    size = len(whole) // 3
    if cut % size == 0:
        assert len(read(whole[:cut], piece=piece)) == cut // size
    else:
        with pytest.raises(StreamRefused, match=rf"after {cut // size} whole vectors|followed by"):
            read(whole[:cut], piece=piece)


def test_what_came_before_a_fault_is_handed_out() -> None:
    reader = VectorReader(length=LENGTH, timed=True, most=9)
    got: list[Record] = []
    with pytest.raises(StreamRefused):
        got.extend(reader.feed(stream(timed=True) + b"not a header at all"))
    assert len(got) == 3


@pytest.mark.parametrize("length", [0, LENGTH - 1, LENGTH + 1, 2**31 - 1, -1])
def test_another_length_is_refused_at_once(length: int) -> None:
    reader = VectorReader(length=LENGTH, timed=False, most=3)
    with pytest.raises(StreamRefused, match=rf"length {length}, but grid and components make 5"):
        list(reader.feed(struct.pack(">ii", VECTOR_ID, length)))


def test_an_endless_stream_is_refused_at_the_first_vector_too_many() -> None:
    with pytest.raises(StreamRefused, match="more than 2 vectors"):
        read(stream(timed=True), most=2)
    with pytest.raises(StreamRefused, match="more than 2 vectors"):
        read(stream(timed=False), most=2, timed=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"step 1: residual 1e-3\n", "begins with b'step 1"),
        (struct.pack("<ii", VECTOR_ID, LENGTH), "no PETSc class id"),
        (bytes(64), "no PETSc class id"),
        (struct.pack(">4i", 1211216, 3, 3, 9), "has a matrix where a time must be"),
        (vector(VALUES[0]), "has a vector where a time must be"),
        (instant(0.0) + instant(0.1), "has a time where a vector must be"),
        (stream(timed=True) + b"bye" * 9, "before vector 3 the stream has b'byebye"),
    ],
)
def test_what_is_no_vector_is_named(data: bytes, message: str) -> None:
    with pytest.raises(StreamRefused, match=message):
        read(data, most=9)


def test_a_first_vector_that_nothing_sensible_follows_is_refused() -> None:
    with pytest.raises(StreamRefused, match="followed by b'xx"):
        read(vector(VALUES[0]) + b"x" * 100, timed=False)
    with pytest.raises(StreamRefused, match="followed by b'x"):
        read(vector(VALUES[0]) + b"x", timed=False)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_otherwise_or_hold_much(data: bytes) -> None:
    reader = VectorReader(length=LENGTH, timed=True, most=3)
    try:
        for start in range(0, len(data), 7):
            list(reader.feed(data[start : start + 7]))
            assert len(reader._held) <= 16 * LENGTH + 32
        list(reader.finish())
    except StreamRefused:
        pass
