"""What the two kinds of bookkeeping of a reservoir have in common: samples, counters, numbers.

1. Leases are numbered from 0 in the order in which they were granted, empty ones included.
2. Nothing is drawn again before the end of production, or where no sample ever came.
3. Cancelled slots keep their order: which end is taken first decides deterministic studies.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Int64

from pipeline.errors import StudyFailed
from pipeline.flow import FlowControl, PolicyName
from pipeline.reservoir.policies import SlotSet, make_policy
from pipeline.reservoir.state import ReservoirState
from pipeline.reservoir.tally import DrawTally, Evenness
from pipeline.slots.memory import SlotNumbers
from trainers.base import Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservoirCounts(Evenness):
    """What the bookkeeping of a reservoir counts, in samples.

    Attributes:
        capacity: Slots.
        held: Samples that may be drawn from.
        unseen: Samples never drawn so far.
        leased: Slots promised to the rank.
        inserted: Samples stored since the start.
        drawn: Draws since the start, replayed ones included.
        unique: Samples drawn at least once.
        evicted: Samples overwritten.
        due: Draws that would be left if production ended now.
        production_ended: No further sample will come.
    """

    capacity: int
    held: int
    unseen: int
    leased: int
    inserted: int
    drawn: int
    unique: int
    evicted: int
    due: int
    production_ended: bool


class Bookkeeping(ABC):
    """Slot bookkeeping for one rank; who may overwrite a slot, and when draws are made, is open."""

    def __init__(
        self, *, policy: PolicyName, capacity: int, flow: FlowControl, rng: np.random.Generator
    ) -> None:
        self._capacity, self._flow, self._rng = capacity, flow, rng
        self._filled = SlotSet(capacity)
        self._tally = DrawTally(capacity)
        self._policy = make_policy(
            policy,
            capacity=capacity,
            watermark=flow.watermark,
            filled=self._filled,
            draws=self._tally.draws,
            rng=rng,
        )
        self._pinned = np.zeros(capacity, np.bool_)  # which a checkpoint has not written yet
        self._cancelled: deque[int] = deque()
        self._untouched = 0  # slots from here on were never used
        self._next_lease = self._batches = 0  # leased in this life
        self._ended = False
        self.inserted = self.drawn = self.unique = self.evicted = 0
        self.late = 0  # commits after the end of production

    @property
    def ready(self) -> bool:
        """Whether training may start: the watermark was reached, or production has ended."""
        return self._ended or self.inserted >= self._flow.watermark

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether production has ended and there is nothing to draw any more."""

    @property
    @abstractmethod
    def leased(self) -> int:
        """Slots promised to the rank."""

    @abstractmethod
    def _release(self, slots: SlotNumbers) -> None:
        """These slots are reserved no more."""

    @abstractmethod
    def _drain_held(self) -> None:
        """Production has just ended: what is held is left to be drawn."""

    def cancel(self, slots: SlotNumbers) -> None:
        """These reserved slots will not be filled; others may have them."""
        self._release(slots)
        self._cancelled.extend(slots.tolist())

    def end_production(self) -> None:
        """No further sample will come: what is held is drained. May be called twice."""
        if not self._ended:
            self._ended = True
            self._drain_held()

    def pin(self) -> SlotNumbers:
        """Keep the content of every slot that holds a sample until ``unpin``; which these are."""
        slots = self.filled()
        self._pinned[slots] = True
        return slots

    def filled(self) -> SlotNumbers:
        """Slots that hold a sample, ascending."""
        return self._filled.members()

    def stats(self) -> ReservoirCounts:
        """Counters and population."""
        return ReservoirCounts(
            capacity=self._capacity,
            held=self._policy.held,
            unseen=self.inserted - self.unique,
            leased=self.leased,
            inserted=self.inserted,
            drawn=self.drawn,
            unique=self.unique,
            evicted=self.evicted,
            due=self._due,
            production_ended=self._ended,
            **asdict(self._tally.evenness(self.inserted)),
        )

    @property
    def _due(self) -> int:
        """Draws that would be left if production ended now."""
        left = self._flow.left(inserted=self.inserted, drawn=self.drawn)
        return max(left, self.inserted - self.unique)

    def _number(self, indices: Int64[np.ndarray, " batches batch"]) -> Lease:
        """The next lease, whose draws are counted."""
        lease = Lease(id=self._next_lease, indices=indices, finished=self.finished)
        self._next_lease += 1
        self._batches += len(indices)
        self.drawn += indices.size
        return lease

    def _draw_again(self, count: int) -> SlotNumbers:
        """Draws after the end, uniformly, for ``replay``."""
        if not self._ended:
            raise ValueError("replay before the end of production: lease instead")
        if len(self._filled) == 0:
            raise StudyFailed(
                "this rank received no sample at all, so it cannot keep step with the others: "
                "have at least as many samples per member as ranks, or lower trainer.ranks"
            )
        return self._filled.draw(count, self._rng)

    def _take_over(self, state: ReservoirState, *, coming: int = 0) -> None:
        """Counters and tally of another, of which ``coming`` draws were planned, not counted."""
        if self._untouched or self._ended:
            raise ValueError("restore a reservoir before anything is stored in it")
        held, counters = state.held, state.counters
        self._untouched = len(held.seen)
        self.inserted, self.drawn, self.late = counters.inserted, counters.drawn, counters.late
        self._tally.restore(
            held.draws, held.numbers, inserted=self.inserted, drawn=self.drawn + coming
        )
