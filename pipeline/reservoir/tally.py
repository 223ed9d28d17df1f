"""How often each sample was drawn: of those in slots one by one, of the whole stream in bins.

1. Memory and the cost of a draw do not grow with the stream.
2. Whoever goes on from a checkpoint takes the samples overwritten before it for evenly drawn.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.slots.memory import SlotNumbers

_BINS: Final = 1000
_PARTS: Final = 10

Counts = Int64[np.ndarray, " _"]  # one for each of any number of slots


@dataclass(frozen=True, kw_only=True, slots=True)
class Evenness:
    """How evenly the draws went over the stream so far.

    Attributes:
        draws_by_tenth: Mean draws per sample of each tenth of the stream, the oldest first.
        effective_share: Samples that would count as much if all were drawn equally often, as a
            share of all: (sum of draws)^2 / (samples * sum of draws^2); None before the first draw.
    """

    draws_by_tenth: tuple[float, ...] = ()
    effective_share: float | None = None


@final
class DrawTally:
    """Counts of one reservoir.

    Attributes:
        draws: Draws of the sample in each slot.
        numbers: How many samples had been stored before it.
    """

    def __init__(self, capacity: int) -> None:
        self.draws = np.zeros(capacity, np.int64)
        self.numbers = np.zeros(capacity, np.int64)
        self._bins = np.zeros(_BINS)
        self._width = 1  # samples of a bin
        self._squares = 0.0

    def store(self, slots: SlotNumbers, stored: int) -> None:
        """New samples lie in these slots, ``stored`` came before them."""
        self.draws[slots] = 0
        self.numbers[slots] = np.arange(stored, stored + slots.size)
        self._cover(stored + slots.size)

    def _cover(self, samples: int) -> None:
        while samples > _BINS * self._width:
            pairs = self._bins.reshape(-1, 2).sum(axis=1)
            self._bins[: pairs.size], self._bins[pairs.size :] = pairs, 0.0
            self._width *= 2

    def draw(self, slots: SlotNumbers, counts: Counts) -> None:
        """The samples in these distinct slots were drawn so often."""
        before = self.draws[slots]
        self.draws[slots] = before + counts
        self._squares += float((counts * (2 * before + counts)).sum())
        np.add.at(self._bins, self.numbers[slots] // self._width, counts)

    def restore(self, draws: Counts, numbers: Counts, *, inserted: int, drawn: int) -> None:
        """Slots 0, 1, ... hold samples that were drawn so often."""
        slots = np.arange(draws.size)
        self._cover(inserted)
        self.numbers[slots] = np.clip(numbers, 0, max(0, inserted - 1))
        edges = np.minimum(np.arange(_BINS + 1) * self._width, inserted)
        held = np.bincount(self.numbers[slots] // self._width, minlength=_BINS)
        others = max(1, inserted - draws.size)
        each = max(0, drawn - int(draws.sum())) / others
        self._bins = np.maximum(np.diff(edges) - held, 0) * each
        self._squares = others * each**2
        self.draw(slots, draws)

    def evenness(self, inserted: int) -> Evenness:
        """Figures of the stream so far; empty before the first draw."""
        total = float(self._bins.sum())
        if total == 0.0 or inserted < _PARTS:
            return Evenness()
        used = self._bins[: -(-inserted // self._width)]
        edges = np.minimum(np.arange(used.size + 1) * self._width, inserted)
        ends = np.linspace(0, inserted, _PARTS + 1)
        so_far: Float64[np.ndarray, " end"] = np.interp(ends, edges, np.append(0.0, used.cumsum()))
        tenths = np.diff(so_far) * _PARTS / inserted
        return Evenness(
            draws_by_tenth=tuple(round(float(each), 3) for each in tenths),
            effective_share=round(total**2 / (inserted * self._squares), 4),
        )
