import threading
import time

import numpy as np
import pytest
import torch

from tests.array_source import ArraySource, linear_held, linear_samples, linear_source
from trainers.base import Lease
from trainers.config import TrainerConfig
from trainers.loop.staging import RING, Staging

CPU = torch.device("cpu")
PATIENCE = 10.0  # seconds; nothing here waits that long unless it is broken


def config(**changes: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"batch": 6, "lease_batches": 4, **changes})


def drain(staging: Staging, *, replay: int = 0) -> list[torch.Tensor]:
    """Take everything, then some more by replay; returns copies of the inputs of each batch."""
    seen = []
    while not (ready := staging.readiness(PATIENCE)).over:
        assert not ready.failed
        for batch in staging.take(ready.steps):
            seen.append(batch.inputs.clone())
            staging.done()
    if replay:
        for batch in staging.take(replay, replay=True):
            seen.append(batch.inputs.clone())
            staging.done()
    return seen


@pytest.mark.parametrize("staging_bytes", [1, 40_000, 10**9], ids=["one", "few", "all"])
def test_batches_come_out_in_order_with_the_content_of_their_slots(staging_bytes: int) -> None:
    source = linear_source(batches=47)
    with Staging(source, config(staging_bytes=staging_bytes), CPU) as staging:
        seen = drain(staging)
    np.testing.assert_array_equal(torch.cat(seen), source.inputs[source.drawn])
    assert len(source.drawn) == 47 * 6


def test_every_lease_is_given_back_once() -> None:
    source = linear_source(batches=47)
    with Staging(source, config(), CPU) as staging:
        drain(staging, replay=9)
    assert source.open == []
    assert source.replayed == 9
    assert source.ended == 47 + 9


def test_a_batch_keeps_its_content_until_it_is_done() -> None:
    source = linear_source(batches=200)
    with Staging(source, config(), CPU) as staging:
        first = next(staging.take(1))
        before = first.fields.clone()
        held = [first]
        # The thread fills what is free and then has to stop: nothing was done with so far.
        while (ready := staging.readiness(0.05)).steps:
            held += list(staging.take(ready.steps))
        assert torch.equal(first.fields, before)
        assert len(held) <= RING * 4
        expected = source.inputs[source.drawn[: len(held) * 6]]
        np.testing.assert_array_equal(torch.cat([each.inputs for each in held]), expected)


def test_memory_is_bounded_by_staging_bytes_or_one_batch() -> None:
    fields, inputs = linear_samples(np.random.default_rng(0), 50)
    order = np.arange(300).reshape(60, 5) % 50
    held = linear_held(np.random.default_rng(1), 3)
    batch_bytes = 5 * (fields[0].nbytes + inputs[0].nbytes)
    for limit, rooms in ((1, 1), (RING * 2 * batch_bytes + 7, 2), (10**9, 4)):
        source = ArraySource(fields, inputs, order, held=held)
        with Staging(source, config(batch=5, staging_bytes=limit), CPU) as staging:
            staged = 0
            while ready := staging.readiness(0.05).steps:
                staged += len(list(staging.take(ready)))
        assert staged == RING * rooms


class Broken(ArraySource):
    """Fails on the third lease."""

    calls = 0

    def lease(self, batches: int, *, timeout: float) -> Lease:
        self.calls += 1
        if self.calls == 3:
            raise ConnectionError("reservoir 0 is gone")
        return super().lease(batches, timeout=timeout)


def test_a_failure_on_the_thread_is_raised_in_the_loop() -> None:
    good = linear_source(batches=40)
    source = Broken(
        good.fields, good.inputs, np.arange(240).reshape(40, 6) % 200, held=good.held_validation()
    )

    def loop() -> None:
        with Staging(source, config(), CPU) as staging:
            while not (ready := staging.readiness(PATIENCE)).failed:
                for _ in staging.take(ready.steps):
                    staging.done()
            staging.raise_failure()

    with pytest.raises(ConnectionError, match="reservoir 0 is gone"):
        loop()
    assert len(source.drawn) == 2 * 4 * 6


def test_batches_that_were_announced_come_out_after_a_failure_too() -> None:
    """Else this rank would leave the others alone in a train step that all have agreed on."""
    good = linear_source(batches=40)
    source = Broken(
        good.fields, good.inputs, np.arange(240).reshape(40, 6) % 200, held=good.held_validation()
    )

    def loop() -> None:
        with Staging(source, config(), CPU) as staging:
            deadline = time.monotonic() + PATIENCE
            while not (ready := staging.readiness(PATIENCE)).failed:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert ready.steps == 2 * 4
            assert len(list(staging.take(ready.steps))) == ready.steps
            next(staging.take(1))

    with pytest.raises(ConnectionError, match="reservoir 0 is gone"):
        loop()


class Silent(ArraySource):
    """Has nothing to give for the time being."""

    def lease(self, batches: int, *, timeout: float) -> Lease:
        threading.Event().wait(min(timeout, 0.02))
        return Lease(id=0, indices=np.empty((0, 6), np.int64), finished=False)


def test_a_source_with_nothing_to_give_is_neither_over_nor_failed() -> None:
    good = linear_source()
    source = Silent(
        good.fields, good.inputs, np.zeros((1, 6), np.int64), held=good.held_validation()
    )
    with Staging(source, config(), CPU) as staging:
        ready = staging.readiness(0.05)
    assert (ready.steps, ready.over, ready.failed) == (0, False, False)


def test_leaving_early_ends_the_thread_and_gives_nothing_back_by_halves() -> None:
    source, before = linear_source(batches=400), set(threading.enumerate())

    def loop() -> None:
        with Staging(source, config(), CPU) as staging:
            assert "staging" in {thread.name for thread in set(threading.enumerate()) - before}
            next(staging.take(1))
            staging.done()
            raise RuntimeError("the loop went wrong")

    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="the loop went wrong"):
        loop()
    assert time.monotonic() - begin < PATIENCE
    assert "staging" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert source.ended == 0
