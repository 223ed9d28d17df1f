"""Offline batches: passes, shuffling, time limits, and the training loop on files."""

import gc
import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.array_source import linear_held, linear_problem, linear_samples
from trainers.base import Held, Moments
from trainers.config import TrainerConfig
from trainers.loop.lockstep import World
from trainers.offline import reading
from trainers.offline import source as offline
from trainers.offline.reading import Batches, Item, Passes, Read, Table, pooled
from trainers.offline.source import FileSource
from trainers.offline.stored import MemberSamples, NpyFiles
from trainers.results import TrainStats
from trainers.trainer import train

HELD = (6, 11, 4, 9)  # samples of members 10, 11, ...
MEMBERS = tuple(range(10, 14))
SAMPLES = sum(HELD)
SHAPE = (1, 2, 5, 7)


def written(folder: Path) -> NpyFiles:
    """Fields and inputs that tell the row."""
    files, first = NpyFiles(folder), 0
    for member, count in zip(MEMBERS, HELD, strict=True):
        rows = np.arange(first, first + count, dtype=np.float32)
        fields = np.broadcast_to(rows[:, None, None, None, None], (count, *SHAPE))
        inputs = np.repeat(rows[:, None], 3, axis=1).astype(np.float64)
        steps = np.arange(count, dtype=np.int64)
        files.write(member, MemberSamples(fields=fields.copy(), inputs=inputs, steps=steps))
        first += count
    return files


def nothing_held() -> Held:
    none = np.empty(0, np.int64)
    return Held(
        fields=np.empty((0, *SHAPE), np.float32),
        inputs=np.empty((0, 3)),
        members=none, steps=none, complete=True,
    )  # fmt: skip


MOMENTS = Moments(
    count=SAMPLES, field_count=SAMPLES * 35, field_mean=np.zeros(2), field_m2=np.ones(2),
    step_count=0, step_m2=np.zeros(2), time_low=0.0, time_high=0.4,
)  # fmt: skip


def source_of(
    folder: Path,
    *,
    read: Read = "sample",
    passes: int | None = 1,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    ends_at: float | None = None,
    now: list[float] | None = None,
) -> FileSource:
    files = written(folder)
    return FileSource(
        files=files, table=Table.of(files, MEMBERS), read=read, batch=4, lease_batches=3,
        passes=passes, workers=workers, seed=5, moments=MOMENTS, validation=nothing_held(),
        share=share, ends_at=ends_at, clock=lambda: (now or [0.0])[0],
    )  # fmt: skip


def drain(source: FileSource) -> list[int]:
    """All rows in the order of their batches."""
    drawn: list[int] = []
    finished = False
    while not finished:
        lease = source.lease(3, timeout=60.0)
        rows = source.inputs[lease.indices, 0].astype(int)
        np.testing.assert_array_equal(source.fields[lease.indices][..., 0, 1, 4, 6], rows)
        drawn += rows.ravel().tolist()
        finished = lease.finished
        source.give_back(lease.id)
    source.close()
    return drawn


@pytest.mark.parametrize("read", ["sample", "member"])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_passes_draw_every_sample_twice(tmp_path: Path, read: Read, workers: int) -> None:
    drawn = drain(source_of(tmp_path, read=read, passes=2, workers=workers))
    assert len(drawn) == 2 * SAMPLES  # a multiple of the batch
    assert Counter(drawn) == Counter(dict.fromkeys(range(SAMPLES), 2))


def test_a_pass_ends_before_the_next_begins(tmp_path: Path) -> None:
    drawn = drain(source_of(tmp_path, passes=2))
    assert set(drawn[:SAMPLES]) == set(range(SAMPLES))
    assert drawn[:SAMPLES] != drawn[SAMPLES:] != sorted(drawn[SAMPLES:])


def test_a_last_batch_that_is_not_whole_is_filled_up(tmp_path: Path) -> None:
    drawn = drain(source_of(tmp_path, passes=1))
    assert len(drawn) == 32
    assert Counter(drawn[:SAMPLES]) == Counter(range(SAMPLES))
    assert drawn[SAMPLES:] == drawn[: 32 - SAMPLES]


def test_ranks_share_a_pass(tmp_path: Path) -> None:
    parts = []
    for rank in range(3):
        (tmp_path / str(rank)).mkdir()
        parts.append(drain(source_of(tmp_path / str(rank), share=(rank, 3)))[:10])
    assert sorted(row for part in parts for row in part) == list(range(SAMPLES))


def test_the_same_seed_gives_the_same_order_with_and_without_workers(tmp_path: Path) -> None:
    orders = []
    for workers in (0, 2):
        (tmp_path / str(workers)).mkdir()
        orders.append(drain(source_of(tmp_path / str(workers), workers=workers)))
    assert orders[0] == orders[1]


def test_files_are_forgotten_before_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[int] = []
    monkeypatch.setattr(offline, "forget", lambda paths: forgotten.append(len(paths)))
    drain(source_of(tmp_path, passes=3))
    assert forgotten == [len(MEMBERS)] * 3


def test_when_the_time_is_up_the_stream_is_over(tmp_path: Path) -> None:
    now = [0.0]
    source = source_of(tmp_path, passes=None, ends_at=7.0, now=now)
    for _ in range(30):  # many passes
        lease = source.lease(3, timeout=60.0)
        assert len(lease.indices)
        assert not lease.finished
        source.give_back(lease.id)
    now[0] = 7.0
    lease = source.lease(3, timeout=60.0)
    assert lease.finished
    assert len(lease.indices) == 0
    source.close()


def test_leases_beyond_the_slots_are_empty_and_take_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path, passes=None)
    leases = [source.lease(3, timeout=5.0) for _ in range(40)]
    kept = np.concatenate([lease.indices.ravel() for lease in leases])
    assert len(kept) == len(set(kept.tolist())) == offline.BUFFERS * 3 * 4
    assert len(leases[-1].indices) == 0
    assert not leases[-1].finished
    source.close()


def test_what_goes_wrong_while_reading_is_raised_by_lease(tmp_path: Path) -> None:
    files = written(tmp_path)
    table = Table.of(files, MEMBERS)
    for path in files.paths(MEMBERS):
        path.unlink()
    broken = FileSource(
        files=files, table=table, read="sample", batch=4, lease_batches=3, passes=1, workers=0,
        seed=5, moments=MOMENTS, validation=nothing_held(),
    )  # fmt: skip
    with pytest.raises(FileNotFoundError):
        broken.lease(1, timeout=60.0)
    broken.close()


def test_closing_ends_the_thread_and_the_workers(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    source = source_of(tmp_path, passes=None, workers=2)
    source.lease(1, timeout=60.0)
    assert "offline" in {thread.name for thread in set(threading.enumerate()) - before}
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    source.close()
    source.close()
    assert "offline" not in {thread.name for thread in set(threading.enumerate()) - before}
    del source
    gc.collect()
    for worker in workers:
        worker.join(30.0)
        assert worker.exitcode is not None


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        Table.of(written(tmp_path), [])


def test_a_pool_mixes_members_and_draws_each_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "POOL", 4)

    def members() -> Iterator[Item]:
        for number in range(11):
            rows = torch.arange(number * 6, number * 6 + 6)
            yield rows[:, None, None, None, None].float().expand(6, 1, 1, 2, 2), rows

    batches = list(pooled(members(), 4, np.random.default_rng(1)))
    rows = [row for _, chosen in batches for row in chosen.tolist()]
    assert all(fields[:, 0, 0, 0, 0].tolist() == chosen.tolist() for fields, chosen in batches)
    assert Counter(rows[:66]) == Counter(range(66))
    assert len(rows) == 68  # the last batch is filled up
    mixed = [len({row // 6 for row in chosen.tolist()}) for _, chosen in batches]
    assert np.mean(mixed) > 1.8


def test_batches_go_on_over_passes() -> None:
    begun: list[int] = []
    order = Passes(
        count=5, passes=2, share=(0, 1), rng=np.random.default_rng(2),
        before=lambda: begun.append(1),
    )  # fmt: skip
    batches = list(Batches(order, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    rows = [row for batch in batches for row in batch]
    assert Counter(rows[:10]) == Counter(dict.fromkeys(range(5), 2))
    assert rows[10:] == rows[:2]
    assert len(begun) == 2


@pytest.mark.parametrize("read", ["sample", "member"])
def test_the_training_loop_learns_from_files(tmp_path: Path, read: Read) -> None:
    rng = np.random.default_rng(3)
    files = NpyFiles(tmp_path)
    for member in range(5):
        fields, inputs = linear_samples(rng, 46)
        steps = np.arange(46, dtype=np.int64)
        files.write(member, MemberSamples(fields=fields, inputs=inputs, steps=steps))
    fields, inputs = (np.concatenate(arrays) for arrays in zip(
        *((files.read(member), files.index(member).inputs) for member in range(5)), strict=True
    ))  # fmt: skip
    flat = np.moveaxis(fields.astype(np.float64), 2, 0).reshape(2, -1)
    moments = Moments(
        count=len(inputs), field_count=flat.shape[1], field_mean=flat.mean(1),
        field_m2=flat.var(1) * flat.shape[1], step_count=0, step_m2=np.zeros(2),
        time_low=float(inputs[:, 2].min()), time_high=float(inputs[:, 2].max()),
    )  # fmt: skip
    said: list[TrainStats] = []
    config = TrainerConfig.model_validate(
        {
            "batch": 6, "model": {"kind": "mlp", "hidden": [40, 24]}, "device": "cpu",
            "optimizer": {"kind": "adam", "lr": 3e-3}, "validate_every": 100, "log_every": 50,
        }
    )  # fmt: skip
    source = FileSource(
        files=files, table=Table.of(files, range(5)), read=read, batch=6, lease_batches=8,
        passes=10, workers=0, seed=1, moments=moments, validation=linear_held(rng, 20),
    )  # fmt: skip
    stats = train(source, config, linear_problem(), world=World(), report=said.append)
    source.close()
    assert stats.train_step == -(-10 * 5 * 46 // 6)
    assert stats.validation is not None
    first = next(one.validation for one in said if one.validation is not None)
    assert stats.validation.error < 0.6 * first.error
