"""A reservoir that is written, and read back by as many ranks or another number of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.checkpoint.restore import read, stored_samples
from pipeline.checkpoint.store import Snapshot, store_path, write
from pipeline.errors import ConfigError
from pipeline.flow import FlowControl, PolicyName
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.state import Counters, HeldRows, ReservoirState, fitting, home, share_of
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots

LAYOUT = SampleLayout(window=2, sample_shape=(3, 4, 6), num_parameters=5)
CLOCK = 1_700_000_037.3  # float32 has no such number
CAPACITY, VALIDATION, MEMBERS, SAMPLES = 30, 20, 7, 9


def value_of(members: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return np.asarray(members * 100 + samples, np.float32)


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[tuple[Slots, Slots]]:
    with (
        Slots.create(tmp_path / "headrace-t", capacity=CAPACITY, layout=LAYOUT) as training,
        Slots.create(tmp_path / "headrace-v", capacity=VALIDATION, layout=LAYOUT) as validation,
    ):
        yield training, validation


def fill(slots: Slots, where: np.ndarray, members: np.ndarray, samples: np.ndarray) -> None:
    slots.members[where], slots.samples[where] = members, samples
    slots.steps[where] = 10 * samples
    slots.inputs[where] = CLOCK + value_of(members, samples)[:, None]
    slots.fields[where] = value_of(members, samples)[:, None, None, None, None]


def of_rank(rank: int, ranks: int, *, members: range, validation: bool) -> tuple[np.ndarray, ...]:
    pairs = [(m, s) for m in members for s in range(SAMPLES)]
    members_, samples = (np.array(each) for each in zip(*pairs, strict=True))
    own = home(members_, samples, validation=validation, ranks=ranks) == rank
    return members_[own], samples[own]


def save(checkpoint: Path, slots: tuple[Slots, Slots], rank: int, ranks: int) -> Snapshot:
    """Members 2 to 6 are trained on; the first samples of each rank were evicted."""
    members, samples = of_rank(rank, ranks, members=range(2, MEMBERS), validation=False)
    inserted = members.size
    stored = {
        int(member): np.isin(np.arange(128), samples[members == member])
        for member in np.unique(members)
    }
    members, samples = members[4:][:CAPACITY], samples[4:][:CAPACITY]
    rng = np.random.default_rng(rank)
    where = rng.permutation(CAPACITY)[: members.size]
    fill(slots[0], where, members, samples)
    kept_members, kept_samples = of_rank(rank, ranks, members=range(2), validation=True)
    kept = np.arange(kept_members.size)
    fill(slots[1], kept, kept_members, kept_samples)
    seen = np.arange(members.size) < 5
    snapshot = Snapshot(
        state=_state(where, seen, inserted),
        validation=kept,
        stored=stored,
        validation_stored={
            int(member): np.isin(np.arange(128), kept_samples[kept_members == member])
            for member in np.unique(kept_members)
        },
    )
    told: list[int] = []
    write(
        store_path(checkpoint, rank),
        snapshot,
        training=slots[0],
        validation=slots[1],
        copied=lambda block: told.extend(block.tolist()),
    )
    assert told == where.tolist()
    return snapshot


def _state(where: np.ndarray, seen: np.ndarray, inserted: int) -> ReservoirState:
    return ReservoirState(
        held=HeldRows(slots=where, draws=3 * seen, numbers=np.arange(seen.size)),
        counters=Counters(inserted=inserted, drawn=3 * inserted),
        rng=dict(np.random.default_rng(5).bit_generator.state),
    )


def restore(
    checkpoint: Path, slots: tuple[Slots, Slots], rank: int, ranks: int, old_ranks: int
) -> Snapshot:
    for each in slots:
        each.fields[:], each.inputs[:] = -1.0, -1.0
        each.members[:], each.samples[:], each.steps[:] = -1, -1, -1
    return read(
        checkpoint,
        rank=rank,
        ranks=ranks,
        old_ranks=old_ranks,
        training=slots[0],
        validation=slots[1],
    )


@pytest.mark.parametrize(("old_ranks", "ranks"), [(2, 2), (2, 3), (3, 2), (1, 4)])
@pytest.mark.parametrize("block", [1, 4000, 1 << 23])
def test_every_sample_and_what_is_known_of_it_goes_where_its_sender_sends_it(
    tmp_path: Path,
    slots: tuple[Slots, Slots],
    old_ranks: int,
    ranks: int,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.checkpoint.store.BLOCK_BYTES", block)
    saved = [save(tmp_path, slots, rank, old_ranks) for rank in range(old_ranks)]
    held: list[tuple[int, int]] = []
    drawn = 0
    for rank in range(ranks):
        restored = restore(tmp_path, slots, rank, ranks, old_ranks)
        count = len(restored.state.held.seen)
        members, samples = slots[0].members[:count].copy(), slots[0].samples[:count].copy()
        assert (home(members, samples, validation=False, ranks=ranks) == rank).all()
        expected = value_of(members, samples)
        assert (slots[0].fields[:count] == expected[:, None, None, None, None]).all()
        assert (slots[0].inputs[:count] == CLOCK + expected[:, None]).all()
        assert (slots[0].steps[:count] == 10 * samples).all()
        assert (slots[0].members[count:] == -1).all()
        held += zip(members.tolist(), samples.tolist(), strict=True)
        own = of_rank(rank, ranks, members=range(2, MEMBERS), validation=False)
        assert sum(int(known.sum()) for known in restored.stored.values()) == own[0].size
        assert restored.state.counters.inserted == own[0].size
        assert restored.state.counters.drawn <= 3 * own[0].size
        drawn += restored.state.counters.drawn
        checks = of_rank(rank, ranks, members=range(2), validation=True)
        assert restored.validation.size == checks[1].size
        assert sorted(slots[1].samples[: checks[1].size].tolist()) == sorted(checks[1].tolist())
        assert set(slots[1].members[: checks[0].size]) == set(checks[0].tolist())
    lost = 4 * old_ranks
    unseen = sum(int((~each.state.held.seen).sum()) for each in saved)
    assert len(held) == len(set(held)) == 5 * SAMPLES - lost - _overfull(old_ranks)
    assert len(held) == unseen + 5 * old_ranks
    assert 3 * 5 * SAMPLES - ranks < drawn <= 3 * 5 * SAMPLES


def _overfull(old_ranks: int) -> int:
    """Samples that found no slot in ``save``."""
    return sum(
        max(0, of_rank(r, old_ranks, members=range(2, MEMBERS), validation=False)[0].size - 4 - 30)
        for r in range(old_ranks)
    )


def test_with_as_many_ranks_the_random_numbers_go_on(
    tmp_path: Path, slots: tuple[Slots, Slots]
) -> None:
    before = [save(tmp_path, slots, rank, 2) for rank in range(2)]
    assert restore(tmp_path, slots, 1, 2, 2).state.rng == before[1].state.rng
    assert restore(tmp_path, slots, 1, 3, 2).state.rng is None


def test_the_samples_of_each_member_are_counted_over_the_ranks(
    tmp_path: Path, slots: tuple[Slots, Slots]
) -> None:
    for rank in range(3):
        save(tmp_path, slots, rank, 3)
    assert stored_samples(tmp_path, 3) == dict.fromkeys(range(MEMBERS), SAMPLES)


def test_anybody_can_read_the_store(tmp_path: Path, slots: tuple[Slots, Slots]) -> None:
    save(tmp_path, slots, 0, 1)
    group = zarr.open_group(store_path(tmp_path, 0), mode="r")
    fields = group["training/fields"]
    assert isinstance(fields, zarr.Array)
    assert fields.shape == (CAPACITY, *slots[0].fields.shape[1:])
    assert group.metadata.zarr_format == 3


# --- what does not fit ----------------------------------------------------------------------------


def rows(seen: list[bool]) -> HeldRows:
    flags = np.array(seen)
    return HeldRows(slots=np.arange(flags.size), draws=3 * flags, numbers=np.arange(flags.size))


def test_fewer_slots_cost_seen_samples_only() -> None:
    held = rows([True, True, True, False, False, False])
    assert fitting(held, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert fitting(held, 4).tolist() == [2, 3, 4, 5]
    assert fitting(held, 3).tolist() == [3, 4, 5]


def test_fewer_slots_than_unseen_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"reservoir.capacity=2: the checkpoint holds 3 samples"):
        fitting(rows([True, False, False, False]), 2)


def test_no_share_has_more_draws_than_its_samples_allow() -> None:
    parts = [Counters(inserted=7, drawn=28), Counters(inserted=6, drawn=24)]
    shares = [share_of(parts, inserted=[5, 4, 4], rank=rank) for rank in range(3)]
    assert [share.drawn for share in shares] == [20, 16, 16]


# --- the bookkeeping ------------------------------------------------------------------------------


def reservoir(policy: PolicyName, seed: int = 0) -> Reservoir:
    return Reservoir(
        policy=policy,
        capacity=12,
        flow=FlowControl(max_reuse=None, max_surplus=None, watermark=3),
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_samples_of_open_leases_are_unseen_again(policy: PolicyName) -> None:
    book = reservoir(policy)
    book.commit(book.reserve(11))
    first = book.lease(2, 2)
    book.give_back(first.id)
    second = book.lease(1, 3)
    state = book.state(0)
    seen = set(state.held.slots[state.held.seen].tolist())
    assert seen == set(first.indices.ravel().tolist())
    assert state.counters.drawn == 4
    if policy == "fifo":
        order = state.held.slots[~state.held.seen].tolist()
        assert order[:3] == second.indices.ravel().tolist()
        assert order == sorted(order)


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_what_was_drained_is_not_drained_again(policy: PolicyName) -> None:
    book = reservoir(policy)
    book.commit(book.reserve(11))
    book.give_back(book.lease(1, 2).id)
    book.end_production()
    done = book.lease(1, 4)
    book.give_back(done.id)
    book.lease(1, 3)
    again = reservoir(policy)
    state = book.state(0)
    again.restore(state)
    again.end_production()
    left = 0
    while not again.finished:
        left += again.lease(1, 1).indices.size
    assert left == np.count_nonzero(~state.held.seen) <= 6
    assert again.unique == again.inserted == 11


@pytest.mark.parametrize("policy", ["firo", "reservoir"])
def test_random_draws_go_on_where_they_were(policy: PolicyName) -> None:
    book = reservoir(policy)
    book.commit(book.reserve(9))
    book.give_back(book.lease(1, 2).id)
    states = []
    for _ in range(2):
        again = reservoir(policy, seed=99)
        again.restore(book.state(0))
        states.append(again.lease(2, 2).indices.tolist())
    assert states[0] == states[1]


def test_a_pinned_slot_is_not_overwritten_and_draws_do_not_notice() -> None:
    book = reservoir("reservoir")
    book.commit(book.reserve(12))
    lease = book.lease(6, 4)
    book.give_back(lease.id)
    free = book.room
    assert free > 0
    pinned = book.pin()
    assert book.room == 0
    again = book.lease(1, 4)
    book.give_back(again.id)
    assert book.room == 0
    block = lease.indices.ravel()[:1]
    book.unpin(block)
    assert book.reserve(5).tolist() == block.tolist()
    book.unpin(pinned)
    seen = set(lease.indices.ravel().tolist()) | set(again.indices.ravel().tolist())
    assert book.room == len(seen) - 1


def test_only_an_empty_reservoir_is_restored() -> None:
    book = reservoir("fifo")
    book.commit(book.reserve(4))
    with pytest.raises(ValueError, match="before anything is stored"):
        book.restore(book.state(0))
