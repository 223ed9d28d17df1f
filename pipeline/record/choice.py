"""Which samples of a rank go into its record: between the reservoir's bookkeeping and the writer.

1. The share that ``fraction`` and ``every`` keep depends on seed, member and sample alone, not on
   timing, ranks or the number of solvers.
2. ``inserted``: a sample is recorded when it is committed; ``drawn``: when it is drawn first.
3. A sample is copied before its slot can be handed out again; nobody waits for the disk.

Not thread-safe: the reservoir's lock serialises the calls, as it does for the bookkeeping.
"""

from dataclasses import replace
from typing import Literal, final

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from pipeline.record.writer import Record
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.reservoir.state import Recorded, ReservoirState
from pipeline.slots.memory import SlotArrays, SlotNumbers, span


def select(
    member: Int64[np.ndarray, " k"],
    sample: Int64[np.ndarray, " k"],
    *,
    seed: int,
    every: int,
    fraction: float,
) -> Bool[np.ndarray, " k"]:
    """Which samples a record has, for any order they come in."""
    chosen = sample % every == 0
    if fraction < 1.0:
        state = _mixed(np.uint64(seed) + _mixed(member.astype(np.uint64)))
        drawn = _mixed(state + sample.astype(np.uint64))
        chosen &= (drawn >> np.uint64(11)) * 2.0**-53 < fraction
    return np.asarray(chosen)


def _mixed(value: UInt64[np.ndarray, " k"]) -> UInt64[np.ndarray, " k"]:
    """SplitMix64's step and finaliser (Steele, Lea, Flood 2014, section 4): 64 even bits."""
    value = np.asarray(value + np.uint64(0x9E3779B97F4A7C15))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))


@final
class Recorder:
    """The bookkeeping's ``Book`` with a record behind it; see also ``drawn``."""

    def __init__(
        self,
        *,
        book: Reservoir | OrderedReservoir,
        slots: SlotArrays,
        record: Record,
        seed: int,
        what: Literal["inserted", "drawn"],
        every: int,
        fraction: float,
    ) -> None:
        """Choose among the samples of a store.

        Args:
            book: Its bookkeeping.
            slots: Its memory.
            record: Where samples are copied to.
            seed: Seed of the study; the share that is kept depends on it.
            what: When a sample is recorded.
            every: Only every n-th sample of a member is kept.
            fraction: Share of these that is kept.
        """
        self._book, self._record, self._what = book, record, what
        self._seed, self._every, self._fraction = seed, every, fraction
        self._slots, capacity = slots, len(slots.members)
        self._rows = np.full(capacity, -1, np.int64)  # of the record; -1: not in it
        self._draws = np.zeros(capacity, np.int64)

    # --- Book -------------------------------------------------------------------------------------

    def reserve(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots to be filled."""
        return self._book.reserve(count)

    def commit(self, slots: SlotNumbers) -> object:
        """The samples in these slots are complete."""
        admitted = self._book.commit(slots)
        if admitted:
            self._rows[slots] = -1
            self._draws[slots] = 0
            if self._what == "inserted":
                self._add(slots)
        return admitted

    def cancel(self, slots: SlotNumbers) -> None:
        """These reserved slots will not be filled."""
        self._book.cancel(slots)

    # --- trainer's side ---------------------------------------------------------------------------

    def drawn(self, indices: Int64[np.ndarray, " *any"]) -> None:
        """These slots were leased; they keep their content until the lease ends."""
        if indices.size == 0:
            return
        slots, counts = np.unique(indices, return_counts=True)
        if self._what == "drawn":
            # One whose first draw is made again, after the study was resumed, has its row.
            self._add(slots[(self._draws[slots] == 0) & (self._rows[slots] < 0)])
        self._draws[slots] += counts
        rows = self._rows[slots]
        known = rows >= 0
        self._record.count_draws(rows[known], counts[known])

    # --- checkpoints ------------------------------------------------------------------------------

    def state(self, held: ReservoirState) -> Recorded:
        """What ``restore`` goes on from, for the samples that are held."""
        slots = held.held.slots
        again = np.bincount(held.undone, minlength=self._draws.size)
        return Recorded(
            position=self._record.rows,
            dropped=self._record.stats().record_dropped,
            rows=self._rows[slots],
            draws=self._draws[slots] - again[slots],
        )

    def durable(self, state: Recorded) -> Recorded:
        """Wait until it can be read from the disk; less where that has failed.

        Called without the lock.
        """
        rows = self._record.flush()
        if rows >= state.position:
            return state
        # The disk has failed, and the record has ended with it: all since then is dropped.
        return replace(state, position=rows, dropped=self._record.stats().record_dropped)

    def restore(self, state: Recorded) -> None:
        """Take over what is known of the samples in slots 0, 1, ... now.

        Draws since the checkpoint are forgotten, in the record too: only of what was held then
        were there any.
        """
        count, rows = state.rows.size, state.rows
        rows = np.where(rows < state.position, rows, -1)  # a disk may have failed
        self._rows[:count], self._draws[:count] = rows, state.draws
        known = rows >= 0
        self._record.set_draws(rows[known], state.draws[known])

    def _add(self, slots: SlotNumbers) -> None:
        if self._every > 1 or self._fraction < 1.0:
            chosen = select(
                self._slots.members[slots], self._slots.samples[slots],
                seed=self._seed, every=self._every, fraction=self._fraction,
            )  # fmt: skip
            slots = slots[chosen]
        if slots.size:
            first = self._record.rows
            taken = self._record.add(self._slots, span(slots), slots.size)
            self._rows[slots[:taken]] = np.arange(first, first + taken)
