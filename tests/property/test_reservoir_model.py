"""Reservoir and flow control against a model of plain lists, under any order of calls."""

import math
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pipeline.flow import ONCE, FlowControl, PolicyName
from pipeline.reservoir.book import Reservoir
from trainers.base import Lease


class ReservoirMachine(RuleBasedStateMachine):
    """Every sample has a number; the model says where each one is and what happened to it."""

    @initialize(
        policy=st.sampled_from(["fifo", "firo", "reservoir", "uniform"]),
        capacity=st.integers(3, 40),
        fill=st.floats(0.05, 1.0),
        reuse=st.sampled_from([None, 1.5, 4.0]),
        least=st.sampled_from([1.0, 1.2, 3.7]),
        kept=st.sampled_from([0.0, 0.25]),
        overwriting=st.sampled_from([None, 0.5]),
        band=st.one_of(st.none(), st.floats(1.0, 4.0)),
        batch=st.integers(1, 7),
        seed=st.integers(0, 2**32 - 1),
    )
    def start(
        self,
        policy: PolicyName,
        capacity: int,
        fill: float,
        reuse: float | None,
        least: float,
        kept: float,
        overwriting: float | None,
        band: float | None,
        batch: int,
        seed: int,
    ) -> None:
        watermark = max(1, math.floor(fill * capacity))
        once = policy in ONCE
        self.reuse = reuse if not once else 1.0 if reuse is not None else None
        self.least, self.kept = (1.0, 0.0) if once else (least, kept * capacity)
        self.overwriting: float | None = None
        if overwriting is not None and self.reuse is not None and not once:
            self.overwriting = overwriting * self.reuse * capacity
        band = None if self.reuse is None else band
        self.max_surplus = band and band * (watermark * (self.reuse or 1.0) + batch)
        self.policy, self.capacity, self.watermark, self.batch = policy, capacity, watermark, batch
        self.subject = self.empty(seed)
        self.highest = -math.inf  # surplus after draws were taken back
        self.lowest = 0.0  # surplus of a state that was kept after the end, when nothing bounds it
        self.first: dict[int, list[int]] = {}  # lease -> samples drawn for the first time in it
        self.content: dict[int, int] = {}  # slot -> sample
        self.reserved: list[int] = []
        self.leases: dict[int, list[int]] = {}
        self.began: dict[int, int] = {}  # lease -> batches leased before it
        self.batches = 0
        self.unseen: list[int] = []  # samples in order of arrival
        self.seen: set[int] = set()
        self.left = 0  # draws still to be made
        self.inserted = self.drawn = self.evicted = self.late = 0
        self.ended = False

    def empty(self, seed: int) -> Reservoir:
        return Reservoir(
            policy=self.policy,
            capacity=self.capacity,
            flow=FlowControl(
                max_reuse=self.reuse,
                max_surplus=self.max_surplus,
                watermark=self.watermark,
                min_reuse=self.least,
                kept=self.kept,
                overwriting=self.overwriting,
            ),
            rng=np.random.default_rng(seed),
        )

    # --- what the model expects -------------------------------------------------------------------

    def leased_slots(self) -> set[int]:
        return {slot for slots in self.leases.values() for slot in slots}

    def replaceable(self) -> set[int]:
        leased = self.leased_slots()
        return {s for s, sample in self.content.items() if sample in self.seen and s not in leased}

    def expected_room(self) -> int:
        if self.ended:
            return 0
        unused = self.capacity - len(self.content) - len(self.reserved)
        replaceable = len(self.replaceable())
        if self.overwriting is not None:
            replaceable = min(replaceable, max(0, self.below(self.overwriting) - unused))
        if self.max_surplus is None:
            return unused + replaceable
        return min(unused + replaceable, self.below(self.max_surplus))

    def below(self, limit: float) -> int:
        """Samples that may come before the surplus passes it."""
        assert self.reuse is not None
        ahead = (self.inserted + len(self.reserved)) * self.reuse - self.drawn
        return max(0, math.floor((limit - ahead) / self.reuse))

    def expected_rows(self, batches: int) -> int:
        if self.ended:
            return min(batches, math.ceil(self.left / self.batch))
        if self.inserted < self.watermark:
            return 0
        rows = batches
        if self.reuse is not None:
            surplus = self.inserted * self.reuse - self.drawn
            surplus -= min(self.kept, self.inserted / 4) * self.reuse
            rows = min(rows, max(0, math.floor(surplus / self.batch)))
        if self.policy == "fifo":
            rows = min(rows, len(self.unseen) // self.batch)
        if self.policy == "firo":
            rows = min(rows, max(0, len(self.unseen) - self.watermark) // self.batch)
        return rows if self.content else 0

    # --- solvers ----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 16))
    def reserve(self, count: int) -> None:
        expected = min(count, self.expected_room())
        before = self.replaceable()
        slots = self.subject.reserve(count).tolist()
        assert len(slots) == len(set(slots)) == expected
        assert not set(slots) & set(self.reserved)
        unused = self.capacity - len(self.content) - len(self.reserved)
        overwritten = [slot for slot in slots if slot in self.content]
        assert set(overwritten) <= before, "overwrote a leased or unseen sample"
        assert len(overwritten) == max(0, expected - unused), "overwrote beside an empty slot"
        for slot in overwritten:
            del self.content[slot]
        self.evicted += len(overwritten)
        self.reserved += slots

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        slots = self.some_reserved(data)
        admitted = self.subject.commit(np.array(slots))
        if self.ended:
            assert admitted == 0
            self.late += len(slots)
            return
        assert admitted == len(slots)
        for slot in slots:
            self.content[slot] = self.inserted
            self.unseen.append(self.inserted)
            self.inserted += 1

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.subject.cancel(np.array(self.some_reserved(data)))

    def some_reserved(self, data: st.DataObject) -> list[int]:
        slots = data.draw(st.lists(st.sampled_from(self.reserved), min_size=1, unique=True))
        self.reserved = [slot for slot in self.reserved if slot not in slots]
        return slots

    @precondition(lambda self: self.inserted >= 2 * self.watermark)
    @rule()
    def end_production(self) -> None:
        if not self.ended:
            self.ended = True
            self.left = len(self.unseen)
            if self.policy not in ONCE:
                short = math.ceil(self.inserted * self.least - self.drawn)
                self.left = max(self.left, short)
        self.subject.end_production()

    # --- the trainer ------------------------------------------------------------------------------

    @rule(batches=st.integers(0, 9))
    def lease(self, batches: int) -> None:
        expected = self.expected_rows(batches)
        lease = self.subject.lease(batches, self.batch)
        assert lease.indices.shape == (expected, self.batch)
        samples = self.note(lease)
        if self.policy == "fifo" and not self.ended:
            assert samples == sorted(samples)
        if self.policy in ONCE and not self.ended:
            assert len(set(samples)) == len(samples)
            assert not set(samples) & self.seen, "drawn twice"
        if self.ended:
            drained = samples[: self.left]
            if self.policy in ONCE:
                assert set(drained) <= set(self.unseen), "drawn twice while draining"
                assert len(set(drained)) == len(drained)
            self.left -= len(drained)
            assert lease.finished == (self.left == 0)
        else:
            assert not lease.finished
        self.see(samples)

    @precondition(lambda self: self.ended and self.content)
    @rule(batches=st.integers(1, 5))
    def replay(self, batches: int) -> None:
        if self.left:
            return
        lease = self.subject.replay(batches, self.batch)
        assert lease.finished
        assert lease.indices.shape == (batches, self.batch)
        self.see(self.note(lease))

    def note(self, lease: Lease) -> list[int]:
        slots = lease.indices.ravel().tolist()
        if slots:
            assert lease.id not in self.leases
            self.leases[lease.id] = slots
            self.began[lease.id] = self.batches
            self.batches += len(lease.indices)
            samples = [self.content[slot] for slot in slots]
            self.first[lease.id] = [s for s in dict.fromkeys(samples) if s not in self.seen]
        self.drawn += len(slots)
        return [self.content[slot] for slot in slots]  # KeyError: drew an empty slot

    def see(self, samples: list[int]) -> None:
        if self.policy == "fifo" and not self.ended:
            assert samples == self.unseen[: len(samples)]
        self.seen |= set(samples)
        self.unseen = [sample for sample in self.unseen if sample not in self.seen]

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.leases)))
        del self.leases[lease_id], self.first[lease_id]
        self.subject.give_back(lease_id)

    # --- checkpoints ------------------------------------------------------------------------------

    @rule(seed=st.integers(0, 2**32 - 1), data=st.data())
    def restart(self, seed: int, data: st.DataObject) -> None:
        """What was leased and not trained on was never drawn; what was reserved is gone."""
        trained, done = 0, set[int]()
        if self.leases:  # some of the oldest lease's batches were
            oldest = next(iter(self.leases))
            rows = data.draw(st.integers(0, len(self.leases[oldest]) // self.batch))
            trained = self.began[oldest] + rows
            done = {self.content[slot] for slot in self.leases[oldest][: rows * self.batch]}
            del self.leases[oldest][: rows * self.batch]
        state = self.subject.state(trained)
        slots = state.held.slots.tolist()
        assert sorted(slots) == sorted(self.content)
        again = [s for samples in self.first.values() for s in samples if s not in done]
        self.content = {new: self.content[old] for new, old in enumerate(slots)}
        self.seen -= set(again)
        self.unseen = sorted({*self.unseen, *again})
        self.drawn -= sum(len(drawn) for drawn in self.leases.values())
        self.reserved, self.leases, self.first, self.ended = [], {}, {}, False
        self.left = 0
        if self.reuse is not None:
            self.highest = self.inserted * self.reuse - self.drawn
            self.lowest = min(0.0, self.highest)
        self.batches = 0
        self.subject = self.empty(seed)
        self.subject.restore(state)

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        """Nothing is overwritten while it is pinned, and afterwards all is as before."""
        pinned = self.subject.pin()
        assert pinned.tolist() == sorted(self.content)
        assert not set(self.subject.reserve(0).tolist())
        unused = self.capacity - len(self.content) - len(self.reserved)
        assert self.subject.room <= unused
        self.subject.unpin(pinned)

    # --- always -----------------------------------------------------------------------------------

    @invariant()
    def counters_agree(self) -> None:
        stats = self.subject.stats()
        assert stats.inserted == self.inserted
        assert stats.drawn == self.drawn
        assert stats.unique == len(self.seen)
        assert stats.unseen == len(self.unseen)
        assert stats.evicted == self.evicted
        assert stats.leased == len(self.leased_slots())
        held = self.content if self.policy not in ONCE else self.unseen
        assert stats.held == len(held)
        assert self.subject.late == self.late
        assert self.subject.room == self.expected_room()
        assert self.subject.filled().tolist() == sorted(self.content)
        assert self.inserted == len(self.content) + self.evicted

    @invariant()
    def surplus_stays_in_its_band(self) -> None:
        if self.reuse is None or self.ended:
            return
        surplus = self.inserted * self.reuse - self.drawn
        assert surplus >= self.lowest
        assert self.max_surplus is None or surplus <= max(self.max_surplus, self.highest)

    def teardown(self) -> None:
        """However it went, the rest can be drained, and then every sample was drawn."""
        if not hasattr(self, "subject"):
            return
        self.subject.end_production()
        most = self.subject.stats().due // self.batch + 2
        leases = 0
        while not self.subject.finished:
            self.subject.lease(1, self.batch)
            leases += 1
            assert leases <= most, "the drain does not end"
        assert self.subject.unique == self.subject.inserted


TestReservoirModel: Any = ReservoirMachine.TestCase
TestReservoirModel.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
