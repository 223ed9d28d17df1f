"""A deterministic study: any timing and any number of workers give the same samples and batches.

Workers, reservoirs and lock-step ranks are simulated event by event, with the least credit there
is: a worker may have one sample waiting at each reservoir. The receiving side is the real one.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow import ONCE, Limits, PolicyName
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.slots.layout import Box
from pipeline.stream.intake import Intake
from pipeline.stream.order import Turn
from pipeline.stream.placing import Placing
from tests.unit.pipeline.stream.test_intake import LAYOUT, STUDY, WHOLE, data
from trainers.base import Lease

LEASE_BATCHES, LEASES_AHEAD = 5, 3
HALVES = Box((0, 0), (2, 10)), Box((2, 0), (4, 10))  # of the grid of LAYOUT, unequal

Sample = tuple[int, int]


class Rank:
    """A reservoir and the rank beside it, which writes down what it reads."""

    def __init__(self, rank: int, setup: Limits, members: int, samples: int) -> None:
        turn = Turn(members=range(members), samples=samples, rank=rank, ranks=setup.ranks)
        self.anew = partial(Rank, rank, setup, members, samples)
        self.batch = setup.batch
        self.arrays = SimpleNamespace(
            fields=np.zeros((setup.capacity, 1, *LAYOUT.sample_shape), np.float32),
            inputs=np.zeros((setup.capacity, LAYOUT.num_inputs)),
            members=np.full(setup.capacity, -1),
            samples=np.full(setup.capacity, -1),
            steps=np.full(setup.capacity, -1),
        )
        self.book = OrderedReservoir(
            policy=setup.policy,
            capacity=setup.capacity,
            flow=setup.flow_control(),
            rng=np.random.default_rng([7, rank]),
            batch=setup.batch,
            spread=lambda: turn.spread,
        )
        self.placing = Placing(slots=self.arrays, book=self.book, layout=LAYOUT, turn=turn)
        self.intake = Intake(layout=LAYOUT, study=STUDY, training=self.placing)
        self.trained = 0  # batches
        self.watermark = setup.watermark  # as many samples are normalised by
        self.leases: deque[tuple[Lease, int]] = deque()
        self.read: list[list[Sample]] = []
        self.first: list[Sample] | None = None

    def content(self, slots: np.ndarray) -> list[Sample]:
        return [(int(self.arrays.members[s]), int(self.arrays.steps[s])) for s in slots]

    def lease_ahead(self) -> bool:
        if len(self.leases) >= LEASES_AHEAD or not self.book.ready:
            return False
        if self.first is None:
            self.first = sorted(self.content(self.book.filled()))[: self.watermark]
        lease = self.book.lease(LEASE_BATCHES, self.batch)
        if lease.indices.size:
            self.leases.append((lease, 0))
        return lease.indices.size > 0

    def step(self) -> None:
        lease, done = self.leases.popleft()
        self.trained += 1
        self.read.append(self.content(lease.indices[done]))
        if done + 1 < len(lease.indices):
            self.leases.appendleft((lease, done + 1))
        else:
            self.book.give_back(lease.id)
            self.intake.retry(0.0)

    def killed_and_resumed(self) -> "Rank":
        """Another that goes on from a checkpoint of this one."""
        state = self.book.state(self.trained)
        kept = state.held.slots
        other: Rank = self.anew()
        for name, values in vars(self.arrays).items():
            getattr(other.arrays, name)[: kept.size] = values[kept]
        turn = json.loads(json.dumps(self.placing.turn_state()))
        other.placing.restore(self.placing.stored(), turn)
        other.book.restore(state)
        other.read, other.first = self.read, self.first
        return other


class Simulated:
    """``workers`` members at a time, started in order."""

    def __init__(
        self, setup: Limits, *, members: int, samples: int, parts: int, short: frozenset[int]
    ) -> None:
        self.ranks = [Rank(rank, setup, members, samples) for rank in range(setup.ranks)]
        self.members, self.samples, self.parts, self.short = members, samples, parts, short
        self.coming = deque(range(members))
        self.running: dict[int, list[list[int]]] = {}  # samples that each part has sent
        self.kills = 0
        self.sequence = 0
        self.unstored: dict[tuple[int, int, int], int] = {}  # member, part, rank -> message

    def send(self, member: int, part: int) -> bool:
        """Let a part of a member send its next sample; False when it must wait, or is done."""
        if member not in self.running:
            return False
        length = self.samples // 2 if member in self.short else self.samples
        sent = self.running[member][part]
        if len(sent) == length:
            return self.end(member, length)
        sample = len(sent)
        # An mpi_rank needs its neighbour's last step.
        if any(len(other) < sample for other in self.running[member]):
            return False
        number = (member + sample) % len(self.ranks)
        if (member, part, number) in self.unstored:
            return False
        sent.append(sample)
        self.sequence += 1
        self.unstored[member, part, number] = self.sequence
        frame = data(
            self.sequence,
            [sample],
            member=member,
            sender=10 * member + part,
            box=WHOLE if self.parts == 1 else HALVES[part],
        )
        intake = self.ranks[number].intake
        intake.take(memoryview(frame), identity=b"a", now=0.0)
        intake.retry(0.0)
        return True

    def end(self, member: int, length: int) -> bool:
        every = range(len(self.ranks))
        whole = all(len(sent) == length for sent in self.running[member])
        if not whole or any((member, p, r) in self.unstored for p in (0, 1) for r in every):
            return False
        del self.running[member]
        for rank in self.ranks:
            rank.intake.pass_member(member, None)
            rank.intake.retry(0.0)
        return True

    def collect(self) -> None:
        """Acknowledgements are heard."""
        for number, rank in enumerate(self.ranks):
            waiting = {message for _, message in rank.intake._waiting}
            for key, message in list(self.unstored.items()):
                if key[2] == number and message not in waiting:
                    del self.unstored[key]

    def train(self) -> bool:
        if not all(rank.leases for rank in self.ranks):
            return False
        for rank in self.ranks:
            rank.step()
        return True

    def kill_and_resume(self) -> None:
        """All at once; members under way run again, and who is over is told again."""
        self.kills += 1
        self.ranks = [rank.killed_and_resumed() for rank in self.ranks]
        over = set(range(self.members)) - set(self.coming) - set(self.running)
        self.coming = deque(sorted([*self.coming, *self.running]))
        self.running, self.unstored = {}, {}
        for rank in self.ranks:
            for member in over:
                rank.intake.pass_member(member, None)

    def run(self, workers: int, rng: np.random.Generator, *, kills: float = 0.0) -> bool:
        """To the end of production; False when nothing can happen any more."""
        eager = rng.random()
        while True:
            self.collect()
            if rng.random() < kills and self.ranks[0].trained:
                self.kill_and_resume()
            while self.coming and len(self.running) < workers:
                self.running[self.coming.popleft()] = [[] for _ in range(self.parts)]
            if not self.running:
                return True
            actions: list[Callable[[], bool]] = [
                partial(self.send, member, part)
                for member in self.running
                for part in range(self.parts)
            ]
            actions += [rank.lease_ahead for rank in self.ranks] + [self.train]
            order = rng.permutation(len(actions))
            if rng.random() < eager:  # workers first: the ranks find their reservoirs full
                order = np.sort(order)
            if not any(actions[place]() for place in order):
                return False

    def drain(self) -> None:
        for rank in self.ranks:
            rank.book.end_production()
            while rank.leases or not rank.book.finished:
                rank.lease_ahead()
                rank.step()
            lease = rank.book.replay(3, rank.batch)
            rank.read += [rank.content(row) for row in lease.indices]


@settings(max_examples=3, deadline=None)  # each is four studies of some hundred messages
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir", "uniform"])
def test_any_timing_and_any_number_of_workers_give_the_same_batches(
    policy: PolicyName, data: st.DataObject, seed: int
) -> None:
    ranks, batch = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    watermark = data.draw(st.integers(1, 9))
    reuse = None if policy in ONCE else data.draw(st.sampled_from([2.0, 3.5]))
    surplus = reuse is not None and data.draw(st.booleans())
    setup = Limits(
        policy=policy,
        capacity=watermark,
        watermark=watermark,
        max_reuse=reuse,
        max_surplus=reuse * (max(watermark, batch) + ranks) + batch if surplus and reuse else None,
        concurrent=1,
        batch=batch,
        ranks=ranks,
    )
    short = frozenset({4} if data.draw(st.booleans()) and ranks == 1 else ())
    while setup.problems():
        setup = replace(setup, capacity=setup.capacity + 1)
    members = 3 + 3 * setup.capacity * ranks // 18
    told: list[list[tuple[list[Sample] | None, list[list[Sample]]]]] = []
    for workers, parts, kills in ((1, 1, 0.0), (2, 1, 0.0), (4, 1, 0.1), (2, 2, 0.1)):
        study = Simulated(setup, members=members, samples=9, parts=parts, short=short)
        assert study.run(workers, np.random.default_rng([seed, workers, parts]), kills=kills)
        study.drain()
        told.append([(rank.first, rank.read) for rank in study.ranks])
        for rank in study.ranks:
            stats = rank.book.stats()
            assert stats.unique == stats.inserted
            assert stats.held <= setup.capacity
    assert told[1:] == told[:-1]


def test_samples_are_stored_in_order_whatever_order_they_arrive_in() -> None:
    setup = Limits(
        policy="fifo",
        capacity=50,
        watermark=1,
        max_reuse=None,
        max_surplus=None,
        concurrent=1,
        batch=1,
        ranks=1,
    )
    wanted = [(member, sample) for member in range(4) for sample in range(9)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rank = Rank(0, setup, 4, 9)
        messages = [
            (member, group.tolist())
            for member in range(4)
            for group in np.split(np.arange(9), np.unique(rng.integers(1, 9, size=3)))
        ]
        for number in rng.permutation(len(messages)):
            member, group = messages[number]
            frame = data(int(number), group, member=member, sender=member)
            rank.intake.take(memoryview(frame), identity=b"a", now=0.0)
            rank.intake.retry(0.0)
        lease = rank.book.lease(50, 1)
        assert rank.content(lease.indices.ravel()) == wanted
        assert rank.intake.pending == 0
