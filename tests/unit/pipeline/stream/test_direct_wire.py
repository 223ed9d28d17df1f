import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream import direct_wire as wire

LAYOUT = SampleLayout(window=2, sample_shape=(1, 6, 10), num_parameters=3)
PART = Box((2, 0), (4, 10))
OPENED = wire.Open(
    round=7, member=1 << 40, position=1 << 50, attempt=3, validation=True, first=1, stride=2,
    parameters=np.array([1.5, -2.0, 1e300]),
)  # fmt: skip
REQUESTS = [
    wire.hello(11, PART),
    wire.open_(OPENED),
    wire.work(7, 4, 9, 12, [40, 41], [0.1, 0.2, 0.3, 0.4]),
    wire.return_(8),
]
ANSWERS = [wire.grant(7, 4, 6, [5, wire.STORED, 0]), wire.refused(7, "not finite: ü")]


def decode(frame: bytes) -> object:
    return wire.decode_request(memoryview(frame), layout=LAYOUT)


def test_what_is_said_is_what_is_heard() -> None:
    hello, opened, work, given_back = map(decode, REQUESTS)
    assert hello == wire.Hello(11, PART)
    assert isinstance(opened, wire.Open)
    assert opened.parameters.tolist() == OPENED.parameters.tolist()
    assert (opened.round, opened.member, opened.attempt) == (7, 1 << 40, 3)
    assert (opened.validation, opened.first, opened.stride) == (True, 1, 2)
    assert opened.position == 1 << 50
    assert isinstance(work, wire.Work)
    assert (work.round, work.position, work.have, work.until) == (7, 4, 9, 12)
    assert work.steps.tolist() == [40, 41]
    assert work.times.tolist() == [[0.1, 0.2], [0.3, 0.4]]
    assert given_back == wire.Return(8)
    granted, refused = map(wire.decode_answer, ANSWERS)
    assert isinstance(granted, wire.Grant)
    assert (granted.round, granted.stored, granted.position) == (7, 4, 6)
    assert granted.slots.tolist() == [5, wire.STORED, 0]
    assert refused == wire.Refused(7, "not finite: ü")


@pytest.mark.parametrize("frame", REQUESTS + ANSWERS, ids=lambda frame: wire.Kind(frame[4]).name)
def test_every_message_cut_short_or_too_long_is_refused(frame: bytes) -> None:
    lengths = range(16) if frame[4] == wire.Kind.REFUSED else range(len(frame))
    for length in lengths:
        with pytest.raises(StreamRefused):
            decode(frame[:length])
        with pytest.raises(StreamRefused):
            wire.decode_answer(frame[:length])
    with pytest.raises(StreamRefused):
        decode(frame + b"x")


@given(st.sampled_from(REQUESTS + ANSWERS), st.data())
def test_a_message_with_wrong_bytes_is_heard_or_refused_and_nothing_else(
    frame: bytes, data: st.DataObject
) -> None:
    wrong = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    for decoder in (decode, wire.decode_answer):
        with contextlib.suppress(StreamRefused):
            decoder(bytes(wrong))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"HDRC" + REQUESTS[0][4:], "wrong magic"),
        (REQUESTS[0][:4] + b"\x63" + REQUESTS[0][5:], "unknown kind: 99"),
        (wire.hello(11, Box((2, 0), (5, 10))), "wrong box"),
        (REQUESTS[2][:5] + b"\x01" + REQUESTS[2][6:], "unknown flags"),
        (wire.open_(wire.Open(1, 2, 0, 3, False, 0, 1, np.zeros(2))), "wrong parameters: 2"),
        (ANSWERS[0], "unexpected kind: GRANT"),
    ],
)  # fmt: skip
def test_what_may_not_be_said_is_refused_by_name(frame: bytes, reason: str) -> None:
    with pytest.raises(StreamRefused, match=reason):
        decode(frame)


def test_every_message_fits_into_one_of_the_socket() -> None:
    most = wire.most_positions(LAYOUT)
    frame = wire.work(1, 0, most, most, [0] * most, [0.0] * 2 * most)
    assert wire.MAX_BYTES - 48 < len(frame) <= wire.MAX_BYTES
    assert (
        wire.most_positions(SampleLayout(window=20_000, sample_shape=(1, 4), num_parameters=0)) == 0
    )
    assert (
        wire.most_positions(SampleLayout(window=1, sample_shape=(1, 4), num_parameters=20_000)) == 0
    )
