import contextlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.frames import Control, Kind, decode_control, encode_control, ranges_of
from pipeline.stream.wire import Canvas, Stamp, decode, message_bytes

U64 = st.integers(0, 2**64 - 1)


# Not strategies: what they build is type-checked with random numbers, which a strategy may not use.
def any_layout(data: st.DataObject) -> SampleLayout:
    return SampleLayout(
        window=data.draw(st.integers(1, 4)),
        sample_shape=tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))),
        num_parameters=data.draw(st.integers(0, 7)),
        dtype=data.draw(st.sampled_from(["float32", "float64"])),
    )


def any_box(data: st.DataObject, grid: tuple[int, ...]) -> Box:
    size = tuple(data.draw(st.integers(1, n)) for n in grid)
    start = tuple(data.draw(st.integers(0, n - m)) for n, m in zip(grid, size, strict=True))
    return Box(start, size)


def write(layout: SampleLayout, box: Box, samples: list[int], stamp: Stamp, seed: int) -> bytearray:
    rng = np.random.default_rng(seed)
    buffer = bytearray(message_bytes(layout, box, len(samples)))
    canvas = Canvas(memoryview(buffer), layout=layout, box=box, capacity=len(samples))
    shape = (layout.window, layout.channels, *box.size)
    for sample in samples:
        canvas.add(
            sample, 3 * sample, rng.standard_normal(layout.window), rng.standard_normal(shape)
        )
    canvas.seal(stamp, rng.standard_normal(layout.num_parameters))
    return buffer


@given(data=st.data(), sender=U64, sequence=U64, study=U64)
def test_any_message_is_read_back(
    data: st.DataObject, sender: int, sequence: int, study: int
) -> None:
    layout = any_layout(data)
    box = any_box(data, layout.grid)
    samples = sorted(data.draw(st.sets(st.integers(0, 999), min_size=1, max_size=9)))
    stamp = Stamp(
        study=study, sender=sender, sequence=sequence, member=data.draw(st.integers(0, 2**62)),
        attempt=data.draw(st.integers(0, 2**32 - 1)), validation=data.draw(st.booleans()),
    )  # fmt: skip
    message = decode(
        memoryview(write(layout, box, samples, stamp, seed=5)), layout=layout, study=study
    )
    assert message.stamp == stamp
    assert message.box == box
    assert message.whole == (box == Box.whole(layout.grid))
    assert message.samples.tolist() == samples
    rng = np.random.default_rng(5)
    for k in range(len(samples)):
        np.testing.assert_array_equal(message.times[k], rng.standard_normal(layout.window))
        shape = (layout.window, layout.channels, *box.size)
        sent = rng.standard_normal(shape).astype(layout.dtype)
        np.testing.assert_array_equal(message.fields[k], sent)
    np.testing.assert_array_equal(message.parameters, rng.standard_normal(layout.num_parameters))


@given(data=st.data())
@settings(max_examples=300)
def test_a_damaged_frame_is_refused_or_read_and_nothing_else(
    data: st.DataObject,
) -> None:
    layout = any_layout(data)
    stamp = Stamp(study=9, sender=1, sequence=2, member=3, attempt=1, validation=False)
    buffer = write(layout, any_box(data, layout.grid), [1, 4, 5], stamp, seed=6)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(buffer), 120) - 1))
        buffer[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del buffer[data.draw(st.integers(0, len(buffer))) :]
    with contextlib.suppress(StreamRefused):
        message = decode(memoryview(buffer), layout=layout, study=9)
        assert message.box.fits(layout.grid)
        assert message.fields.shape == (
            message.samples.size, layout.window, layout.channels, *message.box.size,
        )  # fmt: skip


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for read in (
        lambda: decode_control(memoryview(noise), study=1),
        lambda: decode(
            memoryview(noise),
            layout=SampleLayout(window=1, sample_shape=(1, 3), num_parameters=0),
            study=1,
        ),
    ):
        with contextlib.suppress(StreamRefused):
            read()
            raise AssertionError("noise was read")


@given(numbers=st.sets(st.integers(0, 60)), sender=U64, sequence=U64)
def test_ranges_survive_the_wire_and_name_the_same_numbers(
    numbers: set[int], sender: int, sequence: int
) -> None:
    control = Control(
        kind=Kind.ACK, study=3, sender=sender, sequence=sequence, ranges=ranges_of(numbers)
    )
    back = decode_control(memoryview(encode_control(control)), study=3)
    assert back == control
    assert {n for first, last in back.ranges for n in range(first, last + 1)} == numbers


@given(data=st.data(), limit=st.integers(1, 200))
def test_pieces_tile_any_box(data: st.DataObject, limit: int) -> None:
    grid = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    box = any_box(data, grid)
    count = np.zeros(grid, int)
    for piece in box.pieces(limit):
        assert piece.points <= limit
        count[piece.slices] += 1
    assert (count[box.slices] == 1).all()
    assert count.sum() == box.points
