"""What a trainer makes of the end of production, over a real reservoir without Ray."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from pipeline.flow import FlowControl
from pipeline.reservoir.batches import HeldState, ReservoirSource
from pipeline.reservoir.book import Reservoir
from pipeline.slots.memory import Slots
from tests.contract.test_batch_source_contract import BATCH, LAYOUT, LocalReservoir
from trainers.base import Input, Lease, Problem
from trainers.config import TrainerConfig
from trainers.loop.lockstep import World
from trainers.results import TrainStats
from trainers.trainer import train

CAPACITY = 30
LEASES = 4  # before production ends
LEASE_BATCHES = 2


@final
class Ending:
    """A reservoir whose production ends with the fifth call for a lease."""

    def __init__(self, inner: LocalReservoir) -> None:
        self.inner, self.calls = inner.host, 0

    def wait_for_watermark(self, timeout: float) -> bool:
        return self.inner.wait_for_watermark(timeout)

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        self.calls += batches > 0
        if self.calls > LEASES:
            self.inner.end_production()
        return self.inner.lease(returned, batches, batch, timeout)

    def replay(self, batches: int, batch: int) -> Lease:
        return self.inner.replay(batches, batch)

    def held(self) -> HeldState:
        return self.inner.held()


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    made = Slots.create(tmp_path / "headrace-after", capacity=CAPACITY, layout=LAYOUT)
    yield made
    made.close()


def trained(slots: Slots, **after: Any) -> tuple[TrainStats, Reservoir]:
    config = TrainerConfig.model_validate(
        {
            "batch": BATCH,
            "model": {"kind": "mlp", "hidden": [8]},
            "lease_batches": LEASE_BATCHES,
            "task": {"kind": "direct", "window": LAYOUT.window},
            "after_production": after,
        }
    )
    reservoir = Reservoir(
        policy="reservoir",
        capacity=CAPACITY,
        flow=FlowControl(max_reuse=None, max_surplus=None, watermark=10),
        rng=np.random.default_rng(2),
        drain=config.after_production.kind != "stop",
    )
    client = LocalReservoir(reservoir, slots)
    assert client.produce(CAPACITY) == CAPACITY
    source = ReservoirSource(
        client=Ending(client),
        training=Slots.attach(slots.description),
        validation=None,
        batch=BATCH,
    )
    channels, *grid = LAYOUT.sample_shape
    problem = Problem(
        field_names=tuple("abc"[:channels]),
        field_units=("1",) * channels,
        shape=tuple(grid),
        spacing=(1.0,) * len(grid),
        parameters=tuple(
            Input(name=f"p{index}", unit="1", low=0.0, high=50.0)
            for index in range(LAYOUT.num_parameters)
        ),
        time=Input(name="time", unit="s", low=0.0, high=50.0),
        window=LAYOUT.window,
    )
    try:
        return train(source, config, problem, world=World()), reservoir
    finally:
        source.close()


def test_drain_draws_what_was_never_drawn(slots: Slots) -> None:
    stats, reservoir = trained(slots, kind="drain")
    assert LEASES * LEASE_BATCHES <= stats.train_step <= LEASES * LEASE_BATCHES + 3
    assert reservoir.unique == CAPACITY
    assert reservoir.stats().leased == 0


def test_stop_ends_with_the_batches_that_are_leased_already(slots: Slots) -> None:
    stats, reservoir = trained(slots, kind="stop")
    assert stats.train_step == LEASES * LEASE_BATCHES
    assert reservoir.drawn == LEASES * LEASE_BATCHES * BATCH
    assert reservoir.stats().leased == 0


def test_steps_go_on_over_what_is_held(slots: Slots) -> None:
    drained, _ = trained(slots, kind="drain")
    stats, reservoir = trained(slots, kind="steps", steps=11)
    assert stats.train_step == drained.train_step + 11
    assert reservoir.drawn == stats.train_step * BATCH
    assert reservoir.unique == CAPACITY
    assert reservoir.stats().leased == 0
