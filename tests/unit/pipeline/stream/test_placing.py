from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.placing import Placing
from pipeline.stream.wire import Canvas, Message, Stamp, decode, message_bytes

LAYOUT = SampleLayout(window=1, sample_shape=(2, 6, 10), num_parameters=3)
CLOCK = 1_700_000_037.3  # float32 has no such number
WHOLE = Box.whole(LAYOUT.grid)
TOP, BOTTOM = Box((0, 0), (4, 10)), Box((4, 0), (2, 10))


class Arrays:
    def __init__(self, capacity: int) -> None:
        self.fields = np.zeros((capacity, LAYOUT.window, *LAYOUT.sample_shape), np.float32)
        self.inputs = np.zeros((capacity, LAYOUT.num_inputs))
        self.members = np.full(capacity, -1)
        self.samples = np.full(capacity, -1)
        self.steps = np.full(capacity, -1)


class ListBook:
    """Hands out the listed slots in that order, and checks what comes back."""

    def __init__(self, slots: list[int]) -> None:
        self.free = list(slots)
        self.reserved: set[int] = set()
        self.committed: list[int] = []

    def reserve(self, count: int) -> np.ndarray:
        taken, self.free = self.free[:count], self.free[count:]
        self.reserved |= set(taken)
        return np.array(taken, np.int64)

    def commit(self, slots: np.ndarray) -> None:
        assert set(slots.tolist()) <= self.reserved
        self.reserved -= set(slots.tolist())
        self.committed += slots.tolist()

    def cancel(self, slots: np.ndarray) -> None:
        assert set(slots.tolist()) <= self.reserved
        self.reserved -= set(slots.tolist())
        self.free += slots.tolist()


@dataclass
class Rig:
    arrays: Arrays
    book: ListBook
    placing: Placing

    def put(self, message: Message, *, may_reserve: bool = True) -> list[int]:
        left = self.placing.place(message, np.arange(message.samples.size), may_reserve=may_reserve)
        return [int(sample) for sample in message.samples[left]]


def rig(slots: list[int]) -> Rig:
    arrays, book = Arrays(max(slots, default=0) + 1), ListBook(slots)
    return Rig(arrays, book, Placing(slots=arrays, book=book, layout=LAYOUT))


def truth(member: int, sample: int) -> np.ndarray:
    rng = np.random.default_rng([member, sample])
    return rng.standard_normal((LAYOUT.window, *LAYOUT.sample_shape)).astype(np.float32)


def inputs(member: int, sample: int) -> np.ndarray:
    return np.array([member, CLOCK, -1.0, 0.25 * sample])


def message(
    member: int, samples: list[int], *, box: Box = WHOLE, parameter: float = CLOCK, attempt: int = 1
) -> Message:
    buffer = bytearray(message_bytes(LAYOUT, box, len(samples)))
    canvas = Canvas(memoryview(buffer), layout=LAYOUT, box=box, capacity=len(samples))
    for sample in samples:
        part = truth(member, sample)[(slice(None), slice(None), *box.slices)]
        canvas.add(sample, sample + 1, np.array([0.25 * sample]), part)
    stamp = Stamp(study=1, sender=1, sequence=0, member=member, attempt=attempt, validation=False)
    canvas.seal(stamp, np.array([member, parameter, -1.0]))
    return decode(memoryview(buffer), layout=LAYOUT, study=1)


def check(rig: Rig, slot: int, member: int, sample: int) -> None:
    np.testing.assert_array_equal(rig.arrays.fields[slot], truth(member, sample))
    np.testing.assert_array_equal(rig.arrays.inputs[slot], inputs(member, sample))
    assert rig.arrays.members[slot] == member
    assert rig.arrays.steps[slot] == sample + 1


@pytest.mark.parametrize("slots", [[4, 5, 6], [9, 2, 5], [2, 4, 3]], ids=["run", "mixed", "turned"])
def test_samples_lie_in_the_slots_that_were_reserved(slots: list[int]) -> None:
    r = rig(slots)
    assert r.put(message(7, [1, 3, 5])) == []
    assert r.book.committed == slots
    for slot, sample in zip(slots, [1, 3, 5], strict=True):
        check(r, slot, 7, sample)
    assert r.placing.samples == 3
    assert r.placing.bytes_stored == 3 * LAYOUT.nbytes


def test_samples_without_room_are_named_and_fit_later() -> None:
    r = rig([3, 1])
    m = message(7, [0, 2, 4, 6])
    left = r.placing.place(m, np.arange(4), may_reserve=True)
    assert m.samples[left].tolist() == [4, 6]
    r.book.free = [8 - 6, 0]
    assert r.placing.place(m, left, may_reserve=True).size == 0
    for slot, sample in zip([3, 1, 2, 0], [0, 2, 4, 6], strict=True):
        check(r, slot, 7, sample)
    assert r.placing.duplicates == 0


def test_stored_samples_are_recognised_by_member_and_sample() -> None:
    r = rig(list(range(20)))
    r.put(message(7, [0, 1, 2]))
    assert r.put(message(7, [1, 2, 3, 300])) == []
    assert r.put(message(8, [1])) == []
    assert r.placing.duplicates == 2
    assert r.placing.samples == 6
    assert len(r.book.committed) == 6
    check(r, 4, 7, 300)


def test_no_slot_is_taken_while_older_messages_wait() -> None:
    r = rig([0, 1])
    assert r.put(message(7, [0, 1]), may_reserve=False) == [0, 1]
    assert r.book.reserved == set()


def test_a_sample_is_committed_when_boxes_cover_its_grid_and_not_before() -> None:
    r = rig([5, 2, 7])
    assert r.put(message(3, [0, 1, 2], box=TOP)) == []
    assert r.book.committed == []
    assert r.book.reserved == {5, 2, 7}
    assert r.put(message(3, [1, 2], box=BOTTOM)) == []
    assert r.book.committed == [2, 7]
    check(r, 2, 3, 1)
    check(r, 7, 3, 2)
    assert r.placing.samples == 2
    assert r.placing.bytes_stored == 3 * LAYOUT.nbytes * 4 // 6 + 2 * LAYOUT.nbytes * 2 // 6


def test_a_part_of_a_sample_whose_slot_is_reserved_needs_no_room() -> None:
    r = rig([5])
    assert r.put(message(3, [0, 1], box=TOP)) == [1]
    assert r.put(message(3, [0, 1], box=BOTTOM), may_reserve=False) == [1]
    assert r.book.committed == [5]
    check(r, 5, 3, 0)


def test_repeated_parts_are_dropped_and_counted() -> None:
    r = rig([5, 6])
    r.put(message(3, [0, 1], box=TOP))
    assert r.put(message(3, [0, 1], box=TOP)) == []
    assert r.placing.duplicates == 2
    r.put(message(3, [0], box=BOTTOM))
    r.put(message(3, [0], box=BOTTOM))  # of a sample that is complete by now
    r.put(message(3, [0], box=TOP))
    assert r.placing.duplicates == 4
    assert r.book.committed == [5]


def test_an_overlapping_box_changes_nothing() -> None:
    r = rig([5, 6])
    r.put(message(3, [0], box=TOP))
    before = r.arrays.fields.copy()
    with pytest.raises(StreamRefused, match="sample 0 of member 3 overlaps"):
        r.put(message(3, [0, 1], box=Box((3, 0), (3, 10))))
    with pytest.raises(StreamRefused, match="arrives whole, but parts"):
        r.put(message(3, [0]))
    np.testing.assert_array_equal(r.arrays.fields, before)
    assert r.book.reserved == {5}


def test_parts_of_a_redrawn_member_are_not_mixed() -> None:
    r = rig([5])
    r.put(message(3, [0], box=TOP))
    with pytest.raises(StreamRefused, match="new parameters need a new member"):
        r.put(message(3, [0], box=BOTTOM, parameter=9.0))
    assert r.book.committed == []


def test_incomplete_samples_of_an_ended_member_give_their_slots_back() -> None:
    r = rig([5, 6, 7])
    r.put(message(3, [0, 1], box=TOP))
    r.put(message(4, [0], box=TOP))
    assert r.placing.forget_incomplete(3, attempt=1) == 2
    assert r.book.free == [5, 6]
    assert r.placing.forget_incomplete(3, attempt=1) == 0
    r.put(message(4, [0], box=BOTTOM))
    check(r, 7, 4, 0)


def test_parts_of_a_failed_attempt_that_come_late_are_dropped() -> None:
    r = rig([5, 6, 7])
    r.put(message(3, [0, 1], box=TOP))
    r.put(message(3, [0], box=BOTTOM))
    r.placing.forget_incomplete(3, attempt=1)
    assert r.put(message(3, [1, 2], box=BOTTOM), may_reserve=False) == []
    assert r.placing.duplicates == 2
    assert r.book.reserved == set()
    check(r, 5, 3, 0)  # what is whole stays


def test_the_next_attempt_stores_what_the_last_one_left_unfinished() -> None:
    r = rig([5, 6, 7])
    r.put(message(3, [0, 1], box=TOP))
    r.put(message(3, [0], box=BOTTOM))
    r.placing.forget_incomplete(3, attempt=1)
    for box in (BOTTOM, TOP):
        assert r.put(message(3, [0, 1, 2], box=box, attempt=2)) == []
    assert r.placing.duplicates == 2  # both parts of sample 0
    assert r.placing.samples == 3
    for slot, sample in zip(r.book.committed, [0, 1, 2], strict=True):
        check(r, slot, 3, sample)


def test_parts_of_another_attempt_complete_what_was_not_forgotten() -> None:
    r = rig([5, 6])
    r.put(message(3, [0, 1], box=TOP))
    for box in (TOP, BOTTOM):
        assert r.put(message(3, [0, 1], box=box, attempt=2)) == []
    assert r.placing.duplicates == 2
    assert r.book.committed == [5, 6]


def test_slots_of_another_layout_are_refused() -> None:
    other = SampleLayout(window=2, sample_shape=(2, 6, 10), num_parameters=3)
    with pytest.raises(ValueError, match="cannot hold samples of"):
        Placing(slots=Arrays(2), book=ListBook([0]), layout=other)
