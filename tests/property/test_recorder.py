"""The record against a list: what was inserted or drawn, for random orders and repetitions."""

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.record.choice import select
from pipeline.record.reader import open_record
from pipeline.record.rows import RowGroup
from pipeline.slots.layout import Box
from tests.record_rig import Rank, check_content, open_rank, pairs_in

SAMPLES = st.lists(st.integers(0, 8), min_size=1, max_size=6, unique=True).map(sorted)
INSERT = st.tuples(st.just("insert"), st.integers(0, 3), SAMPLES)
DRAW = st.tuples(st.just("draw"), st.integers(1, 3), st.integers(1, 4))
FLUSH = st.tuples(st.just("flush"))
ACTIONS = st.lists(st.one_of(INSERT, DRAW, FLUSH), max_size=30)
LIMITS = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def wanted(pairs: set[tuple[int, int]], every: int, fraction: float) -> list[tuple[int, int]]:
    """Which of these the record must hold."""
    ordered = sorted(pairs)
    if not ordered:
        return []
    members, samples = np.array(ordered).T
    chosen = select(members, samples, seed=11, every=every, fraction=fraction)
    return [pair for pair, yes in zip(ordered, chosen, strict=True) if yes]


def test_a_forgotten_attempt_is_not_in_the_record_twice(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    rank = Rank(record, what="inserted")
    left, right = Box((0, 0), (3, 2)), Box((0, 2), (3, 3))
    rank.insert(2, [0], left)
    rank.insert(2, [0], right)  # whole: it counts, whatever becomes of the attempt
    rank.insert(2, [1], left)
    assert rank.placing.forget_incomplete(2, attempt=1) == 1
    rank.insert(2, [1], right)  # still on its way when the attempt had failed
    for box in (left, right):
        rank.insert(2, [0, 1], box, attempt=2)
    record.close(complete=True)
    dataset = open_record(tmp_path)
    assert pairs_in(dataset) == [(2, 0), (2, 1)]
    check_content(dataset)


def play(rank: Rank, actions: list[tuple[Any, ...]]) -> set[tuple[int, int]]:
    """Carry the actions out; what was stored."""
    stored: set[tuple[int, int]] = set()
    for action in actions:
        if action[0] == "insert":
            member, samples = action[1:]
            left = rank.insert(member, samples)
            stored |= {(member, sample) for sample in samples if sample not in left}
        elif action[0] == "draw":
            rank.draw(*action[1:])
        else:
            rank.record.flush()
    return stored


@given(
    actions=ACTIONS,
    what=st.sampled_from(["inserted", "drawn"]),
    fraction=st.sampled_from([1.0, 0.5, 0.1]),
    every=st.integers(1, 3),
)
@LIMITS
def test_the_record_holds_exactly_what_was_asked_for(
    actions: list[tuple[Any, ...]], what: str, fraction: float, every: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # A queue that is never full, so that nothing may be dropped.
        record = open_rank(Path(folder))
        rank = Rank(record, what=what, fraction=fraction, every=every)
        stored = play(rank, actions)
        rank.book.end_production()
        record.close(complete=True)
        dataset = open_record(folder)
        pairs = {"inserted": stored, "drawn": set(rank.drawn)}[what]
        assert pairs_in(dataset) == wanted(pairs, every, fraction)
        check_content(dataset)
        draws = dict(zip(pairs_in(dataset), dataset["draws"].values.tolist(), strict=True))
        assert draws == {pair: rank.drawn.get(pair, 0) for pair in draws}
        assert dataset.attrs["complete"] is True


@given(
    pairs=st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1),
    seed=st.integers(0, 2**63 - 1),
    order=st.randoms(use_true_random=False),
)
def test_the_share_depends_on_seed_member_and_sample_alone(
    pairs: list[tuple[int, int]], seed: int, order: random.Random
) -> None:
    def choose(some: list[tuple[int, int]]) -> Counter[tuple[int, int]]:
        members, samples = np.array(some, np.int64).T
        chosen = select(members, samples, seed=seed, every=2, fraction=0.4)
        return Counter(pair for pair, yes in zip(some, chosen, strict=True) if yes)

    together = choose(pairs)
    assert sum((choose([pair]) for pair in pairs), Counter()) == together
    shuffled = list(pairs)
    order.shuffle(shuffled)
    assert choose(shuffled) == together


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_the_share_is_as_large_as_asked_for(fraction: float) -> None:
    members, samples = (grid.ravel() for grid in np.mgrid[0:200, 0:100])
    count = int(select(members, samples, seed=3, every=1, fraction=fraction).sum())
    # Binomial: five standard deviations.
    assert abs(count - 20_000 * fraction) < 5 * (20_000 * fraction * (1 - fraction)) ** 0.5
    for member in range(3):  # of every member, not of some members all
        mine = members == member
        chosen = select(members[mine], samples[mine], seed=3, every=1, fraction=fraction)
        assert 0 < chosen.sum() < 100


def test_parts_of_several_mpi_ranks_are_recorded_when_the_sample_is_whole(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    rank = Rank(record)
    top, bottom = Box((0, 0), (2, 5)), Box((2, 0), (1, 5))
    rank.insert(3, [0, 1], top)
    rank.insert(3, [1], bottom)
    record.flush()
    assert pairs_in(open_record(tmp_path)) == [(3, 1)]
    rank.insert(3, [0, 1], bottom)  # one of them again
    record.close()
    assert pairs_in(open_record(tmp_path)) == [(3, 0), (3, 1)]
    check_content(open_record(tmp_path))


def test_what_comes_after_the_end_of_production_is_not_recorded(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    rank = Rank(record)
    top, bottom = Box((0, 0), (2, 5)), Box((2, 0), (1, 5))
    rank.insert(1, [0], top)
    rank.book.end_production()
    rank.insert(1, [0], bottom)
    record.close()
    assert pairs_in(open_record(tmp_path)) == []


@given(
    before=ACTIONS,
    lost=ACTIONS,
    after=ACTIONS,
    what=st.sampled_from(["inserted", "drawn"]),
)
@LIMITS
def test_what_came_after_a_checkpoint_is_gone_from_a_resumed_record(
    before: list[tuple[Any, ...]],
    lost: list[tuple[Any, ...]],
    after: list[tuple[Any, ...]],
    what: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        record = open_rank(Path(folder))
        rank = Rank(record, what=what)
        stored = play(rank, before)
        if rank.held():
            rank.lease_and_lose(2, 3)  # under lease when the checkpoint is taken
        resume = rank.checkpoint()
        play(rank, lost)
        record.close()
        record = open_rank(Path(folder), **rank.kept)
        rank = resume(record)
        stored |= play(rank, after)
        rank.book.end_production()
        record.close(complete=True)
        dataset = open_record(folder)
        pairs = {"inserted": stored, "drawn": set(rank.drawn)}[what]
        found = pairs_in(dataset)
        assert len(found) == len(set(found))
        assert set(found) >= pairs
        draws = dict(zip(found, dataset["draws"].values.tolist(), strict=True))
        assert draws == {pair: rank.drawn.get(pair, 0) for pair in draws}
        if what != "drawn":  # what was leased only has its row, and waits for its draw
            assert set(found) == pairs
        check_content(dataset)


def test_rows_that_a_full_disk_has_swallowed_count_as_dropped_after_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_rank(tmp_path)
    rank = Rank(record, what="inserted")
    rank.insert(1, [0, 1, 2, 3, 4])
    assert record.flush() == 5

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowGroup, "write_chunk", full)
    rank.insert(2, [0, 1, 2, 3, 4])
    rank.checkpoint()
    assert rank.kept == {"keep": 5, "dropped": 5}
    record.close()
    monkeypatch.undo()
    record = open_rank(tmp_path, **rank.kept)
    record.close(complete=True)
    assert open_record(tmp_path).attrs["complete"] is False
