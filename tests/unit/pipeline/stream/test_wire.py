import struct
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.endpoint import StudyKeys
from pipeline.stream.frames import (
    CONTROL_BYTES,
    HEAD,
    MAX_CONTROL_BYTES,
    MAX_RANGES,
    MAX_REASON,
    Control,
    Kind,
    decode_control,
    encode_control,
    peek,
    ranges_of,
)
from pipeline.stream.wire import (
    HEADER_BYTES,
    MAX_COUNT,
    Canvas,
    Message,
    Stamp,
    decode,
    message_bytes,
)

LAYOUT = SampleLayout(window=2, sample_shape=(3, 24, 40), num_parameters=5)
STUDY = 0xFEED_0000_0000_0001
PARAMETERS = np.array([300.0, 120.5, 480.25, 200.0, 410.0])


def frame(
    samples: list[int],
    *,
    box: Box | None = None,
    layout: SampleLayout = LAYOUT,
    validation: bool = False,
    study: int = STUDY,
) -> bytearray:
    box = box or Box.whole(layout.grid)
    buffer = bytearray(message_bytes(layout, box, len(samples)))
    canvas = Canvas(memoryview(buffer), layout=layout, box=box, capacity=len(samples))
    for sample in samples:
        canvas.add(sample, 10 * sample, times_of(sample, layout), fields_of(sample, box, layout))
    stamp = Stamp(study=study, sender=77, sequence=3, member=11, attempt=2, validation=validation)
    assert canvas.seal(stamp, PARAMETERS[: layout.num_parameters]) == len(buffer)
    return buffer


def times_of(sample: int, layout: SampleLayout) -> np.ndarray:
    return 0.01 * (sample + np.arange(layout.window))


def fields_of(sample: int, box: Box, layout: SampleLayout) -> np.ndarray:
    shape = (layout.window, layout.channels, *box.size)
    return np.random.default_rng(sample).standard_normal(shape).astype(layout.dtype)


def read(buffer: bytearray, *, layout: SampleLayout = LAYOUT) -> Message:
    return decode(memoryview(buffer), layout=layout, study=STUDY)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "box", [None, Box((5, 0), (7, 40)), Box((23, 39), (1, 1))], ids=["whole", "rows", "corner"]
)
def test_what_canvas_writes_decode_reads_back_bit_for_bit(dtype: str, box: Box | None) -> None:
    layout = SampleLayout(window=2, sample_shape=(3, 24, 40), num_parameters=5, dtype=dtype)
    samples = [4, 7, 19]
    message = read(frame(samples, box=box, layout=layout, validation=True), layout=layout)
    assert message.samples.tolist() == samples
    assert message.steps.tolist() == [40, 70, 190]
    assert message.whole is (box is None)
    assert message.stamp == Stamp(
        study=STUDY, sender=77, sequence=3, member=11, attempt=2, validation=True
    )
    np.testing.assert_array_equal(message.parameters, PARAMETERS)
    for k, sample in enumerate(samples):
        np.testing.assert_array_equal(message.times[k], times_of(sample, layout))
        np.testing.assert_array_equal(
            message.fields[k], fields_of(sample, box or Box.whole(layout.grid), layout)
        )


def test_decode_copies_nothing() -> None:
    buffer = frame([0, 1])
    message = read(buffer)
    for array in (message.fields, message.samples, message.steps, message.times):
        assert np.shares_memory(array, np.frombuffer(buffer, np.uint8))


def test_a_canvas_that_is_not_full_makes_a_shorter_frame_and_starts_afresh() -> None:
    box = Box.whole(LAYOUT.grid)
    buffer = bytearray(message_bytes(LAYOUT, box, 8))
    canvas = Canvas(memoryview(buffer), layout=LAYOUT, box=box, capacity=8)
    stamp = Stamp(study=STUDY, sender=1, sequence=0, member=0, attempt=1, validation=False)
    for sample in (0, 2, 4):
        canvas.add(sample, sample, times_of(sample, LAYOUT), fields_of(sample, box, LAYOUT))
    assert not canvas.full
    length = canvas.seal(stamp, PARAMETERS)
    assert length == message_bytes(LAYOUT, box, 3)
    assert read(buffer[:length]).samples.tolist() == [0, 2, 4]
    assert len(canvas) == 0


def edit(offset: int, code: str, value: int) -> Callable[[bytearray], None]:
    return lambda buffer: struct.pack_into("<" + code, buffer, offset, value)


DATA = 32  # where the DATA part of the header starts

MALFORMED: list[tuple[Callable[[bytearray], object], str]] = [
    (lambda b: b.__delitem__(slice(20, None)), "short frame: 20 bytes"),
    (lambda b: b.__delitem__(slice(60, None)), "short frame: 60 bytes, a DATA header has 96"),
    (edit(0, "I", 0), "foreign frame: starts with"),
    (edit(4, "B", 9), "other version: 9, this end speaks 1"),
    (edit(5, "B", 200), "unknown kind: 200"),
    (edit(5, "B", Kind.PING), "unexpected kind: PING, need DATA"),
    (edit(6, "B", 0x42), "unknown flags: 0x42"),
    (edit(7, "B", 2), "wrong dtype: code 2, the slots hold float32"),
    (edit(8, "Q", 5), "wrong study: 0x5, this is 0xfeed"),
    (edit(DATA, "q", -4), "wrong member: -4"),
    (edit(DATA + 12, "I", 0), "wrong count: 0 samples"),
    (edit(DATA + 12, "I", 0xFFFF_FFFF), f"wrong count: 4294967295 .*limit .1, {MAX_COUNT}"),
    (edit(DATA + 12, "I", 3), "wrong payload length"),
    (edit(DATA + 16, "H", 6), "wrong layout: .*= .6, 2, 3, 2., need .5, 2, 3, 2."),
    (edit(DATA + 22, "H", 0xFFFF), "wrong layout"),
    (edit(DATA + 22, "H", 1), "wrong layout: .*need .5, 2, 3, 2."),
    (edit(DATA + 24, "I", 1), "wrong box: .*is not inside the grid .24, 40."),
    (edit(DATA + 36, "I", 0), "wrong box"),
    (edit(DATA + 48, "Q", 1 << 60), "wrong payload length: states 1152921504606846976 bytes"),
    (lambda b: b.append(0), "wrong frame length"),
    (lambda b: b.__delitem__(slice(-8, None)), "wrong frame length"),
    (edit(message_bytes(LAYOUT, Box.whole(LAYOUT.grid), 2) - 64, "q", -1), "wrong sample numbers"),
    (edit(message_bytes(LAYOUT, Box.whole(LAYOUT.grid), 2) - 64, "q", 9), "wrong sample numbers"),
    (
        edit(message_bytes(LAYOUT, Box.whole(LAYOUT.grid), 2) - 56, "q", 1 << 40),
        "wrong sample numbers: must increase within .0, 1048576.",
    ),
]


@pytest.mark.parametrize(("damage", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_frame_is_refused_with_what_and_which_value(
    damage: Callable[[bytearray], object], message: str
) -> None:
    buffer = frame([8, 9])
    damage(buffer)
    with pytest.raises(StreamRefused, match=message):
        read(buffer)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SampleLayout(window=0, sample_shape=(1, 4), num_parameters=1), "window"),
        (lambda: SampleLayout(window=1, sample_shape=(4,), num_parameters=1), "sample_shape"),
        (lambda: SampleLayout(window=1, sample_shape=(1, 0, 3), num_parameters=1), "sample_shape"),
        (lambda: SampleLayout(window=1, sample_shape=(1, 4), num_parameters=-1), "num_parameters"),
        (
            lambda: SampleLayout(window=1, sample_shape=(1, 4), num_parameters=1, dtype="int8"),
            "dtype",
        ),
        (lambda: Box((0,), (3, 4)), "differ in length"),
    ],
    ids=range(6),
)
def test_an_impossible_layout_or_box_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("box", "capacity", "message"),
    [
        (Box((20, 0), (5, 40)), 1, "not inside the grid"),
        (Box((0, 0), (24, 40)), 0, "capacity must be"),
        (Box((0, 0), (24, 40)), 4000, "field bytes"),
    ],
)
def test_a_canvas_that_could_not_be_received_is_refused(
    box: Box, capacity: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Canvas(memoryview(bytearray(8)), layout=LAYOUT, box=box, capacity=capacity)


def test_a_canvas_refuses_what_would_broadcast_or_go_backwards() -> None:
    box = Box.whole(LAYOUT.grid)
    buffer = bytearray(message_bytes(LAYOUT, box, 2))
    canvas = Canvas(memoryview(buffer), layout=LAYOUT, box=box, capacity=2)
    good = fields_of(0, box, LAYOUT)
    with pytest.raises(ValueError, match="fields of a part must have shape"):
        canvas.add(0, 0, times_of(0, LAYOUT), good[:1])
    with pytest.raises(ValueError, match="times must have shape"):
        canvas.add(0, 0, np.zeros(1), good)
    canvas.add(5, 5, times_of(5, LAYOUT), good)
    with pytest.raises(ValueError, match="5 after 5"):
        canvas.add(5, 5, times_of(5, LAYOUT), good)


def test_pieces_are_disjoint_cover_the_box_and_are_small_enough() -> None:
    box = Box((3, 2), (17, 31))
    pieces = box.pieces(100)
    count = np.zeros((24, 40), int)
    for piece in pieces:
        assert piece.points <= 100
        count[piece.slices] += 1
    assert count.sum() == box.points
    assert count.max() == 1
    assert (count[box.slices] == 1).all()
    assert Box((0,), (5,)).pieces(0) == [Box((i,), (1,)) for i in range(5)]


def test_overlap_is_a_common_grid_point() -> None:
    box = Box((0, 0), (4, 4))
    assert box.overlaps(Box((3, 3), (4, 4)))
    assert not box.overlaps(Box((4, 0), (4, 4)))
    assert not box.overlaps(Box((0, 4), (1, 1)))


def test_ranges_are_runs_in_rising_order() -> None:
    assert ranges_of([5, 1, 2, 9, 3, 2]) == [(1, 3), (5, 5), (9, 9)]
    assert ranges_of([]) == []


@pytest.mark.parametrize(
    "control",
    [
        Control(kind=Kind.ACK, study=STUDY, sender=1 << 63, sequence=0, ranges=[(0, 5), (9, 9)]),
        Control(kind=Kind.HELD, study=STUDY, sender=4, sequence=12),
        Control(kind=Kind.PING, study=STUDY, sender=4, sequence=12),
        Control(kind=Kind.REFUSED, study=STUDY, sender=4, sequence=2, reason="not finite: 3 é"),
    ],
    ids=lambda control: control.kind.name,
)
def test_control_frames_are_read_back(control: Control) -> None:
    encoded = memoryview(encode_control(control))
    assert decode_control(encoded, study=STUDY) == control
    assert peek(encoded) == (control.kind, STUDY, control.sender, control.sequence)


def test_a_long_reason_is_cut() -> None:
    control = Control(kind=Kind.REFUSED, study=STUDY, sender=4, sequence=2, reason="x" * 9999)
    back = decode_control(memoryview(encode_control(control)), study=STUDY)
    assert back.reason == "x" * MAX_REASON


@pytest.mark.parametrize(
    ("kind", "length", "message"),
    [
        (Kind.ACK, 1 << 60, "wrong range count"),
        (Kind.HELD, 3, "wrong range count"),
        (Kind.REFUSED, 1 << 60, "wrong reason length"),
        (Kind.DATA, 2, "unexpected kind: DATA"),
    ],
)
def test_a_control_frame_with_a_wrong_length_is_refused(
    kind: Kind, length: int, message: str
) -> None:
    good = Control(kind=Kind.ACK, study=STUDY, sender=4, sequence=2, ranges=[(1, 2), (4, 4)])
    buffer = bytearray(encode_control(good))
    buffer[5] = kind
    struct.pack_into("<Q", buffer, CONTROL_BYTES - 8, length)
    with pytest.raises(StreamRefused, match=message):
        decode_control(memoryview(buffer), study=STUDY)


def test_a_control_frame_cannot_grow_large_in_memory() -> None:
    many = [(2 * n, 2 * n) for n in range(MAX_RANGES + 3)]
    held = Control(kind=Kind.HELD, study=STUDY, sender=4, sequence=2, ranges=many)
    frame = encode_control(held)
    assert len(frame) == MAX_CONTROL_BYTES
    assert decode_control(memoryview(frame), study=STUDY).ranges == many[:MAX_RANGES]
    longer = bytearray(frame + bytes(16))
    struct.pack_into("<Q", longer, HEAD.size, MAX_RANGES + 1)
    with pytest.raises(StreamRefused, match="too many ranges: 65537 in a HELD, limit 65536"):
        decode_control(memoryview(longer), study=STUDY)
    ping = Control(kind=Kind.PING, study=STUDY, sender=4, sequence=2, ranges=[(1, 1)])
    with pytest.raises(StreamRefused, match="too many ranges: 1 in a PING, limit 0"):
        decode_control(memoryview(encode_control(ping)), study=STUDY)


def test_a_control_frame_of_another_study_is_refused() -> None:
    control = Control(kind=Kind.PING, study=1, sender=4, sequence=2)
    with pytest.raises(StreamRefused, match="wrong study"):
        decode_control(memoryview(encode_control(control)), study=STUDY)


def test_keys_do_not_show_and_differ_between_studies() -> None:
    keys, other = StudyKeys.generate(), StudyKeys.generate()
    assert keys.server_secret.decode() not in repr(keys)
    assert keys.client_secret.decode() not in repr(keys)
    assert keys.study != other.study
    assert keys.client_public != other.client_public


def test_the_header_is_what_the_module_says() -> None:
    assert HEADER_BYTES == 96
    assert frame([0])[:5] == b"HDRC\x01"
