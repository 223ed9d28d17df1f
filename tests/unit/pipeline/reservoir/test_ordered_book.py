import math

import numpy as np
import pytest

from pipeline.errors import StudyFailed
from pipeline.flow import FlowControl, PolicyName
from pipeline.reservoir.ordered_book import OrderedReservoir


def reservoir(
    *,
    policy: PolicyName = "reservoir",
    capacity: int = 20,
    watermark: int = 5,
    max_reuse: float | None = 2.0,
    max_surplus: float | None = None,
    batch: int = 3,
    spread: int = 0,
) -> OrderedReservoir:
    return OrderedReservoir(
        policy=policy,
        capacity=capacity,
        flow=FlowControl(max_reuse=max_reuse, max_surplus=max_surplus, watermark=watermark),
        rng=np.random.default_rng(1),
        batch=batch,
        spread=lambda: spread,
    )


def insert(book: OrderedReservoir, count: int) -> int:
    """Store up to ``count`` samples; how many found room."""
    done = 0
    while done < count:
        slots = book.reserve(count - done)
        if slots.size == 0:
            break
        done += book.commit(slots)
    return done


@pytest.mark.parametrize(
    ("policy", "max_reuse", "due"),
    [("reservoir", 2.0, [0, 0, 0, 0, 0, 3, 4, 4]), ("fifo", None, [0, 0, 0, 0, 0, 1, 2, 2]),
     ("firo", 1.0, [0, 0, 0, 0, 0, 0, 0, 0, 1])],
)  # fmt: skip
def test_after_n_inserts_exactly_the_batches_of_n_inserts_are_drawn(
    policy: PolicyName, max_reuse: float | None, due: list[int]
) -> None:
    book = reservoir(policy=policy, max_reuse=max_reuse)
    assert [book.due(n) for n in range(len(due))] == due
    insert(book, len(due) - 1)
    assert len(book.lease(100, 3).indices) == due[-1]


def test_slots_are_given_out_up_to_the_next_draw_and_then_filled_first() -> None:
    book = reservoir()
    slots = book.reserve(100)
    assert slots.tolist() == [0, 1, 2, 3, 4]
    assert book.reserve(1).size == 0
    book.commit(slots)
    assert book.reserve(100).tolist() == [5]


def test_cancelled_slots_are_given_to_the_next_samples() -> None:
    book = reservoir()
    book.cancel(book.reserve(2))
    assert book.reserve(3).tolist() == [0, 1, 2]


def test_the_victim_waits_until_nobody_reads_it_and_is_not_chosen_anew() -> None:
    book = reservoir()
    assert insert(book, 200) == 20  # all seen ones are in batches that nobody has trained on
    queued = len(book.lease(0, 3).indices) + book.due(20)
    leases = [book.lease(1, 3) for _ in range(queued)]
    assert insert(book, 1) == 0
    victim = book._victim
    assert victim is not None
    last = max(lease.id for lease in leases if victim in lease.indices)
    for lease in leases:
        assert insert(book, 1) == 0
        book.give_back(lease.id)
        if lease.id == last:
            break
    assert book.reserve(1).tolist() == [victim]


def test_a_slot_of_a_batch_that_another_rank_may_not_have_is_not_chosen() -> None:
    for seed_batches in range(1, 4):
        book = reservoir(spread=4, batch=seed_batches)
        insert(book, 200)
        assert book._victim is not None
        safe = book.due(20 - 4)
        assert book._last_batch[book._victim] < safe


def test_a_lease_holds_batches_that_all_ranks_have_or_one() -> None:
    book = reservoir(spread=4)
    insert(book, 14)
    safe = book.due(10)
    assert len(book.lease(100, 3).indices) == safe
    assert len(book.lease(100, 3).indices) == 1
    book.end_production()
    assert len(book.lease(100, 3).indices) > 1


def test_max_surplus_holds_the_solvers() -> None:
    book = reservoir(capacity=100, max_surplus=25.0)
    assert insert(book, 100) == 12
    book.lease(1, 3)
    assert insert(book, 100) == 2


def test_after_production_what_was_never_drawn_is_and_replays_go_on() -> None:
    book = reservoir(policy="reservoir", batch=3)
    with pytest.raises(ValueError, match="replay before the end"):
        book.replay(1, 3)
    insert(book, 20)
    book.end_production()
    book.end_production()
    assert book.reserve(1).size == 0
    lease = book.lease(1000, 3)
    assert lease.finished
    before = book.due(20)
    unseen = set(range(20)) - set(lease.indices[:before].ravel().tolist())
    assert len(lease.indices) == before + math.ceil(len(unseen) / 3)
    assert unseen <= set(lease.indices[before:].ravel().tolist())
    book.give_back(lease.id)
    together = reservoir(policy="reservoir", batch=3)
    insert(together, 20)
    together.end_production()
    apart = np.concatenate([book.replay(n, 3).indices for n in (1, 3, 2)])
    assert apart.tolist() == together.replay(6, 3).indices.tolist()
    assert book.stats().unique == 20


def test_what_comes_after_the_end_is_counted() -> None:
    book = reservoir()
    slots = book.reserve(2)
    book.end_production()
    assert book.commit(slots) == 0
    assert book.late == 2


def test_a_rank_without_a_sample_cannot_draw_again() -> None:
    book = reservoir()
    book.end_production()
    assert book.ready
    assert book.finished
    with pytest.raises(StudyFailed, match="no sample at all"):
        book.replay(1, 3)


def test_without_max_reuse_there_is_no_fixed_place_for_a_draw() -> None:
    with pytest.raises(ValueError, match="without max_reuse"):
        reservoir(max_reuse=None)


def test_a_reservoir_full_of_unseen_samples_says_so() -> None:
    book = reservoir(capacity=5, watermark=5, batch=100)
    insert(book, 5)
    with pytest.raises(StudyFailed, match=r"Raise reservoir\.capacity"):
        book.reserve(1)


def batches_of(policy: PolicyName, together: np.random.Generator | None) -> list[list[int]]:
    """Samples in every batch; one is stored at a time, or as many as the generator says."""
    made = OrderedReservoir(
        policy=policy,
        capacity=60,
        flow=FlowControl(max_reuse=4.0, max_surplus=None, watermark=20),
        rng=np.random.default_rng(5),
        batch=10,
        spread=lambda: 2,
    )
    content, read, sent = np.full(60, -1), [], 0
    while sent < 300 or not made.finished:
        count = 1 if together is None else int(together.integers(1, 9))
        slots = made.reserve(min(count, 300 - sent))
        content[slots] = np.arange(sent, sent + slots.size)
        sent += slots.size
        made.commit(slots)
        if sent == 300:
            made.end_production()
        if slots.size == 0:
            lease = made.lease(1, 10)
            read += [content[indices].tolist() for indices in lease.indices]
            made.give_back(lease.id)
    return read


@pytest.mark.parametrize("policy", ["reservoir", "uniform"])
def test_batches_do_not_depend_on_how_many_samples_come_at_once(policy: PolicyName) -> None:
    expected = batches_of(policy, None)
    assert len(expected) > 100
    for seed in range(4):
        assert batches_of(policy, np.random.default_rng(seed)) == expected
