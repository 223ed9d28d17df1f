import numpy as np
import pytest

from pipeline.stream.order import Turn


def told(turn: Turn, most: int = 1000) -> list[tuple[int, int]]:
    """Everything that is stored when each member yields all its samples, 7 at most."""
    stored: list[tuple[int, int]] = []
    while (member := turn.member) is not None and len(stored) < most:
        (sample,) = (s for s in range(7) if turn.ready(member, np.array([s])))
        stored.append((member, sample))
        turn.advance(1)
        turn.stored()
    return stored


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_sample_has_its_turn_at_one_reservoir_by_member_and_sample(ranks: int) -> None:
    everything = []
    for rank in range(ranks):
        stored = told(Turn(members=range(2, 7), samples=7, rank=rank, ranks=ranks))
        assert stored == sorted(stored)
        assert all((member + sample) % ranks == rank for member, sample in stored)
        everything += stored
    assert sorted(everything) == [(member, sample) for member in range(2, 7) for sample in range(7)]


def test_a_validation_member_has_its_turn_as_a_whole() -> None:
    stored = told(Turn(members=range(5), samples=7, rank=1, ranks=2, whole=True))
    assert stored == [(member, sample) for member in (1, 3) for sample in range(7)]


def test_only_the_next_samples_in_a_row_are_ready() -> None:
    turn = Turn(members=range(3), samples=7, rank=0, ranks=2)
    assert turn.ready(0, np.array([0, 2, 6])) == 2
    assert turn.ready(0, np.array([2, 4])) == 0
    assert turn.ready(1, np.array([1])) == 0
    turn.advance(2)
    assert turn.ready(0, np.array([4, 6])) == 2
    turn.advance(-1)
    assert turn.ready(0, np.array([2, 4])) == 2


def test_who_is_told_to_be_over_is_passed_in_order_and_counts_as_uneven() -> None:
    turn = Turn(members=range(5), samples=7, rank=0, ranks=2)
    assert turn.spread == 2
    turn.pass_member(1, None)
    turn.pass_member(2, None)
    assert (turn.member, turn.spread) == (0, 2)
    assert turn.is_over(1)
    turn.pass_member(0, None)
    assert (turn.member, turn.spread) == (3, 5)
    turn.pass_member(1, None)  # again
    assert (turn.member, turn.spread) == (3, 5)
    assert not turn.is_over(3)


def test_a_single_reservoir_is_even_with_itself() -> None:
    turn = Turn(members=range(2), samples=7, rank=0, ranks=1)
    turn.pass_member(0, None)
    assert turn.spread == 0


def test_who_takes_the_place_of_a_failed_member_comes_last_in_order_of_numbers() -> None:
    turn = Turn(members=range(4), samples=7, rank=0, ranks=1)
    turn.pass_member(2, 6)
    turn.pass_member(1, 5)
    assert list(dict(told(turn))) == [0, 3, 5, 6]
    assert turn.member is None
    turn.pass_member(5, 9)  # late: whoever is next is next
    assert turn.member == 9


def test_a_member_without_a_sample_here_is_passed() -> None:
    turn = Turn(members=range(4), samples=1, rank=1, ranks=3)
    assert turn.member == 1
    turn.advance(1)
    turn.stored()
    assert turn.member is None
