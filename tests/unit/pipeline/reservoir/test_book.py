import math
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import StudyFailed
from pipeline.flow import FlowControl, PolicyName
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.policies import SlotSet
from trainers.base import Lease

POLICIES: list[PolicyName] = ["fifo", "firo", "reservoir", "uniform"]


def make(
    policy: PolicyName = "reservoir",
    *,
    capacity: int = 24,
    watermark: int = 7,
    max_reuse: float | None = None,
    max_surplus: float | None = None,
    seed: int = 5,
    drain: bool = True,
) -> Reservoir:
    flow = FlowControl(max_reuse=max_reuse, max_surplus=max_surplus, watermark=watermark)
    rng = np.random.default_rng(seed)
    return Reservoir(policy=policy, capacity=capacity, flow=flow, rng=rng, drain=drain)


def insert(reservoir: Reservoir, count: int) -> list[int]:
    slots = reservoir.reserve(count)
    reservoir.commit(slots)
    return [int(slot) for slot in slots]


def flat(lease: Lease) -> list[int]:
    return [int(slot) for slot in lease.indices.ravel()]


@pytest.mark.parametrize("policy", POLICIES)
def test_reserved_slots_are_distinct_and_bounded_by_the_capacity(policy: PolicyName) -> None:
    reservoir = make(policy)
    assert sorted(insert(reservoir, 10) + insert(reservoir, 30)) == list(range(24))
    assert reservoir.room == 0
    assert reservoir.reserve(3).size == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_an_unseen_sample_is_never_overwritten(policy: PolicyName) -> None:
    reservoir = make(policy)
    insert(reservoir, 24)
    lease = reservoir.lease(2, 4)
    drawn = set(flat(lease))
    reservoir.give_back(lease.id)
    assert set(insert(reservoir, 24)) == drawn
    assert reservoir.evicted == len(drawn)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_leased_slot_is_never_overwritten(policy: PolicyName) -> None:
    reservoir = make(policy)
    insert(reservoir, 24)
    first, second = reservoir.lease(1, 5), reservoir.lease(1, 5)
    assert reservoir.room == 0
    reservoir.give_back(first.id)
    # A slot in both leases is held back until the second one ends as well.
    assert set(insert(reservoir, 24)) == set(flat(first)) - set(flat(second))


def test_a_slot_drawn_twice_in_one_lease_is_free_after_one_give_back() -> None:
    reservoir = make(capacity=3, watermark=3)
    insert(reservoir, 3)
    lease = reservoir.lease(4, 6)
    assert reservoir.stats().leased == 3
    reservoir.give_back(lease.id)
    assert reservoir.stats().leased == 0
    assert reservoir.room == 3


def test_a_lease_given_back_twice_or_unknown_is_ignored() -> None:
    reservoir = make()
    insert(reservoir, 24)
    first, second = reservoir.lease(1, 5), reservoir.lease(1, 5)
    for lease_id in (first.id, first.id, 99):
        reservoir.give_back(lease_id)
    assert reservoir.stats().leased == len(set(flat(second)))


def test_fifo_draws_each_sample_once_in_order_of_arrival() -> None:
    reservoir = make("fifo")
    arrived, drawn = [], []
    for count in (9, 3, 14, 2, 11):
        arrived += insert(reservoir, count)
        lease = reservoir.lease(3, 4)
        drawn += flat(lease)
        reservoir.give_back(lease.id)
    assert drawn == arrived[: len(drawn)]
    assert len(drawn) == reservoir.unique == 36


def test_firo_keeps_the_watermark_back_and_draws_each_sample_once() -> None:
    reservoir = make("firo", capacity=40, watermark=12)
    arrived = insert(reservoir, 35)
    drawn = flat(reservoir.lease(99, 4))
    assert len(drawn) == 20  # of the 23 above the watermark, as whole batches
    assert len(set(drawn)) == 20
    assert drawn != arrived[:20], "in order of arrival, not at random"
    assert reservoir.lease(1, 4).indices.shape == (0, 4)
    assert not reservoir.finished


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_without_a_drain_the_end_of_production_is_the_end(policy: PolicyName) -> None:
    reservoir = make(policy, drain=False)
    insert(reservoir, 24)
    lease = reservoir.lease(1, 5)
    assert not lease.finished
    reservoir.end_production()
    empty = reservoir.lease(3, 5)
    assert empty.indices.shape == (0, 5)
    assert empty.finished
    again = reservoir.replay(2, 5)  # other ranks may have batches left
    assert again.indices.shape == (2, 5)
    for each in (lease, again):
        reservoir.give_back(each.id)
    assert reservoir.stats().leased == 0


def test_firo_draws_every_held_sample_equally_often() -> None:
    counts = np.zeros(30)
    for seed in range(600):
        reservoir = make("firo", capacity=30, watermark=10, seed=seed)
        insert(reservoir, 30)
        counts[reservoir.lease(1, 15).indices] += 1
    # Each is drawn with probability 1/2: 300 +- 12.2 times.
    assert np.abs(counts - 300).max() < 5 * 12.3


def test_the_reservoir_draws_uniformly_with_replacement() -> None:
    reservoir = make(capacity=50)
    insert(reservoir, 50)
    counts = np.bincount(flat(reservoir.lease(500, 20)), minlength=50)
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)
    batch = flat(make_full(50).lease(1, 40))
    assert len(set(batch)) < 40, "a batch of 40 of 50 without a repetition"


def make_full(capacity: int) -> Reservoir:
    reservoir = make(capacity=capacity)
    insert(reservoir, capacity)
    return reservoir


def test_the_replaced_sample_is_a_random_seen_one() -> None:
    counts = np.zeros(20)
    for seed in range(600):
        reservoir = make(capacity=20, seed=seed)
        insert(reservoir, 20)
        lease = reservoir.lease(30, 20)
        reservoir.give_back(lease.id)
        counts[insert(reservoir, 5)] += 1
    # Each of 20 is among the 5 with probability 1/4: 150 +- 10.6 times.
    assert np.abs(counts - 150).max() < 5 * 10.7


def test_draws_wait_for_the_watermark() -> None:
    reservoir = make()
    insert(reservoir, 6)
    ready_before = reservoir.ready
    assert reservoir.lease(4, 3).indices.shape == (0, 3)
    insert(reservoir, 1)
    assert (ready_before, reservoir.ready) == (False, True)
    assert reservoir.lease(4, 3).indices.shape == (4, 3)


def test_draws_wait_for_the_balance_and_come_in_whole_batches() -> None:
    reservoir = make(max_reuse=2.0)
    insert(reservoir, 8)
    assert reservoir.lease(99, 5).indices.shape == (3, 5)
    assert reservoir.lease(99, 5).indices.shape == (0, 5)
    insert(reservoir, 2)
    assert reservoir.lease(99, 5).indices.shape == (1, 5)


def test_reserved_slots_count_for_the_upper_limit() -> None:
    reservoir = make(max_reuse=2.0, max_surplus=31.0)
    slots = [reservoir.reserve(9), reservoir.reserve(9)]
    assert [s.size for s in slots] == [9, 6]
    for each in slots:
        reservoir.commit(each)
    assert reservoir.room == 0
    reservoir.lease(1, 5)
    assert reservoir.room == 3


def test_a_cancelled_slot_is_handed_out_again() -> None:
    reservoir = make()
    slots = reservoir.reserve(24)
    reservoir.cancel(slots[:5])
    reservoir.commit(slots[5:])
    assert sorted(reservoir.reserve(9).tolist()) == sorted(slots[:5].tolist())
    assert reservoir.inserted == 19


def test_only_reserved_slots_are_committed() -> None:
    reservoir = make()
    slots = reservoir.reserve(3)
    reservoir.commit(slots)
    with pytest.raises(ValueError, match=r"slots \[0, 1, 2\] are not reserved"):
        reservoir.commit(slots)
    with pytest.raises(ValueError, match=r"slots \[7\] are not reserved"):
        reservoir.cancel(np.array([7]))


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_admitted_after_the_end_and_late_commits_are_counted(policy: PolicyName) -> None:
    reservoir = make(policy)
    insert(reservoir, 9)
    slots = reservoir.reserve(4)
    reservoir.end_production()
    reservoir.end_production()
    assert reservoir.room == 0
    assert reservoir.reserve(2).size == 0
    assert reservoir.commit(slots) == 0
    assert reservoir.late == 4
    assert reservoir.inserted == 9
    assert set(flat(reservoir.lease(9, 3))) == set(range(9))


@pytest.mark.parametrize("policy", POLICIES)
def test_at_the_end_every_sample_was_drawn_and_short_batches_are_filled_up(
    policy: PolicyName,
) -> None:
    reservoir = make(policy)
    insert(reservoir, 24)
    reservoir.give_back(reservoir.lease(1, 10).id)
    reservoir.end_production()
    left = 24 - reservoir.unique
    leases = [reservoir.lease(1, 10) for _ in range(math.ceil(left / 10))]
    assert [lease.finished for lease in leases] == [False] * (len(leases) - 1) + [True]
    drawn = [slot for lease in leases for slot in flat(lease)]
    assert len(drawn) == math.ceil(left / 10) * 10
    assert len(set(drawn[:left])) == left, "drawn twice before all were drawn once"
    assert reservoir.unique == reservoir.inserted == 24
    assert reservoir.drawn == 10 + len(drawn)
    later = reservoir.lease(3, 10)
    assert later.finished
    assert later.indices.shape == (0, 10)


def test_the_end_lifts_the_balance_and_the_watermark() -> None:
    reservoir = make("firo", capacity=40, watermark=30)
    insert(reservoir, 13)
    ready_before = reservoir.ready
    reservoir.end_production()
    assert (ready_before, reservoir.ready) == (False, True)
    lease = reservoir.lease(99, 6)
    assert lease.finished
    assert len(set(flat(lease)[:13])) == 13


@pytest.mark.parametrize("policy", POLICIES)
def test_replay_draws_any_number_of_batches_from_what_is_left(policy: PolicyName) -> None:
    reservoir = make(policy)
    insert(reservoir, 11)
    reservoir.give_back(reservoir.lease(1, 4).id)
    reservoir.end_production()
    assert reservoir.lease(9, 4).finished
    replayed = reservoir.replay(300, 4)
    assert replayed.finished
    assert replayed.indices.shape == (300, 4)
    assert set(flat(replayed)) == set(range(11))
    assert reservoir.unique == 11


def test_replay_before_the_end_is_an_error() -> None:
    reservoir = make_full(24)
    with pytest.raises(ValueError, match="replay before the end of production"):
        reservoir.replay(1, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rank_without_any_sample_finishes_at_once_and_says_why_it_cannot_replay(
    policy: PolicyName,
) -> None:
    reservoir = make(policy)
    reservoir.end_production()
    assert reservoir.ready
    assert reservoir.finished
    lease = reservoir.lease(3, 4)
    assert lease.finished
    assert lease.indices.shape == (0, 4)
    with pytest.raises(StudyFailed, match="received no sample at all"):
        reservoir.replay(1, 4)


def test_a_lease_of_no_batches_ends_nothing_and_draws_nothing() -> None:
    reservoir = make_full(24)
    assert reservoir.lease(0, 4).indices.shape == (0, 4)
    assert reservoir.drawn == 0


def test_the_same_seed_gives_the_same_draws_and_another_one_others() -> None:
    def draws(seed: int) -> list[int]:
        reservoir = make(seed=seed)
        insert(reservoir, 24)
        lease = reservoir.lease(3, 8)
        reservoir.give_back(lease.id)
        return flat(lease) + insert(reservoir, 6)

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_lease_ids_are_never_used_twice() -> None:
    reservoir = make()
    ids = [reservoir.lease(1, 3).id for _ in range(3)]
    insert(reservoir, 9)
    ids += [reservoir.lease(1, 3).id for _ in range(3)]
    assert all(a < b for a, b in pairwise(ids))


def test_counters_say_what_happened() -> None:
    reservoir = make()
    insert(reservoir, 24)
    reservoir.give_back(reservoir.lease(40, 6).id)
    insert(reservoir, 10)
    lease = reservoir.lease(2, 5)
    stats = reservoir.stats()
    assert stats.capacity == stats.held == 24
    assert (stats.inserted, stats.evicted, stats.drawn) == (34, 10, 250)
    assert stats.leased == len(set(flat(lease)))
    assert stats.unseen == stats.inserted - stats.unique
    assert 0 < stats.unseen < 10
    assert reservoir.filled().tolist() == list(range(24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 6}, "capacity=6 < watermark=7"),
        ({"policy": "fifo", "max_reuse": 2.0}, "max_reuse=2 but policy=fifo draws each once"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)  # type: ignore[arg-type]


def test_a_slot_set_takes_out_every_subset_equally_often() -> None:
    counts: dict[frozenset[int], int] = {}
    rng = np.random.default_rng(3)
    for _ in range(3000):
        slots = SlotSet(9)
        slots.add(np.array([8, 2, 5, 0, 7]))
        subset = frozenset(slots.pop(2, rng).tolist())
        assert set(slots.members().tolist()) == {8, 2, 5, 0, 7} - subset
        counts[subset] = counts.get(subset, 0) + 1
    assert len(counts) == 10
    assert max(abs(count - 300) for count in counts.values()) < 5 * math.sqrt(270)
