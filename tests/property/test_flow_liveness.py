"""Studies that ``flow.problems`` accepts reach their end, in any order of events.

Solvers, reservoirs and lock-step ranks are simulated event by event, at their least patient: a
sample without room stops its member at once (no credit), and a rank leases ahead what it may. The
mpi_ranks of a member go apart as far as neighbours that need each other's last step can.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow import FlowControl, PolicyName, leasable, problems
from pipeline.reservoir import Reservoir
from trainers.base import Lease

LEASE_BATCHES = 32
LEASES_AHEAD = 3


class Rank:
    """A rank and its reservoir."""

    def __init__(self, reservoir: Reservoir, batch: int) -> None:
        self.reservoir, self.batch = reservoir, batch
        self.leases: deque[tuple[Lease, int]] = deque()  # with batches left of each

    def lease_ahead(self) -> bool:
        if len(self.leases) >= LEASES_AHEAD:
            return False
        lease = self.reservoir.lease(LEASE_BATCHES, self.batch)
        if lease.indices.size:
            self.leases.append((lease, len(lease.indices)))
        return lease.indices.size > 0

    def step(self) -> None:
        lease, left = self.leases.popleft()
        if left > 1:
            self.leases.appendleft((lease, left - 1))
        else:
            self.reservoir.give_back(lease.id)


class Study:
    """``concurrent`` members at a time, each sending its samples to the ranks in turn."""

    def __init__(
        self,
        reservoirs: list[Reservoir],
        *,
        members: int,
        samples: int,
        concurrent: int,
        batch: int,
        mpi_ranks: int,
    ) -> None:
        self.ranks = [Rank(reservoir, batch) for reservoir in reservoirs]
        self.waiting = deque(range(members))
        self.samples, self.concurrent = samples, concurrent
        self.mpi_ranks = mpi_ranks
        self.running: dict[int, list[int]] = {}  # member -> next sample of each mpi_rank
        self.growing: dict[tuple[int, int], np.ndarray] = {}  # (member, sample) -> its slot

    def send(self, member: int, mpi_rank: int) -> bool:
        nexts = self.running.get(member)
        if nexts is None:
            return False
        sample = nexts[mpi_rank]
        if sample == self.samples or min(nexts[max(mpi_rank - 1, 0) : mpi_rank + 2]) < sample:
            return False  # a neighbour's last step is missing
        reservoir = self.ranks[(member + sample) % len(self.ranks)].reservoir
        if (member, sample) not in self.growing:
            slots = reservoir.reserve(1)
            if slots.size == 0:
                return False
            self.growing[member, sample] = slots
        nexts[mpi_rank] += 1
        if min(nexts) > sample:
            reservoir.commit(self.growing.pop((member, sample)))
            if min(nexts) == self.samples:
                del self.running[member]
        return True

    def train(self) -> bool:
        if not all(rank.leases for rank in self.ranks):
            return False
        for rank in self.ranks:
            rank.step()
        return True

    def run(self, rng: np.random.Generator) -> bool:
        """Whether all members got rid of their samples; False when nothing can happen any more."""
        eager = rng.random()
        while True:
            while self.waiting and len(self.running) < self.concurrent:
                self.running[self.waiting.popleft()] = [0] * self.mpi_ranks
            if not self.running:
                return True
            actions: list[Callable[[], bool]] = [
                partial(self.send, member, mpi_rank)
                for member in self.running
                for mpi_rank in range(self.mpi_ranks)
            ]
            actions += [rank.lease_ahead for rank in self.ranks]
            actions.append(self.train)
            order = rng.permutation(len(actions))
            if rng.random() < eager:  # solvers first: the ranks find their reservoirs full
                order = np.sort(order)
            chosen = next((actions[i] for i in order if actions[i]()), None)
            if chosen is None:
                return False
            if chosen in actions[-1 - len(self.ranks) :]:
                for _ in range(int(rng.integers(20))):  # now and then the trainer is far faster
                    chosen()


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    policy: PolicyName
    capacity: int
    watermark: int
    max_reuse: float | None
    max_surplus: float | None
    concurrent: int
    batch: int
    ranks: int
    mpi_ranks: int = 1

    def problems(self) -> list[str]:
        return problems(**asdict(self))

    @property
    def most_leased(self) -> int:
        settings = asdict(self)
        del settings["max_surplus"]
        return leasable(**settings)

    def reaches_its_end(self, seed: int) -> bool:
        rng = np.random.default_rng(seed)
        flow = FlowControl(
            max_reuse=self.max_reuse,
            max_surplus=self.max_surplus,
            watermark=self.watermark,
        )
        reservoirs = [
            Reservoir(
                policy=self.policy,
                capacity=self.capacity,
                flow=flow,
                rng=child,
                most_leased=self.most_leased,
            )
            for child in rng.spawn(self.ranks)
        ]
        study = Study(
            reservoirs,
            members=5 + 4 * self.capacity * self.ranks // 9,
            samples=9,
            concurrent=self.concurrent,
            batch=self.batch,
            mpi_ranks=self.mpi_ranks,
        )
        return study.run(rng)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_a_study_without_problems_reaches_its_end(
    policy: PolicyName, data: st.DataObject, seed: int
) -> None:
    ranks, concurrent = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    batch, watermark = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 30))
    reuse = data.draw(st.sampled_from([1.3, 2.0, 4.0])) if policy == "reservoir" else 1.0
    mpi_ranks = data.draw(st.sampled_from([1, 1, 2, 5]))
    surplus = reuse * (watermark + concurrent * mpi_ranks + ranks - 1) + batch
    least = Settings(
        policy=policy,
        capacity=watermark,
        watermark=watermark,
        max_reuse=reuse,
        max_surplus=surplus if data.draw(st.booleans()) else None,
        concurrent=concurrent,
        batch=batch,
        ranks=ranks,
        mpi_ranks=mpi_ranks,
    )
    while least.problems():
        least = replace(least, capacity=least.capacity + 1)
    assert least.reaches_its_end(seed)


@pytest.mark.parametrize(
    ("policy", "capacity", "max_reuse", "max_surplus", "batch"),
    [
        ("reservoir", 20, 1.0, None, 10),  # the unseen fill everything
        ("reservoir", 20, 1.1, None, 10),  # too few seen ones
        ("reservoir", 60, 3.0, 36.0, 40),  # solvers stop before a batch is allowed
        ("firo", 18, None, None, 10),  # full, but no batch above the watermark
        ("fifo", 18, None, None, 20),  # full, but less than a batch
        ("fifo", 60, 1.0, 14.0, 15),  # solvers stop before there is a batch
    ],
)
def test_what_is_refused_does_get_stuck(
    policy: PolicyName,
    capacity: int,
    max_reuse: float | None,
    max_surplus: float | None,
    batch: int,
) -> None:
    study = Settings(
        policy=policy,
        capacity=capacity,
        watermark=12,
        max_reuse=max_reuse,
        max_surplus=max_surplus,
        concurrent=4,
        batch=batch,
        ranks=2,
    )
    assert study.problems()
    assert not all(study.reaches_its_end(seed) for seed in range(10))
