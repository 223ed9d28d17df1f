"""Slot bookkeeping whose draws and evictions depend on the samples that came, and on nothing else.

It does what ``pipeline/reservoir/book.py`` does, under the same names, but every choice is made at
a fixed number of inserts. Samples come in a fixed order (``pipeline/stream/order.py``). As soon as
the n-th is stored, the batches that n samples allow are drawn and queued; a rank that asks for a
lease gets what is queued. How fast ranks and solvers are decides when something happens, never
what.

1. The same samples in the same order give the same slots, batches and evictions, however they are
   put together in messages, and whenever leases are asked for and given back.
2. After n inserts exactly ``due(n)`` batches have been drawn, until production ends.
3. A slot whose samples are to be read, queued or leased, is not handed out: the solvers wait.
4. That wait ends. A slot is only chosen for eviction when its last batch is among the first
   ``due(n - spread)``: every other reservoir has that batch too, so the ranks will train on it
   without any further sample (``flow`` derives the spread and that there is always such a slot).
5. A lease holds batches of that kind, or a single one: it is given back as a whole.
6. Slots 0, 1, ... hold the first samples until the first lease has been given back.
7. A reservoir that takes over the state of another goes on as that one would.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, final

import numpy as np

from pipeline.errors import StudyFailed
from pipeline.flow import ONCE, FlowControl, PolicyName
from pipeline.reservoir.bookkeeping import Bookkeeping
from pipeline.reservoir.policies import CANDIDATES, NONE, SlotSet
from pipeline.reservoir.state import Counters, HeldRows, Order, ReservoirState
from pipeline.slots.memory import SlotNumbers
from trainers.base import Lease

_TRIES: Final = 64  # at random, before all slots are looked at


class _Batch(NamedTuple):
    indices: SlotNumbers
    slots: SlotNumbers  # each once
    fresh: int  # drawn for the first time


class _Open(NamedTuple):
    """A lease that was not given back."""

    first: int  # batches that were leased before it
    batches: list[_Batch]


@final
class OrderedReservoir(Bookkeeping):
    """Slot bookkeeping for one rank of a deterministic study.

    Args:
        policy: How samples are drawn.
        capacity: Slots.
        flow: Limits of both sides.
        rng: Root of the random numbers, one stream for draws and one for evictions.
        batch: Samples per batch.
        spread: Samples that another reservoir may have fewer of (``Turn.spread``).
    """

    def __init__(
        self,
        *,
        policy: PolicyName,
        capacity: int,
        flow: FlowControl,
        rng: np.random.Generator,
        batch: int,
        spread: Callable[[], int],
    ) -> None:
        if policy not in ONCE and flow.max_reuse is None:
            raise ValueError(f"policy={policy} without max_reuse: draws have no fixed place")
        draws, self._evictions = rng.spawn(2)
        super().__init__(policy=policy, capacity=capacity, flow=flow, rng=draws)
        self._batch, self._spread = batch, spread
        self._kept = flow.watermark if policy == "firo" else 0
        self._seen = SlotSet(capacity)
        self._candidates = CANDIDATES if policy == "reservoir" else 1
        self._readers = np.zeros(capacity, np.int64)  # queued or leased batches that name a slot
        self._last_batch = np.full(capacity, -1, np.int64)
        self._queue: deque[_Batch] = deque()
        self._leases: dict[int, _Open] = {}
        self._outstanding: list[int] = []  # slots handed out, neither committed nor cancelled
        self._victim: int | None = None
        self._planned = self._granted = 0  # batches drawn, and those of them that were leased

    def due(self, inserted: int) -> int:
        """Batches that are drawn after so many inserts."""
        if self._flow.max_reuse is not None:
            return self._flow.batches(inserted=inserted, drawn=self._kept, batch=self._batch)
        if inserted < self._flow.watermark:
            return 0
        return (inserted - self._kept) // self._batch

    # --- solvers' side ----------------------------------------------------------------------------

    def reserve(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots for the next samples, none while others are being filled."""
        if self._ended or self._outstanding:
            return NONE
        count = min(count, self._flow.room(inserted=self.inserted, drawn=self.drawn))
        slots: list[int] = []
        # Up to the next draw, which may make others evictable, and must find these stored.
        while len(slots) < count and self.due(self.inserted + len(slots)) == self._planned:
            slot = self._next_slot(self.inserted + len(slots))
            if slot is None:
                break
            slots.append(slot)
        self._outstanding = slots
        return np.array(slots, np.int64) if slots else NONE

    def commit(self, slots: SlotNumbers) -> int:
        """The samples in these reserved slots are complete; how many were admitted."""
        self._release(slots)
        if self._ended:
            self.late += slots.size
            return 0
        self._tally.store(slots, self.inserted)
        # One whose sample was replaced keeps its place: what is drawn next must not depend on how
        # many slots were handed out at once.
        self._filled.add(slots[~self._filled.present(slots)])
        self._policy.admit(slots)
        self.inserted += slots.size
        while self._planned < self.due(self.inserted):
            self._plan(self._policy.draw(self._batch))
        return int(slots.size)

    def _release(self, slots: SlotNumbers) -> None:
        for slot in slots.tolist():
            self._outstanding.remove(slot)

    def _drain_held(self) -> None:
        self._filled.remove(self._replaced())
        planned = self._planned * self._batch
        self._policy.drain(self._flow.left(inserted=self.inserted, drawn=planned))
        left = self._policy.available
        while left > 0:
            count = min(left, self._batch)
            slots, left = self._policy.draw(count), left - count
            again = self._filled.draw(self._batch - count, self._rng)
            self._plan(np.concatenate([slots, again]))

    def _replaced(self) -> SlotNumbers:
        """Slots in ``_filled`` whose sample is gone, and whose next one has not come."""
        slots = np.array([*self._outstanding, *self._cancelled], np.int64)
        return np.asarray(slots[self._filled.present(slots)])

    def _next_slot(self, inserted: int) -> int | None:
        """A slot for the sample that comes after so many; None while that may still be read."""
        if self._cancelled:
            return self._cancelled.popleft()
        if self._untouched < self._capacity:
            self._untouched += 1
            return self._untouched - 1
        if self._victim is None:
            self._victim = self._choose(self.due(max(0, inserted - self._spread())))
        victim = self._victim
        if self._readers[victim] or self._pinned[victim]:
            return None
        if self._flow.overwritable(inserted=inserted, drawn=self.drawn) == 0:
            return None
        self._victim = None
        named = np.array([victim])
        self._seen.remove(named)
        self.evicted += 1
        return victim

    def _choose(self, safe: int) -> int:
        """A seen slot whose last batch is among the first ``safe``: the most drawn of a few."""
        if len(self._seen) == 0:
            raise StudyFailed(
                f"all {self._capacity} slots of a reservoir hold samples that were never drawn, "
                "and no batch may be drawn before the next one. Raise reservoir.capacity"
            )
        tried = self._seen.draw(_TRIES, self._evictions)
        slots = tried[self._last_batch[tried] < safe]
        if slots.size == 0:
            seen = self._seen.members()
            slots = seen[self._last_batch[seen] < safe]
            # None only where more members have failed than the capacity was made for.
            slots = self._evictions.permutation(slots if slots.size else seen)
        slots = slots[: self._candidates]
        return int(slots[np.argmax(self._tally.draws[slots])])

    def _plan(self, indices: SlotNumbers) -> None:
        slots, counts = np.unique(indices, return_counts=True)
        fresh = slots[self._tally.draws[slots] == 0]
        self._tally.draw(slots, counts)
        self._seen.add(fresh)
        self._last_batch[slots] = self._planned
        self._planned += 1
        self._enqueue(_Batch(indices, slots, fresh.size))

    def _enqueue(self, batch: _Batch) -> None:
        self._readers[batch.slots] += 1
        self._queue.append(batch)

    # --- trainer's side ---------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Production has ended and every batch was leased."""
        return self._ended and not self._queue

    @property
    def leased(self) -> int:
        """Slots promised to the rank: those of queued batches too."""
        return int(np.count_nonzero(self._readers))

    def lease(self, batches: int, batch: int) -> Lease:
        """Up to ``batches`` of the batches that are queued, maybe none."""
        assert batch == self._batch
        rows = min(batches, len(self._queue), self._leasable())
        granted = [self._queue.popleft() for _ in range(rows)]
        self._granted += rows
        self.unique += sum(each.fresh for each in granted)
        return self._grant(granted)

    def _leasable(self) -> int:
        if self._ended:
            return len(self._queue)
        return max(1, self.due(max(0, self.inserted - self._spread())) - self._granted)

    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again from what is left in the slots, uniformly.

        Raises:
            StudyFailed: No sample ever arrived here, so there is nothing to draw again.
        """
        # One by one: how many are asked for at once depends on timing.
        again = [self._draw_again(batch) for _ in range(batches)]
        named = [np.unique(each, return_counts=True) for each in again]
        granted = [_Batch(each, slots, 0) for each, (slots, _) in zip(again, named, strict=True)]
        for slots, counts in named:
            self._tally.draw(slots, counts)
            self._readers[slots] += 1
        return self._grant(granted)

    def _grant(self, batches: list[_Batch]) -> Lease:
        rows = [each.indices for each in batches]
        indices = np.array(rows, np.int64).reshape(len(batches), self._batch)
        first, lease = self._batches, self._number(indices)
        if batches:
            self._leases[lease.id] = _Open(first, batches)
        return lease

    def give_back(self, lease_id: int) -> None:
        """End a lease. One that is empty, unknown or already ended is ignored."""
        lease = self._leases.pop(lease_id, None)
        for each in [] if lease is None else lease.batches:
            self._readers[each.slots] -= 1

    # --- checkpoints ------------------------------------------------------------------------------

    def unpin(self, slots: SlotNumbers) -> None:
        """These pinned slots may be overwritten again."""
        self._pinned[slots] = False

    def state(self, batches: int) -> ReservoirState:
        """What ``restore`` goes on from: every slot that was ever used, and the batches to come.

        Args:
            batches: How many of those that were leased were trained on: the first ones.
        """
        leased = [
            each
            for lease in self._leases.values()
            for each in lease.batches[max(0, batches - lease.first) :]
        ]
        coming = [*leased, *self._queue]
        slots = np.arange(self._untouched)
        drawn = self.drawn - len(leased) * self._batch
        facts = {
            "draws": dict(self._rng.bit_generator.state),
            "evictions": dict(self._evictions.bit_generator.state),
            "planned": self._planned,
            "victim": self._victim,
            "ended": self._ended,
            "unique": self.unique - sum(each.fresh for each in leased),
            "evicted": self.evicted,
        }
        arrays = {
            "filled": self._filled.listed(),
            "seen": self._seen.listed(),
            "undrawn": self._policy.undrawn(NONE),
            "last_batch": self._last_batch[slots],
            "free": np.array([*self._outstanding, *self._cancelled], np.int64),
            "indices": np.concatenate([NONE, *(each.indices for each in coming)]),
            "fresh": np.array([each.fresh for each in coming], np.int64),
        }
        return ReservoirState(
            held=HeldRows(
                slots=slots, draws=self._tally.draws[slots], numbers=self._tally.numbers[slots]
            ),
            counters=Counters(inserted=self.inserted, drawn=drawn, late=self.late),
            rng=None,
            order=Order(facts=facts, arrays=arrays),
            undone=np.concatenate([NONE, *(each.indices for each in leased)]),
        )

    def restore(self, state: ReservoirState) -> None:
        """Take over what another held, in the same slots; only an empty reservoir can."""
        if state.order is None:
            raise ValueError("no order in the checkpoint: it is not one of a deterministic study")
        facts, arrays = state.order.facts, state.order.arrays
        self._take_over(state, coming=arrays["indices"].size)
        self._last_batch[: self._untouched] = arrays["last_batch"]
        self._filled.add(arrays["filled"])
        self._seen.add(arrays["seen"])
        self._policy.admit(arrays["undrawn"])
        self._cancelled.extend(arrays["free"].tolist())
        rows = arrays["indices"].reshape(-1, self._batch)
        for indices, fresh in zip(rows, arrays["fresh"].tolist(), strict=True):
            self._enqueue(_Batch(indices, np.unique(indices), fresh))
        self._planned, self._granted = facts["planned"], facts["planned"] - len(rows)
        self._victim, self._ended = facts["victim"], facts["ended"]
        self._rng.bit_generator.state = facts["draws"]
        self._evictions.bit_generator.state = facts["evictions"]
        self.unique, self.evicted = facts["unique"], facts["evicted"]
