"""Slot bookkeeping for validation samples: they are appended, kept to the end, and never drawn.

1. Slots are handed out in order, each once; a sample stays where it is.
2. ``complete`` counts the samples in slots 0, 1, ... without a gap, so that ``[:complete]`` of the
   slots may be read at any time.
3. A slot that was given up is handed out again before any new one.
"""

from typing import final

import numpy as np

from pipeline.slots.memory import SlotNumbers


@final
class Appended:
    """An append-only store of ``capacity`` slots."""

    def __init__(self, *, capacity: int) -> None:
        self._filled = np.zeros(capacity, np.bool_)
        self._next = 0
        self._given_up: list[int] = []
        self.complete = 0

    def reserve(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots to be filled; fewer when the store is full."""
        again, self._given_up = self._given_up[:count], self._given_up[count:]
        fresh = min(count - len(again), self._filled.size - self._next)
        slots = np.array([*again, *range(self._next, self._next + fresh)], np.int64)
        self._next += fresh
        return slots

    def commit(self, slots: SlotNumbers) -> None:
        """The samples in these slots are complete."""
        self._filled[slots] = True
        while self.complete < self._filled.size and self._filled[self.complete]:
            self.complete += 1

    def filled(self) -> SlotNumbers:
        """Slots that hold a sample, ascending."""
        return np.flatnonzero(self._filled)

    def restore(self, count: int) -> None:
        """Slots ``0 .. count - 1`` hold samples again; only an empty store can take them."""
        self._filled[:count] = True
        self._next = self.complete = count

    def cancel(self, slots: SlotNumbers) -> None:
        """These reserved slots will not be filled."""
        self._given_up = sorted([*self._given_up, *slots.tolist()])
