"""What the bookkeeping of a reservoir must know to go on, and how it is shared out anew.

1. Every sample that was inserted is either held or was evicted: ``inserted >= len(held)``.
2. With another number of ranks each sample goes where its sender would send it now.
3. What does not fit is left out, seen samples only; unseen ones are never lost.
4. Draws are shared out like samples: no rank's surplus becomes negative by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.errors import ConfigError

Numbers = Int64[np.ndarray, " _"]  # any number of them, of different lengths in one call


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRows:
    """The samples that a reservoir holds, one row each.

    Attributes:
        slots: Where they lie; unseen ones in the order in which they are to be drawn.
        draws: How often each was drawn.
        numbers: How many samples had been stored before each.
    """

    slots: Int64[np.ndarray, " row"]
    draws: Int64[np.ndarray, " row"]
    numbers: Int64[np.ndarray, " row"]

    @property
    def seen(self) -> Bool[np.ndarray, " row"]:
        """Whether each was trained on."""
        return self.draws > 0

    def select(self, rows: Numbers) -> "HeldRows":
        """Only these rows."""
        return HeldRows(slots=self.slots[rows], draws=self.draws[rows], numbers=self.numbers[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """The counters that only grow.

    Attributes:
        inserted: Samples stored since the start.
        drawn: Draws since the start, without those of leases that were not given back.
        late: Commits after the end of production.
    """

    inserted: int
    drawn: int
    late: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a deterministic reservoir must know beside its samples, to make the same choices again.

    Attributes:
        facts: Plain JSON.
        arrays: By name.
    """

    facts: dict[str, Any]
    arrays: dict[str, Numbers]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What the record knows of the samples that a reservoir holds.

    Attributes:
        position: Rows it had.
        dropped: Samples that it should have had, and had not.
        rows: Row of each held sample; -1: it is not in the record.
        draws: How often each was drawn.
    """

    position: int
    dropped: int
    rows: Int64[np.ndarray, " row"]
    draws: Int64[np.ndarray, " row"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservoirState:
    """One reservoir's bookkeeping at one moment.

    Attributes:
        held: Its samples.
        counters: What it has counted.
        rng: State of its random generator; None: a fresh one.
        order: In a deterministic study, whose samples stay in their slots; None in any other.
        undone: Slots of the draws that are to be made again; not kept.
    """

    held: HeldRows
    counters: Counters
    rng: dict[str, Any] | None
    order: Order | None = None
    undone: Numbers = field(default_factory=lambda: np.empty(0, np.int64))


def home(members: Numbers, samples: Numbers, *, validation: bool, ranks: int) -> Numbers:
    """The rank that a sender sends each sample to (``pipeline/stream/sender.py``)."""
    return (members + (0 if validation else samples)) % ranks


def share_of(parts: Sequence[Counters], *, inserted: Sequence[int], rank: int) -> Counters:
    """The counters of one of the new ranks.

    Args:
        parts: Of all old ranks.
        inserted: Samples that each new rank counts as inserted; as many as the old ones together.
        rank: Of the new ones.
    """
    drawn, total = sum(part.drawn for part in parts), max(1, sum(inserted))
    return Counters(inserted=inserted[rank], drawn=drawn * inserted[rank] // total)


def fitting(held: HeldRows, capacity: int) -> Numbers:
    """Rows that fit into ``capacity`` slots, in their order: seen ones are left out first.

    Raises:
        ConfigError: More samples are unseen than there are slots.
    """
    rows = np.arange(len(held.seen))
    unseen = int((~held.seen).sum())
    if unseen > capacity:
        line = (
            f"reservoir.capacity={capacity}: the checkpoint holds {unseen} samples for one rank "
            "that were never trained on. Go on with at least as many slots"
        )
        raise ConfigError([line])
    return np.delete(rows, rows[held.seen][: max(0, rows.size - capacity)])
