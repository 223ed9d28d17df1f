"""Studies that ``flow.Limits`` accepts reach their end, in any order of events.

Solvers, reservoirs and lock-step ranks are simulated event by event, at their least patient: a
sample without room stops its member at once (no credit), and a rank leases ahead what it may. The
mpi_ranks of a member go apart as far as neighbours that need each other's last step can, and what
they put together leaves when the message is full, the step slow, or the member over.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow import MOST_TOGETHER, ONCE, Limits, PolicyName
from pipeline.reservoir.book import Reservoir
from trainers.base import Lease

LEASE_BATCHES = 32
LEASES_AHEAD = 3
LINGERED = 0.1  # share of steps that are so slow that what is put together leaves


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


class MpiRank:
    """Hands samples over in turn to all reservoirs, several ``together`` in a message to one."""

    def __init__(self, reservoirs: int, together: int) -> None:
        self.drafts: list[list[int]] = [[] for _ in range(reservoirs)]
        self.together, self.next = together, 0
        self.waiting: list[int] = []  # of the messages that have left

    def hand_over(self) -> None:
        draft = self.drafts[self.next % len(self.drafts)]
        draft.append(self.next)
        self.next += 1
        if len(draft) == self.together:
            self.waiting += draft
            draft.clear()

    def send_all(self) -> None:
        for draft in self.drafts:
            self.waiting += draft
            draft.clear()


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
        rng: np.random.Generator,
    ) -> None:
        self.ranks = [Rank(reservoir, batch) for reservoir in reservoirs]
        self.waiting = deque(range(members))
        self.samples, self.concurrent = samples, concurrent
        self.mpi_ranks, self.rng = mpi_ranks, rng
        self.running: dict[int, list[MpiRank]] = {}
        self.growing: dict[tuple[int, int], tuple[np.ndarray, int]] = {}  # slot, parts

    def send(self, member: int, number: int) -> bool:
        """Let an mpi_rank go on: place what waits, or hand over its next sample."""
        group = self.running.get(member)
        if group is None:
            return False
        mpi_rank = group[number]
        if mpi_rank.waiting:
            mpi_rank.send_all()  # who waits for room has time for it, who waits in PETSc has not
            placed = [sample for sample in mpi_rank.waiting if self.place(member, sample)]
            mpi_rank.waiting = [s for s in mpi_rank.waiting if s not in placed]
            if all(each.next == self.samples and not each.waiting for each in group):
                del self.running[member]
            return bool(placed)
        neighbours = group[max(number - 1, 0) : number + 2]
        if mpi_rank.next == self.samples or min(n.next for n in neighbours) < mpi_rank.next:
            return False  # done, or a neighbour's last step is missing
        mpi_rank.hand_over()
        if mpi_rank.next == self.samples or self.rng.random() < LINGERED:
            mpi_rank.send_all()
        return True

    def place(self, member: int, sample: int) -> bool:
        """Store a part; False when its sample has no slot and finds none."""
        reservoir = self.ranks[(member + sample) % len(self.ranks)].reservoir
        slots, parts = self.growing.pop((member, sample), (None, 0))
        if slots is None:
            slots = reservoir.reserve(1)
            if slots.size == 0:
                return False
        if parts + 1 == self.mpi_ranks:
            reservoir.commit(slots)
        else:
            self.growing[member, sample] = slots, parts + 1
        return True

    def train(self) -> bool:
        if not all(rank.leases for rank in self.ranks):
            return False
        for rank in self.ranks:
            rank.step()
        return True

    def run(self) -> bool:
        """Whether all members got rid of their samples; False when nothing can happen any more."""
        rng = self.rng
        eager = rng.random()
        while True:
            while self.waiting and len(self.running) < self.concurrent:
                self.running[self.waiting.popleft()] = [
                    MpiRank(len(self.ranks), 1 if self.mpi_ranks == 1 else MOST_TOGETHER)
                    for _ in range(self.mpi_ranks)
                ]
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


def reaches_its_end(limits: Limits, seed: int) -> bool:
    rng = np.random.default_rng(seed)
    reservoirs = [
        Reservoir(
            policy=limits.policy,
            capacity=limits.capacity,
            flow=limits.flow_control(),
            rng=child,
            most_leased=limits.leasable,
        )
        for child in rng.spawn(limits.ranks)
    ]
    study = Study(
        reservoirs,
        members=5 + 4 * limits.capacity * limits.ranks // 9,
        samples=9,
        concurrent=limits.concurrent,
        batch=limits.batch,
        mpi_ranks=limits.mpi_ranks,
        rng=rng,
    )
    return study.run()


@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir", "uniform"])
def test_a_study_without_problems_reaches_its_end(
    policy: PolicyName, data: st.DataObject, seed: int
) -> None:
    ranks, concurrent = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    batch, watermark = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 30))
    reuse = 1.0 if policy in ONCE else data.draw(st.sampled_from([1.3, 2.0, 4.0]))
    mpi_ranks = data.draw(st.sampled_from([1, 1, 2, 5]))
    least = Limits(
        policy=policy,
        capacity=watermark,
        watermark=watermark,
        max_reuse=reuse,
        max_surplus=None,
        min_reuse=data.draw(st.sampled_from([None, 1.0])),
        concurrent=concurrent,
        batch=batch,
        ranks=ranks,
        mpi_ranks=mpi_ranks,
    )
    if data.draw(st.booleans()):
        surplus = reuse * (least.first_batch + least.spread) + batch
        least = replace(least, max_surplus=surplus)
    while least.problems():
        least = replace(least, capacity=least.capacity + 1)
    assert reaches_its_end(least, seed)


@pytest.mark.parametrize(
    ("policy", "capacity", "max_reuse", "max_surplus", "batch"),
    [
        ("reservoir", 20, 1.0, None, 10),  # the unseen fill everything
        ("reservoir", 20, 1.1, None, 10),  # too few seen ones
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
    study = Limits(
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
    assert not all(reaches_its_end(study, seed) for seed in range(10))


def test_several_mpi_ranks_get_stuck_where_one_does_not() -> None:
    serial = Limits(
        policy="fifo",
        capacity=6,
        watermark=1,
        max_reuse=None,
        max_surplus=None,
        concurrent=4,
        batch=1,
        ranks=2,
    )
    assert not serial.problems()
    assert all(reaches_its_end(serial, seed) for seed in range(60))
    parallel = replace(serial, mpi_ranks=5)
    assert parallel.problems()
    assert not all(reaches_its_end(parallel, seed) for seed in range(60))
