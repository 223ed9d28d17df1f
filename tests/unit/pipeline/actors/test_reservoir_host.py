import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from pipeline.flow import FlowControl
from pipeline.reservoir.book import Reservoir
from pipeline.slots.memory import Slots
from tests.contract.test_batch_source_contract import BATCH, LAYOUT, LocalReservoir
from trainers.base import Lease


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalReservoir]:
    book = Reservoir(
        policy="fifo",
        capacity=12,
        flow=FlowControl(max_reuse=None, max_surplus=None, watermark=8),
        rng=np.random.default_rng(4),
    )
    with Slots.create(tmp_path / "headrace-host", capacity=12, layout=LAYOUT) as slots:
        yield LocalReservoir(book, slots)


class Waiting:
    """A call that is under way on another thread, for seconds more than any test takes."""

    def __init__(self, local: LocalReservoir) -> None:
        self.lease: Lease | None = None
        self._thread = threading.Thread(target=self._run, args=(local,))
        self._thread.start()
        with local.lock:  # not before it waits, or has what it asked for
            pass

    def _run(self, local: LocalReservoir) -> None:
        self.lease = local.host.lease([], 1, BATCH, 60.0)

    def result(self) -> Lease:
        self._thread.join(30.0)
        assert not self._thread.is_alive(), "nobody told it"
        return cast(Lease, self.lease)


def test_a_waiting_rank_goes_on_with_the_sample_that_it_lacked(local: LocalReservoir) -> None:
    waiting = Waiting(local)
    local.produce(7)
    local.produce(1)
    assert waiting.result().indices.shape == (1, BATCH)
    assert local.host.stats()[0].trainer_blocked_seconds > 0


def test_a_waiting_rank_goes_on_at_the_end_of_production(local: LocalReservoir) -> None:
    local.produce(1)
    waiting = Waiting(local)
    local.host.end_production()
    lease = waiting.result()
    assert lease.finished
    assert lease.indices.shape == (1, BATCH)


def test_a_waiting_rank_goes_on_when_training_may_begin(tmp_path: Path) -> None:
    book = Reservoir(
        policy="fifo",
        capacity=12,
        flow=FlowControl(max_reuse=None, max_surplus=None, watermark=2),
        rng=np.random.default_rng(4),
    )
    with Slots.create(tmp_path / "headrace-host", capacity=12, layout=LAYOUT) as slots:
        local = LocalReservoir(book, slots, begun=False)
        local.produce(5)
        assert not local.host.wait_for_watermark(0.0)
        timer = threading.Thread(target=local.host.begin_training)
        timer.start()
        assert local.host.wait_for_watermark(60.0)
        timer.join()


def test_a_call_without_batches_returns_at_once_and_ends_leases(local: LocalReservoir) -> None:
    local.produce(12)
    first = local.host.lease([], 1, BATCH, 0.0)
    assert local.host.stats()[0].leased == BATCH
    woken = local.receiver.woken
    assert local.host.lease([first.id], 0, BATCH, 60.0).indices.size == 0
    assert local.host.stats()[0].leased == 0
    assert local.receiver.woken == woken + 1
    assert local.host.stats()[0].trainer_blocked_seconds < 60


def test_the_wish_to_stop_comes_with_leases_and_replays(local: LocalReservoir) -> None:
    local.produce(12)
    assert not local.host.lease([], 1, BATCH, 0.0).stop_asked
    local.host.ask_to_stop()
    assert local.host.lease([], 1, BATCH, 0.0).stop_asked
    local.host.end_production()
    local.host.lease([], 9, BATCH, 0.0)
    assert local.host.replay(1, BATCH).stop_asked


def test_its_statistics_are_those_of_its_parts(local: LocalReservoir) -> None:
    local.produce(9)
    local.host.lease([], 1, BATCH, 0.0)
    stats, said = local.host.stats()
    assert said is None
    assert (stats.rank, stats.capacity, stats.inserted, stats.drawn) == (0, 12, 9, BATCH)
    assert (stats.due, stats.pending, stats.waiting_members, stats.recorded) == (5, 0, (), 0)
    assert local.host.finish_record() is None
    local.host.close()
    local.host.close()
