"""Draws of ``policy: reservoir`` are even over the stream, whether solvers are slow or fast."""

from typing import Any

import numpy as np
import pytest

from pipeline.flow import Limits, PolicyName
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir

BATCH, LEASE_BATCHES, CHUNK = 10, 32, 10

Book = Reservoir | OrderedReservoir


class Stream:
    """A stream of so many samples through one reservoir, and who has drawn which of them.

    Args:
        pace: Draws that the trainer has time for while a solver makes a sample.
    """

    def __init__(self, limits: Limits, *, samples: int, pace: float, ordered: bool) -> None:
        self.samples, self.pace = samples, pace
        self.sample_in = np.full(limits.capacity, -1)
        self.draws = np.zeros(samples, np.int64)
        self.time = 0.0  # of the trainer, in draws
        rng, flow = np.random.default_rng(5), limits.flow_control()
        sizes: dict[str, Any] = {"capacity": limits.capacity, "flow": flow, "rng": rng}
        self.book: Book
        if ordered:
            self.book = OrderedReservoir(
                policy=limits.policy, batch=BATCH, spread=lambda: limits.spread, **sizes
            )
        else:
            self.book = Reservoir(policy=limits.policy, most_leased=limits.leasable, **sizes)

    def run(self) -> np.ndarray:
        while self.book.inserted < self.samples:
            slots = self.book.reserve(min(CHUNK, self.samples - self.book.inserted))
            if slots.size:
                self.sample_in[slots] = self.book.inserted + np.arange(slots.size)
                self.book.commit(slots)
            self.time += self.pace * (slots.size or 1)
            while self.time >= BATCH and self.lease(int(self.time // BATCH)):
                pass
            self.time = min(self.time, BATCH)  # time in which there was nothing to draw is lost
        self.book.end_production()
        while not self.book.finished:
            self.lease(LEASE_BATCHES)
        return self.draws

    def lease(self, batches: int) -> bool:
        lease = self.book.lease(min(LEASE_BATCHES, batches), BATCH)
        np.add.at(self.draws, self.sample_in[lease.indices.ravel()], 1)
        self.time -= lease.indices.size
        if lease.indices.size:
            self.book.give_back(lease.id)
        return lease.indices.size > 0


def effective_share(draws: np.ndarray) -> float:
    return float(draws.sum() ** 2 / (draws.size * (draws.astype(float) ** 2).sum()))


def limits(policy: PolicyName, capacity: int, reuse: float | None = 8.0) -> Limits:
    return Limits(
        policy=policy,
        capacity=capacity,
        watermark=80,
        max_reuse=reuse,
        max_surplus=None,
        concurrent=2,
        batch=BATCH,
        ranks=1,
    )


@pytest.mark.parametrize("ordered", [False, True], ids=["as they come", "in order"])
@pytest.mark.parametrize("pace", [100.0, 8.0, 1.5], ids=["slow", "balanced", "fast"])
@pytest.mark.parametrize("share", [1.2, 0.5, 0.1])
def test_draws_are_even_whatever_the_pace(share: float, pace: float, ordered: bool) -> None:
    """Also where only a ``share`` of the stream fits into the reservoir."""
    samples = 2000
    settings = limits("reservoir", int(share * samples))
    stream = Stream(settings, samples=samples, pace=pace, ordered=ordered)
    draws = stream.run()
    last = draws[-samples // 10 :].mean() / draws.mean()
    assert effective_share(draws) >= 0.85
    assert last >= 0.6
    assert draws.min() >= 1
    # However fast the trainer was, each sample was used as often.
    assert 8 * samples <= draws.sum() < 8 * samples + BATCH
    told = stream.book.stats()
    assert told.effective_share == pytest.approx(effective_share(draws), rel=1e-3)
    assert told.draws_by_tenth == pytest.approx(draws.reshape(10, -1).mean(axis=1), rel=0.02)


@pytest.mark.parametrize("pace", [100.0, 8.0])
def test_uniform_draws_are_not_even(pace: float) -> None:
    draws = Stream(limits("uniform", 500), samples=2000, pace=pace, ordered=False).run()
    assert effective_share(draws) < 0.65
    assert draws[-200:].mean() < 0.5 * draws.mean()


@pytest.mark.parametrize("policy", ["reservoir", "uniform"])
@pytest.mark.parametrize(("least", "most"), [(3.0, 8.0), (5.0, None), (None, None)])
def test_the_least_reuse_is_reached_when_training_starts_after_production(
    policy: PolicyName, least: float | None, most: float | None
) -> None:
    book = Reservoir(
        policy=policy,
        capacity=300,
        flow=Limits(
            policy=policy,
            capacity=300,
            watermark=20,
            max_reuse=most,
            max_surplus=None,
            min_reuse=least,
            concurrent=2,
            batch=7,
            ranks=1,
        ).flow_control(),
        rng=np.random.default_rng(2),
    )
    book.commit(book.reserve(200))
    book.end_production()
    while not book.finished:
        book.give_back(book.lease(9, 7).id)
    draws = 200 * (least or 1.0)
    assert draws <= book.drawn < draws + 7
    assert book.unique == 200
