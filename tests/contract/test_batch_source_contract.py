"""Every batch source keeps the invariants of trainers/base.py; a new one is added to ``CASES``."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import numpy as np
import pytest

from pipeline.actors.parts import Announced, Parts
from pipeline.actors.reservoir_host import ReservoirHost
from pipeline.flow import FlowControl, PolicyName
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.batches import ReservoirSource
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots
from pipeline.stream.endpoint import Endpoint
from pipeline.stream.intake import Intake
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import Turnstile
from trainers.base import BatchSource, Held, Lease
from trainers.offline.reading import Read, Table
from trainers.offline.source import FileSource
from trainers.offline.stored import MemberSamples, NpyFiles
from trainers.tasks.moments import moments_of

LAYOUT = SampleLayout(window=2, sample_shape=(3, 4, 6), num_parameters=5)
BATCH = 4
WATERMARK = 10
SAMPLES = 50  # in the whole stream; not a multiple of the batch, more than there are slots


def sample_fields(samples: np.ndarray) -> np.ndarray:
    """Fields that tell which sample they are."""
    shape = (samples.size, LAYOUT.window, *LAYOUT.sample_shape)
    return np.broadcast_to(samples.reshape(-1, 1, 1, 1, 1), shape).astype(np.float32)


class NoReceiver:
    """Nothing comes in: samples are made by the test."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


@final
class LocalReservoir:
    """The host of a reservoir in this process, and what stands in for its receiver."""

    def __init__(self, book: Reservoir, slots: Slots, *, begun: bool = True) -> None:
        self.book, self.slots, self.lock, self.produced = book, slots, Turnstile(), 0
        self.announced, self.receiver = Announced(book, self.lock), NoReceiver()
        placing = Placing(slots=slots, book=self.announced, layout=LAYOUT)
        self.host = ReservoirHost(
            Parts(
                rank=0,
                lock=self.lock,
                training=slots,
                book=book,
                intake=Intake(layout=LAYOUT, study=1, training=placing),
                receivers=[self.receiver],
                endpoint=Endpoint(address="nowhere"),
                appended=Appended(capacity=0),
            )
        )
        if begun:
            self.host.begin_training()
        self.host.end_validation()

    def produce(self, count: int) -> int:
        """Store up to ``count`` further samples, as many as find room."""
        with self.lock:
            slots = self.announced.reserve(min(count, SAMPLES - self.produced))
            samples = np.arange(self.produced, self.produced + slots.size)
            self.slots.fields[slots] = sample_fields(samples)
            self.slots.inputs[slots] = samples[:, None]
            self.announced.commit(slots)
            self.produced += slots.size
        if self.produced == SAMPLES:
            self.host.end_production()
        return int(slots.size)


class Case(ABC):
    """A source, and a hand on what feeds it."""

    source: BatchSource

    @abstractmethod
    def produce(self, count: int) -> int:
        """Let up to ``count`` samples arrive; how many did."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""


class ReservoirCase(Case):
    policy: PolicyName
    max_reuse: float | None = None

    def __init__(self, directory: Path) -> None:
        self.slots = Slots.create(directory / "headrace-contract", capacity=30, layout=LAYOUT)
        reservoir = Reservoir(
            policy=self.policy,
            capacity=30,
            flow=FlowControl(max_reuse=self.max_reuse, max_surplus=None, watermark=WATERMARK),
            rng=np.random.default_rng(2),
        )
        self.local = LocalReservoir(reservoir, self.slots)
        self.source = self.live = ReservoirSource(
            client=self.local.host,
            training=Slots.attach(self.slots.description),
            validation=None,
            batch=BATCH,
            wait_slice=0.01,
        )

    def produce(self, count: int) -> int:
        return self.local.produce(count)

    def close(self) -> None:
        self.live.close()
        self.slots.close()


@final
class FifoCase(ReservoirCase):
    policy = "fifo"


@final
class FiroCase(ReservoirCase):
    policy = "firo"


@final
class UniformCase(ReservoirCase):
    policy = "reservoir"
    max_reuse = 3.0


class FilesCase(Case):
    """Everything is on disk from the start."""

    read: Read

    def __init__(self, directory: Path) -> None:
        samples, files = np.arange(SAMPLES), NpyFiles(directory)
        fields = sample_fields(samples)
        inputs = np.repeat(samples[:, None], LAYOUT.num_inputs, axis=1).astype(np.float64)
        for member in range(5):
            mine = slice(10 * member, 10 * member + 10)
            files.write(
                member,
                MemberSamples(fields=fields[mine], inputs=inputs[mine], steps=samples[mine]),
            )
        none = np.empty(0, np.int64)
        self.source = self.live = FileSource(
            files=files,
            table=Table.of(files, range(5)),
            read=self.read,
            batch=BATCH,
            lease_batches=32,
            passes=2,
            workers=0,
            seed=4,
            moments=moments_of(fields, inputs, samples),
            validation=Held(
                fields=fields[:0], inputs=inputs[:0], members=none, steps=none, complete=True
            ),
        )

        while (
            self.live._arrived.qsize() < 2 * SAMPLES // BATCH
        ):  # as what was produced is there at once
            time.sleep(0.001)

    def produce(self, count: int) -> int:
        return 0

    def close(self) -> None:
        self.live.close()


@final
class SampleFilesCase(FilesCase):
    read = "sample"


@final
class MemberFilesCase(FilesCase):
    read = "member"


CASES: dict[str, Callable[[Path], Case]] = {
    "files": SampleFilesCase,
    "whole files": MemberFilesCase,
    "fifo": FifoCase,
    "firo": FiroCase,
    "reservoir": UniformCase,
}
LIVE = {name: CASES[name] for name in ("fifo", "firo", "reservoir")}


def built(build: Callable[[Path], Case], directory: Path) -> Iterator[Case]:
    made = build(directory)
    yield made
    made.close()


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from built(request.param, tmp_path)


@pytest.fixture(params=list(LIVE.values()), ids=list(LIVE))
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    yield from built(request.param, tmp_path)


def give_back(source: BatchSource, lease: Lease) -> None:
    source.give_back(lease.id)


def train(case: Case, *, batches: int = 3) -> list[int]:
    """Draw and produce until the stream is over; the samples that were drawn."""
    drawn: list[int] = []
    finished = False
    while not finished:
        case.produce(7)
        lease = case.source.lease(batches, timeout=0.0)
        drawn += case.source.inputs[lease.indices, 0].astype(int).ravel().tolist()
        finished = lease.finished
        give_back(case.source, lease)
    return drawn


def test_leased_slots_keep_their_content_until_given_back(case: Case) -> None:
    case.produce(30)
    for _ in range(3):
        lease = case.source.lease(2, timeout=0.0)
        assert lease.indices.shape == (2, BATCH)
        fields, inputs = case.source.fields[lease.indices], case.source.inputs[lease.indices]
        case.produce(30)
        np.testing.assert_array_equal(case.source.fields[lease.indices], fields)
        np.testing.assert_array_equal(case.source.inputs[lease.indices], inputs)
        np.testing.assert_array_equal(fields[..., 0, 0, 0, 0], inputs[..., 0])
        give_back(case.source, lease)


def test_slots_given_back_are_used_again(live: Case) -> None:
    live.produce(30)
    assert live.produce(5) == 0
    lease = live.source.lease(2, timeout=0.0)
    before = live.source.fields[lease.indices]
    give_back(live.source, lease)
    live.source.lease(1, timeout=0.0)  # hands it over
    assert live.produce(5) >= 1
    assert (live.source.fields[lease.indices] != before).any()


@pytest.mark.parametrize("asked", [1, 3, 17])
def test_never_more_batches_than_asked_for(case: Case, asked: int) -> None:
    case.produce(30)
    rows = [len(case.source.lease(asked, timeout=0.0).indices) for _ in range(4)]
    assert max(rows) <= asked
    assert rows[0] >= 1


def test_a_lease_waits_no_longer_than_its_timeout(live: Case) -> None:
    live.produce(WATERMARK - 1)
    began = time.monotonic()
    assert not live.source.wait_for_watermark(0.03)
    lease = live.source.lease(3, timeout=0.05)
    waited = time.monotonic() - began
    assert lease.indices.shape == (0, BATCH)
    assert not lease.finished
    assert 0.05 < waited < 30.0


def test_a_waiting_lease_ends_when_samples_arrive(live: Case) -> None:
    producer = threading.Thread(target=live.produce, args=(30,))
    producer.start()
    lease = live.source.lease(2, timeout=20.0)
    producer.join()
    assert len(lease.indices) >= 1
    assert live.source.wait_for_watermark(0.0)


def test_after_the_end_leases_are_empty_and_finished(case: Case) -> None:
    train(case)
    for _ in range(3):
        lease = case.source.lease(2, timeout=0.0)
        assert lease.finished
        assert lease.indices.shape == (0, BATCH)


def test_every_sample_is_drawn_at_least_once(case: Case) -> None:
    assert set(train(case)) == set(range(SAMPLES))


def test_replay_never_runs_dry(case: Case) -> None:
    train(case)
    replayed = []
    for batches in (1, 5, 40):
        lease = case.source.replay(batches)
        assert lease.finished
        assert lease.indices.shape == (batches, BATCH)
        replayed += case.source.inputs[lease.indices, 0].astype(int).ravel().tolist()
        give_back(case.source, lease)
    assert set(replayed) <= set(range(SAMPLES))
    assert len(set(replayed)) > BATCH


def test_moments_are_those_of_what_is_held_at_the_watermark(case: Case) -> None:
    arrived = case.produce(WATERMARK + 3) or SAMPLES
    assert case.source.wait_for_watermark(0.0)
    moments = case.source.moments()
    samples = np.arange(arrived)
    values = 2 * 4 * 6
    assert (moments.count, moments.field_count) == (arrived, arrived * values)
    np.testing.assert_allclose(moments.field_mean, np.full(3, samples.mean()))
    np.testing.assert_allclose(moments.field_m2, np.full(3, samples.var() * arrived * values))
    assert (moments.time_low, moments.time_high) == (0, arrived - 1)


def test_what_is_held_for_validation_has_the_shape_of_the_slots(case: Case) -> None:
    held = case.source.held_validation()
    assert held.fields.shape[1:] == case.source.fields.shape[1:]
    assert held.inputs.shape[1:] == case.source.inputs.shape[1:]
    assert len(held.members) == len(held.steps) == len(held.fields) == 0
    assert held.complete
