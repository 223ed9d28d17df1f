"""What a receiver does with messages that come before their turn, or after their member's end."""

from pipeline.flow import Limits
from tests.property.test_ordered_model import HALVES, Rank
from tests.unit.pipeline.stream.test_intake import data

SETUP = Limits(
    policy="fifo",
    capacity=30,
    watermark=1,
    max_reuse=None,
    max_surplus=None,
    concurrent=1,
    batch=1,
    ranks=1,
)


def take(rank: Rank, frame: bytearray) -> None:
    rank.intake.take(memoryview(frame), identity=b"a", now=0.0)
    rank.intake.retry(0.0)


def read(rank: Rank) -> list[tuple[int, int]]:
    return rank.content(rank.book.lease(30, 1).indices.ravel())


def test_who_is_early_waits_and_is_named() -> None:
    rank = Rank(0, SETUP, 3, 2)
    take(rank, data(1, [0, 1], member=2, sender=2))
    take(rank, data(1, [0, 1], member=1, sender=1))
    assert list(rank.intake.waiting_members) == [1, 2]
    take(rank, data(1, [0, 1], member=0, sender=0))
    assert list(rank.intake.waiting_members) == []
    assert read(rank) == [(member, sample) for member in range(3) for sample in range(2)]


def test_what_waits_of_a_member_that_is_given_up_is_dropped() -> None:
    rank = Rank(0, SETUP, 3, 2)
    take(rank, data(1, [0], member=1, sender=1))
    rank.intake.pass_member(1, None)
    rank.intake.retry(0.0)
    assert rank.intake.pending == 0
    assert rank.intake.stats(0.0).duplicates == 1
    take(rank, data(2, [1], member=1, sender=1))
    take(rank, data(1, [0, 1], member=0, sender=0))
    take(rank, data(1, [0, 1], member=2, sender=2))
    assert read(rank) == [(0, 0), (0, 1), (2, 0), (2, 1)]


def test_a_sample_whose_parts_will_not_come_gives_its_slot_and_its_turn_back() -> None:
    rank = Rank(0, SETUP, 2, 2)
    take(rank, data(1, [0], member=0, sender=0, box=HALVES[0]))
    rank.intake.forget_incomplete(0, attempt=1)
    take(rank, data(1, [0], member=1, sender=1))
    assert rank.intake.waiting_members == (1,)
    rank.intake.pass_member(0, None)
    rank.intake.retry(0.0)
    assert read(rank) == [(1, 0)]
    assert rank.book.reserve(1).tolist() == [1]


def test_no_second_sample_is_put_together_before_the_first_is_whole() -> None:
    rank = Rank(0, SETUP, 1, 2)
    for sample in (0, 1):
        take(rank, data(1 + sample, [sample], member=0, sender=0, box=HALVES[0]))
    assert rank.intake.pending == 1
    for sample in (0, 1):
        take(rank, data(1 + sample, [sample], member=0, sender=1, box=HALVES[1]))
    assert rank.intake.pending == 0
    assert read(rank) == [(0, 0), (0, 1)]
