import logging
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.frames import MAX_REASON, Control, Kind, decode_control, encode_control
from pipeline.stream.intake import Bounds, Intake
from pipeline.stream.placing import Placing
from pipeline.stream.wire import Canvas, Stamp, message_bytes

LAYOUT = SampleLayout(window=1, sample_shape=(1, 6, 10), num_parameters=2)
WHOLE = Box.whole(LAYOUT.grid)
TOP, BOTTOM = Box((0, 0), (4, 10)), Box((4, 0), (2, 10))
STUDY, SENDER = 42, 5
CAPACITY = 64


class QuotaBook:
    """Hands out slots 0, 1, 2, ... as long as the quota lasts."""

    def __init__(self, quota: int) -> None:
        self.quota, self.next = quota, 0
        self.committed: list[int] = []

    def reserve(self, count: int) -> np.ndarray:
        count = min(count, self.quota)
        self.quota -= count
        self.next += count
        return np.arange(self.next - count, self.next)

    def commit(self, slots: np.ndarray) -> None:
        self.committed += slots.tolist()

    def cancel(self, slots: np.ndarray) -> None:
        raise AssertionError("nothing is cancelled here")


class Rig:
    def __init__(
        self,
        *,
        quota: int = CAPACITY,
        validation_quota: int | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.arrays, self.book = self._arrays(), QuotaBook(quota)
        validation = None
        if validation_quota is not None:
            self.validation_arrays = self._arrays()
            self.validation_book = QuotaBook(validation_quota)
            validation = Placing(
                slots=self.validation_arrays, book=self.validation_book, layout=LAYOUT
            )
        self.intake = Intake(
            layout=LAYOUT,
            study=STUDY,
            training=Placing(slots=self.arrays, book=self.book, layout=LAYOUT),
            validation=validation,
            bounds=bounds,
        )

    @staticmethod
    def _arrays() -> SimpleNamespace:
        return SimpleNamespace(
            fields=np.zeros((CAPACITY, 1, *LAYOUT.sample_shape), np.float32),
            inputs=np.zeros((CAPACITY, LAYOUT.num_inputs)),
            members=np.full(CAPACITY, -1),
            samples=np.full(CAPACITY, -1),
            steps=np.full(CAPACITY, -1),
        )

    def take(self, frame: bytes | bytearray, *, identity: bytes = b"a", now: float = 0.0) -> None:
        self.intake.take(memoryview(frame), identity=identity, now=now)

    def answers(self) -> list[tuple[bytes, Control]]:
        return [
            (identity, decode_control(memoryview(frame), study=STUDY))
            for identity, frame in self.intake.replies()
        ]

    def stored(self) -> list[tuple[int, int]]:
        """(member, step) in the slots, in order of commit."""
        return [
            (int(self.arrays.members[s]), int(self.arrays.steps[s])) for s in self.book.committed
        ]


def data(
    sequence: int,
    samples: list[int],
    *,
    member: int = 3,
    box: Box = WHOLE,
    sender: int = SENDER,
    validation: bool = False,
    value: float = 1.5,
    time: float = 0.25,
    study: int = STUDY,
) -> bytearray:
    buffer = bytearray(message_bytes(LAYOUT, box, len(samples)))
    canvas = Canvas(memoryview(buffer), layout=LAYOUT, box=box, capacity=len(samples))
    for sample in samples:
        fields = np.full((1, 1, *box.size), value, np.float32)
        canvas.add(sample, sample, np.array([time]), fields)
    stamp = Stamp(
        study=study, sender=sender, sequence=sequence, member=member, attempt=1,
        validation=validation,
    )  # fmt: skip
    canvas.seal(stamp, np.array([1.0, 2.0]))
    return buffer


def ping(number: int, *, sender: int = SENDER) -> bytes:
    return encode_control(Control(kind=Kind.PING, study=STUDY, sender=sender, sequence=number))


def test_a_stored_message_is_acknowledged_once_in_one_answer_per_sender() -> None:
    rig = Rig()
    rig.take(data(0, [0, 2]))
    rig.take(data(1, [4]))
    rig.take(data(9, [6]))
    rig.take(data(0, [1], sender=8), identity=b"b")
    (to_a, first), (to_b, second) = rig.answers()
    assert (to_a, first.kind, first.sender, first.ranges) == (
        b"a", Kind.ACK, SENDER, [(0, 1), (9, 9)],
    )  # fmt: skip
    assert (to_b, second.sender, second.ranges) == (b"b", 8, [(0, 0)])
    assert rig.answers() == []
    assert rig.stored() == [(3, 0), (3, 2), (3, 4), (3, 6), (3, 1)]


def test_a_message_is_acknowledged_only_when_all_of_it_is_stored() -> None:
    rig = Rig(quota=2)
    rig.take(data(0, [0, 1, 2]))
    assert rig.answers() == []
    assert rig.intake.pending == 1
    rig.book.quota = 5
    rig.intake.retry(now=1.0)
    assert [a.ranges for _, a in rig.answers()] == [[(0, 0)]]
    assert rig.stored() == [(3, 0), (3, 1), (3, 2)]
    assert rig.intake.pending == 0


def test_what_was_stored_is_dropped_counted_and_acknowledged_again() -> None:
    rig = Rig()
    rig.take(data(0, [0, 1]))
    rig.answers()
    rig.take(data(0, [0, 1]))  # sent again: its acknowledgement was lost
    rig.take(data(7, [1, 2], sender=6), identity=b"b")  # the member tried again elsewhere
    assert [(i, a.ranges) for i, a in rig.answers()] == [(b"a", [(0, 0)]), (b"b", [(7, 7)])]
    assert rig.intake.stats(0.0).duplicates == 3
    assert rig.stored() == [(3, 0), (3, 1), (3, 2)]


def test_a_message_that_waits_does_not_wait_twice() -> None:
    rig = Rig(quota=0)
    for _ in range(3):
        rig.take(data(0, [0, 1]))
    assert rig.intake.pending == 1
    rig.book.quota = 9
    rig.intake.retry(now=1.0)
    assert rig.stored() == [(3, 0), (3, 1)]
    assert rig.intake.stats(1.0).duplicates == 0


def test_the_same_sample_waiting_from_two_senders_is_stored_once_and_told_to_both() -> None:
    rig = Rig(quota=0)
    rig.take(data(0, [0]))
    rig.take(data(0, [0], sender=6), identity=b"b")
    rig.book.quota = 9
    rig.intake.retry(now=1.0)
    assert sorted(i for i, _ in rig.answers()) == [b"a", b"b"]
    assert rig.stored() == [(3, 0)]
    assert rig.intake.stats(1.0).duplicates == 1


def test_slots_are_given_in_the_order_in_which_messages_came() -> None:
    rig = Rig(quota=1)
    rig.take(data(0, [0, 1]))
    rig.take(data(0, [5], sender=6, member=9), identity=b"b")
    rig.book.quota = 1
    rig.take(data(1, [6], sender=6, member=9), identity=b"b")  # must not overtake
    assert rig.stored() == [(3, 0)]
    rig.intake.retry(now=1.0)
    assert rig.stored() == [(3, 0), (3, 1)]
    rig.book.quota = 2
    rig.intake.retry(now=1.0)
    assert rig.stored() == [(3, 0), (3, 1), (9, 5), (9, 6)]


def test_a_part_of_a_reserved_sample_is_accepted_while_others_wait_for_room() -> None:
    rig = Rig(quota=1)
    rig.take(data(0, [0, 1], box=TOP))
    rig.take(data(0, [0, 1], box=BOTTOM, sender=6), identity=b"b")
    assert rig.stored() == [(3, 0)]
    assert rig.intake.pending == 2
    rig.book.quota = 1
    rig.intake.retry(now=1.0)
    assert rig.stored() == [(3, 0), (3, 1)]
    assert sorted(i for i, _ in rig.answers()) == [b"a", b"b"]


def test_a_full_training_store_does_not_hold_validation_up() -> None:
    rig = Rig(quota=0, validation_quota=9)
    rig.take(data(0, [0]))
    rig.take(data(1, [0, 1], member=1000, validation=True))
    assert [a.ranges for _, a in rig.answers()] == [[(1, 1)]]
    assert rig.validation_book.committed == [0, 1]
    assert rig.validation_arrays.members[:2].tolist() == [1000, 1000]
    assert rig.intake.pending == 1


def test_the_answer_to_a_ping_names_exactly_what_waits() -> None:
    rig = Rig(quota=1)
    rig.take(data(0, [0]))
    rig.take(data(1, [1]))
    rig.take(data(3, [2]))
    rig.take(ping(4))
    first, second = (a for _, a in rig.answers())
    assert (first.kind, first.ranges) == (Kind.ACK, [(0, 0)])
    assert (second.kind, second.sequence, second.ranges) == (Kind.HELD, 4, [(1, 1), (3, 3)])
    assert rig.answers() == []


def test_a_ping_from_a_sender_that_is_not_known_says_that_nothing_waits() -> None:
    rig = Rig()
    rig.take(ping(1), identity=b"z")
    ((identity, answer),) = rig.answers()
    assert (identity, answer.kind, answer.ranges) == (b"z", Kind.HELD, [])


def test_answers_go_to_where_the_sender_spoke_last() -> None:
    rig = Rig(quota=0)
    rig.take(data(0, [0]), identity=b"old")
    rig.take(ping(1), identity=b"new")
    rig.answers()
    rig.book.quota = 1
    rig.intake.retry(now=1.0)
    assert [i for i, _ in rig.answers()] == [b"new"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["value", "time"])
def test_what_is_not_finite_is_refused_counted_and_told(
    bad: float, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    with caplog.at_level(logging.WARNING):
        rig.take(data(4, [0, 1], **{where: bad}))  # type: ignore[arg-type]
        rig.take(data(5, [2], **{where: bad}))  # type: ignore[arg-type]
    answers = [a for _, a in rig.answers()]
    assert [(a.kind, a.sequence) for a in answers] == [(Kind.REFUSED, 4), (Kind.REFUSED, 5)]
    assert answers[0].reason.startswith("not finite")
    assert rig.stored() == []
    assert not rig.arrays.fields.any()
    assert rig.intake.stats(0.0).refused == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("time", [math.inf, math.nan])
def test_an_input_that_is_not_finite_is_refused(time: float) -> None:
    rig = Rig()
    rig.take(data(4, [0, 1], time=time))
    ((_, answer),) = rig.answers()
    assert answer.reason.startswith("not finite: parameters or times of member 3")
    assert rig.stored() == []


def test_one_bad_value_among_many_is_found() -> None:
    rig = Rig()
    frame = data(0, [0, 1, 2])
    fields = np.frombuffer(frame, np.float32, 3 * 60, 128)
    fields[2 * 60 + 17] = np.nan
    rig.take(frame)
    ((_, answer),) = rig.answers()
    assert answer.reason == "not finite: fields of member 3, samples [2]"


def test_a_foreign_frame_is_counted_and_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.take(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
    rig.take(data(0, [0], study=43))
    assert rig.answers() == []
    assert rig.intake.stats(0.0).refused == 2
    assert [r.getMessage().partition(": ")[2][:13] for r in caplog.records] == [
        "foreign frame",
        "wrong study: ",
    ]


def test_a_frame_of_ours_that_is_malformed_is_told_and_the_next_is_taken() -> None:
    rig = Rig()
    rig.take(data(0, [0])[:-8])
    rig.take(encode_control(Control(kind=Kind.ACK, study=STUDY, sender=SENDER, sequence=3)))
    rig.take(data(1, [0]))
    kinds = [a.kind for _, a in rig.answers()]
    assert kinds == [Kind.REFUSED, Kind.REFUSED, Kind.ACK]
    assert rig.stored() == [(3, 0)]


def test_a_validation_sample_without_a_validation_store_is_refused() -> None:
    rig = Rig()
    rig.take(data(0, [0], validation=True))
    ((_, answer),) = rig.answers()
    assert answer.reason.startswith("unexpected validation sample")


def test_a_message_that_turns_out_wrong_while_it_waits_is_refused() -> None:
    rig = Rig(quota=0)
    rig.take(data(0, [0], box=TOP))
    rig.take(data(1, [0], box=Box((3, 0), (3, 10))))  # overlaps what waits before it
    rig.book.quota = 5
    rig.intake.retry(now=1.0)
    kinds = {a.kind: (a.sequence, a.ranges) for _, a in rig.answers()}
    assert kinds == {Kind.REFUSED: (1, []), Kind.ACK: (0, [(0, 0)])}
    assert rig.intake.pending == 0


def test_blocked_time_runs_while_something_waits() -> None:
    rig = Rig(quota=0)
    rig.take(data(0, [0]), now=10.0)
    rig.take(data(1, [1]), now=11.0)
    assert rig.intake.stats(12.5).solver_blocked_seconds == 2.5
    rig.book.quota = 1
    rig.intake.retry(now=13.0)
    rig.book.quota = 1
    rig.intake.retry(now=14.0)
    assert rig.intake.stats(99.0).solver_blocked_seconds == 4.0
    rig.take(data(2, [2]), now=100.0)
    assert rig.intake.stats(101.0).solver_blocked_seconds == 5.0


def test_counters_say_what_was_stored() -> None:
    rig = Rig(quota=3, validation_quota=4)
    rig.take(data(0, [0, 1]))
    rig.take(data(1, [0], member=9, validation=True))
    rig.take(data(2, [2, 3]))
    stats = rig.intake.stats(0.0)
    assert (rig.intake.samples, stats.bytes_received, stats.pending) == (4, 4 * LAYOUT.nbytes, 1)


def test_what_waits_is_bounded_and_what_was_let_go_is_taken_when_it_comes_again() -> None:
    rig = Rig(quota=0, bounds=Bounds(waiting_bytes=3 * 4096))  # a small message counts for 4096
    for sequence in range(5):
        rig.take(data(sequence, [sequence]))
    assert rig.intake.pending == 3
    rig.take(ping(1))
    ((_, held),) = rig.answers()
    assert (held.kind, held.ranges) == (Kind.HELD, [(0, 2)])  # so 3 and 4 are sent again
    rig.book.quota = 9
    rig.intake.retry(now=1.0)
    rig.take(data(3, [3]))
    rig.take(data(4, [4]))
    assert [a.ranges for _, a in rig.answers()] == [[(0, 4)]]
    assert rig.stored() == [(3, sample) for sample in range(5)]
    rig.book.quota = 0
    for sequence in range(5, 10):
        rig.take(data(sequence, [sequence]))
    assert rig.intake.pending == 3  # the room of those that were stored is free again


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (data(0, [0], member=11), "wrong member: 11, this study has 11"),
        (data(0, [0], member=2**62), "wrong member: "),
        (data(0, [0, 21]), "wrong sample numbers: must increase within [0, 21)"),
    ],
    ids=["member", "far member", "sample"],
)
def test_numbers_that_the_study_does_not_have_are_refused_and_nothing_is_kept_of_them(
    frame: bytearray, reason: str
) -> None:
    rig = Rig(bounds=Bounds(members=11, samples=21))
    rig.take(data(0, [0, 20], member=10))
    rig.answers()
    tracemalloc.start()
    try:
        for _ in range(20):
            rig.take(frame)
            ((_, answer),) = rig.answers()
            assert answer.reason.startswith(reason)
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_nothing_is_kept_of_senders_that_were_answered() -> None:
    rig = Rig()
    tracemalloc.start()
    try:
        for sender in range(300):
            rig.take(ping(1, sender=2**40 + sender), identity=sender.to_bytes(200))
            rig.take(data(0, [0], sender=2**41 + sender, value=np.nan), identity=b"b")
            rig.take(b"noise" * 20)
            assert len(rig.answers()) == 2
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_the_log_has_a_short_line_for_each_cause_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    for k in range(300):
        rig.intake.refuse(f"stranger: {k}" + 10_000 * "x")
        rig.take(data(k, [k], value=np.inf, sender=k))
    assert len(caplog.records) == 2
    assert max(len(record.getMessage()) for record in caplog.records) < MAX_REASON + 40


def test_a_frame_full_of_nan_takes_no_more_memory_than_it_has_itself() -> None:
    rig = Rig()
    frame = data(0, list(range(4000)), value=np.nan)
    tracemalloc.start()
    try:
        rig.take(frame)
        assert tracemalloc.get_traced_memory()[1] < len(frame)
    finally:
        tracemalloc.stop()
    ((_, answer),) = rig.answers()
    assert answer.reason == "not finite: fields of member 3, samples [0, 1, 2, 3, 4]"
