"""Which slot holds what: admission, eviction, draws and leases of one reservoir, by slot number.

A slot is empty, *reserved* (being filled), or *filled*; a filled one is *unseen* until its first
draw and *seen* from then on, and *leased* while a rank may still read it. No clock, thread, lock or
array of samples in here: the caller serialises the calls and owns the memory.

1. A reserved or leased slot is never handed out for overwriting.
2. An unseen sample is never overwritten; a new one takes an empty slot, else that of a seen one,
   with ``policy=reservoir`` of one that was drawn more often than others.
3. ``inserted * max_reuse - drawn`` stays within the band of the flow control until production ends.
4. A lease holds whole batches only.
5. At the end every inserted sample was drawn at least once, and all together ``min_reuse`` times
   as often as there are samples where they are drawn again; not so with ``drain=False``.
6. Reserved slots count as inserted for the upper limit, so that no commit can pass it.
7. After the end of production nothing is admitted; a late commit is counted and dropped.
8. ``inserted == filled + evicted`` at any time.
9. A pinned slot is not overwritten; draws and leases do not notice.
10. In the state that is kept, what was leased and not trained on was not drawn: samples drawn for
    the first time by it are unseen, and are drawn next where the order counts.
"""

from typing import NamedTuple, final

import numpy as np
from jaxtyping import Int64

from pipeline.flow import ONCE, UNLIMITED, FlowControl, PolicyName
from pipeline.reservoir.bookkeeping import Bookkeeping
from pipeline.reservoir.policies import NONE, SlotSet
from pipeline.reservoir.state import Counters, HeldRows, Numbers, ReservoirState
from pipeline.slots.memory import SlotNumbers
from trainers.base import Lease


class _Open(NamedTuple):
    """A lease that was not given back."""

    slots: SlotNumbers  # ascending, each once
    fresh: SlotNumbers  # of these, the ones drawn for the first time, in the order of their draws
    indices: Int64[np.ndarray, " batches batch"]
    first: int  # batches that were leased before it


@final
class Reservoir(Bookkeeping):
    """Slot bookkeeping for one rank."""

    def __init__(
        self,
        *,
        policy: PolicyName,
        capacity: int,
        flow: FlowControl,
        rng: np.random.Generator,
        most_leased: int = UNLIMITED,
        drain: bool = True,
    ) -> None:
        """An empty reservoir.

        Args:
            policy: How samples are drawn.
            capacity: Slots.
            flow: Limits of both sides.
            rng: For draws and evictions.
            most_leased: Slots under lease at once, but for a first batch (``Limits.leasable``).
            drain: Whether anything is drawn after the end of production.
        """
        if capacity < flow.watermark:
            raise ValueError(f"capacity={capacity} < watermark={flow.watermark}: never ready")
        if policy in ONCE and flow.max_reuse not in (None, 1):
            raise ValueError(f"max_reuse={flow.max_reuse:g} but policy={policy} draws each once")
        super().__init__(policy=policy, capacity=capacity, flow=flow, rng=rng)
        self._most_leased, self._drain = most_leased, drain
        self._evictable = SlotSet(capacity)  # seen, not leased and not pinned
        self._even = policy == "reservoir"
        self._reserved = np.zeros(capacity, np.bool_)
        self._lease_counts = np.zeros(capacity, np.int64)  # a slot may be drawn several times
        self._leases: dict[int, _Open] = {}
        self._num_reserved = self._num_leased = 0

    # --- solvers' side ----------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Slots that ``reserve`` would hand out now."""
        if self._ended:
            return 0
        coming = self.inserted + self._num_reserved
        overwritable = self._flow.overwritable(inserted=coming, drawn=self.drawn)
        places = len(self._cancelled) + self._capacity - self._untouched
        places += min(len(self._evictable), max(0, overwritable - places))
        return min(places, self._flow.room(inserted=coming, drawn=self.drawn))

    def reserve(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots to be filled now; fewer, or none, when solvers have to wait."""
        count = min(count, self.room)
        if count <= 0:
            return NONE
        slots = self._empty(count)
        if slots.size < count:
            evicted = self._evict(count - slots.size)
            slots = evicted if slots.size == 0 else np.concatenate([slots, evicted])
        self._reserved[slots] = True
        self._num_reserved += count
        return slots

    def _empty(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots that hold no sample."""
        recycled = [self._cancelled.pop() for _ in range(min(count, len(self._cancelled)))]
        fresh = min(count - len(recycled), self._capacity - self._untouched)
        slots = np.arange(self._untouched, self._untouched + fresh)
        self._untouched += fresh
        return np.concatenate([np.array(recycled, np.int64), slots]) if recycled else slots

    def _evict(self, count: int) -> SlotNumbers:
        if self._even:
            slots = self._evictable.pop_most(count, self._rng, self._tally.draws)
        else:
            slots = self._evictable.pop(count, self._rng)
        self._filled.remove(slots)
        self.evicted += count
        return slots

    def commit(self, slots: SlotNumbers) -> int:
        """The samples in these reserved slots are complete; how many were admitted."""
        self._release(slots)
        if self._ended:
            self.late += slots.size
            return 0
        self._tally.store(slots, self.inserted)
        self._filled.add(slots)
        self._policy.admit(slots)
        self.inserted += slots.size
        return int(slots.size)

    def _release(self, slots: SlotNumbers) -> None:
        if not self._reserved[slots].all():
            raise ValueError(f"slots {slots[~self._reserved[slots]].tolist()} are not reserved")
        self._reserved[slots] = False
        self._num_reserved -= slots.size

    def _drain_held(self) -> None:
        self._policy.drain(self._due)

    # --- trainer's side ---------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Production has ended and there is nothing to draw any more."""
        return self._ended and self._available == 0

    @property
    def leased(self) -> int:
        """Slots promised to the rank."""
        return self._num_leased

    @property
    def _due(self) -> int:
        return super()._due if self._drain else 0

    def lease(self, batches: int, batch: int) -> Lease:
        """Draw up to ``batches`` batches: as many whole ones as are allowed now, maybe none.

        Once production has ended the last short batch is filled up by drawing again from what is
        held, so that no sample is left out.
        """
        left = self._available
        if self._ended:
            rows = min(batches, -(-left // batch))
        else:
            allowed = self._flow.batches(inserted=self.inserted, drawn=self.drawn, batch=batch)
            rows = min(batches, allowed, left // batch, self._leasable(batch))
        slots = self._policy.draw(min(left, rows * batch)) if rows else NONE
        if slots.size < rows * batch:
            again = self._filled.draw(rows * batch - slots.size, self._rng)
            slots = np.concatenate([slots, again])
        return self._grant(slots.reshape(rows, batch))

    @property
    def _available(self) -> int:
        return 0 if self._ended and not self._drain else self._policy.available

    def _leasable(self, batch: int) -> int:
        """Batches that may be leased on top of what is."""
        return max(int(not self._leases), (self._most_leased - self._num_leased) // batch)

    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again from what is left in the slots, uniformly.

        Raises:
            StudyFailed: No sample ever arrived here, so there is nothing to draw again.
        """
        return self._grant(self._draw_again(batches * batch).reshape(batches, batch))

    def _grant(self, indices: Int64[np.ndarray, " batches batch"]) -> Lease:
        first_batch, lease = self._batches, self._number(indices)
        if indices.size == 0:
            return lease  # nothing to give back
        slots, at, counts = np.unique(indices, return_index=True, return_counts=True)
        unleased = self._lease_counts[slots] == 0
        first = slots[unleased]
        seen = self._tally.draws[first] > 0
        self._evictable.remove(first[seen & ~self._pinned[first]])
        # Leased slots are seen, so unseen ones can only be among those leased for the first time.
        fresh = first[~seen][np.argsort(at[unleased][~seen])]
        self._tally.draw(slots, counts)
        self.unique += fresh.size
        self._lease_counts[slots] += 1
        self._num_leased += first.size
        self._leases[lease.id] = _Open(slots, fresh, indices, first_batch)
        return lease

    def give_back(self, lease_id: int) -> None:
        """End a lease. One that is empty, unknown or already ended is ignored."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        slots = lease.slots
        self._lease_counts[slots] -= 1
        ended = slots[self._lease_counts[slots] == 0]
        self._num_leased -= ended.size
        self._evictable.add(ended[~self._pinned[ended]])

    # --- checkpoints ------------------------------------------------------------------------------

    def pin(self) -> SlotNumbers:
        """Keep the content of every slot that holds a sample until ``unpin``; which these are."""
        slots = super().pin()
        self._evictable.remove(self._evictable.members())
        return slots

    def unpin(self, slots: SlotNumbers) -> None:
        """These pinned slots may be overwritten again."""
        slots = slots[self._pinned[slots]]
        self._pinned[slots] = False
        free = (self._tally.draws[slots] > 0) & (self._lease_counts[slots] == 0)
        self._evictable.add(slots[free])

    def state(self, batches: int) -> ReservoirState:
        """What ``restore`` goes on from, as if what was not trained on had never been drawn.

        Args:
            batches: How many of those that were leased were trained on: the first ones.
        """
        undone = [_undone(lease, batches) for lease in self._leases.values()]
        again = np.concatenate([NONE, *(fresh for fresh, _ in undone)])
        draws_undone = np.concatenate([NONE, *(indices for _, indices in undone)])
        draws = self._tally.draws - np.bincount(draws_undone, minlength=self._capacity)
        slots = self.filled()
        undrawn = self._policy.undrawn(slots)
        unseen = undrawn[(draws[undrawn] == 0) & ~np.isin(undrawn, again)]
        ordered = np.concatenate([slots[draws[slots] > 0], again, unseen])
        return ReservoirState(
            held=HeldRows(
                slots=ordered, draws=draws[ordered], numbers=self._tally.numbers[ordered]
            ),
            counters=Counters(
                inserted=self.inserted,
                drawn=self.drawn - draws_undone.size,
                late=self.late,
            ),
            rng=dict(self._rng.bit_generator.state),
            undone=draws_undone,
        )

    def restore(self, state: ReservoirState) -> None:
        """Take over what is held, in slots 0, 1, ... now; only an empty reservoir can."""
        self._take_over(state)
        count = len(state.held.seen)
        slots, unseen = np.arange(count), np.flatnonzero(~state.held.seen)
        self._filled.add(slots)
        self._evictable.add(slots[state.held.seen])
        self._policy.admit(unseen)
        self.evicted = self.inserted - count
        self.unique = self.inserted - unseen.size
        if state.rng is not None:
            self._rng.bit_generator.state = state.rng


def _undone(lease: _Open, batches: int) -> tuple[Numbers, Numbers]:
    """Of a lease what was not trained on: samples drawn for the first time, and all draws."""
    done, left = np.split(lease.indices, [min(max(0, batches - lease.first), len(lease.indices))])
    return lease.fresh[~np.isin(lease.fresh, done)], left.reshape(-1)
