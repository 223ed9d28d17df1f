"""Which samples are drawn next: the four policies, over slot numbers.

A policy is told which slots were filled (``admit``) and answers with slots to draw, at most
``available`` at once; ``drain`` tells it that nothing is admitted any more, and how many draws are
left where samples are drawn again. Who may overwrite a slot is the reservoir's business
(``pipeline/reservoir/book.py``). Randomness is passed in.

1. ``fifo`` draws each sample once, in order of arrival.
2. ``firo`` draws each sample once, at random, only while more than ``watermark`` are held or
   production has ended.
3. ``reservoir`` draws with replacement, the less drawn of two random samples each time, and has the
   most drawn of a few overwritten; ``uniform`` draws and overwrites at random.
4. Once production has ended both make the draws that are left in random order, each unseen sample
   among them; ``reservoir`` levels out how often each was drawn.
5. Every operation costs O(slots named in it), whatever the capacity; only the change to draining is
   O(held + draws left), once.
6. ``undrawn`` gives those of the candidates that are still to be drawn, next ones first: a policy
   that admits them in this order draws as this one does, until production ends.
"""

from typing import Final, final

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.flow import UNLIMITED, PolicyName
from pipeline.reservoir.tally import Counts
from pipeline.slots.memory import SlotNumbers

CANDIDATES: Final = 4  # of which the most drawn is overwritten

NONE: Int64[np.ndarray, " 0"] = np.empty(0, np.int64)
NONE.flags.writeable = False


@final
class SlotSet:
    """A set of slot numbers that adds, removes and draws at random, vectorised, in O(count)."""

    def __init__(self, capacity: int) -> None:
        # ``_dense[:_size]`` lists the members in no order; ``_position`` says where each one is.
        self._dense = np.empty(capacity, np.int64)
        self._position = np.full(capacity, -1, np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, slots: SlotNumbers) -> None:
        """Take in distinct slots that are not members."""
        end = self._size + slots.size
        self._dense[self._size : end] = slots
        self._position[slots] = np.arange(self._size, end)
        self._size = end

    def present(self, slots: SlotNumbers) -> Bool[np.ndarray, " _"]:
        """Which of these are members."""
        return np.asarray(self._position[slots] >= 0)

    def remove(self, slots: SlotNumbers) -> None:
        """Take out distinct members; members from the end fill the holes they leave."""
        size = self._size - slots.size
        holes = self._position[slots]
        self._position[slots] = -1
        tail = self._dense[size : self._size]
        movers = tail[self._position[tail] >= 0]
        holes = holes[holes < size]
        self._dense[holes] = movers
        self._position[movers] = holes
        self._size = size

    def pop(self, count: int, rng: np.random.Generator) -> SlotNumbers:
        """Take out ``count`` members, every subset equally likely, in random order."""
        picks = rng.integers(self._size, size=count)
        # Independent picks that happen to differ are a uniform choice without replacement;
        # otherwise start over with the costlier way of making one.
        if len(set(picks.tolist())) < count:
            picks = rng.choice(self._size, size=count, replace=False)
        slots = self._dense[picks]
        self.remove(slots)
        return slots

    def pop_most(self, count: int, rng: np.random.Generator, draws: Counts) -> SlotNumbers:
        """Take out the ``count`` most drawn of ``CANDIDATES`` times as many random members."""
        picks = np.unique(rng.integers(self._size, size=CANDIDATES * count))
        if picks.size < count or CANDIDATES * count >= self._size:
            picks = np.arange(self._size)
        slots = self._dense[picks]
        slots = slots[np.argsort(-draws[slots], kind="stable")[:count]]
        self.remove(slots)
        return slots

    def draw(self, count: int, rng: np.random.Generator) -> SlotNumbers:
        """``count`` members, uniformly, with replacement."""
        return self._dense[rng.integers(self._size, size=count)]

    def listed(self) -> SlotNumbers:
        """All members; a set that they are added to in this order draws as this one does."""
        return self._dense[: self._size].copy()

    def members(self) -> SlotNumbers:
        """All members, ascending."""
        return np.sort(self._dense[: self._size])


@final
class Fifo:
    """Each sample once, in order of arrival."""

    def __init__(self, *, capacity: int) -> None:
        self._ring = np.empty(capacity, np.int64)
        self._start, self._size = 0, 0

    @property
    def held(self) -> int:
        """Samples not drawn so far."""
        return self._size

    @property
    def available(self) -> int:
        """All that is held."""
        return self._size

    def admit(self, slots: SlotNumbers) -> None:
        """Append to the queue."""
        end = self._start + self._size
        self._ring[np.arange(end, end + slots.size) % self._ring.size] = slots
        self._size += slots.size

    def draw(self, count: int) -> SlotNumbers:
        """Take from the front of the queue."""
        slots = self._ring[np.arange(self._start, self._start + count) % self._ring.size]
        self._start = (self._start + count) % self._ring.size
        self._size -= count
        return slots

    def drain(self, count: int) -> None:
        """Nothing changes."""

    def undrawn(self, candidates: SlotNumbers) -> SlotNumbers:
        """The queue."""
        return self._ring[np.arange(self._start, self._start + self._size) % self._ring.size]


@final
class Firo:
    """Each sample once, at random, above the watermark."""

    def __init__(self, *, capacity: int, watermark: int, rng: np.random.Generator) -> None:
        self._unseen, self._kept, self._rng = SlotSet(capacity), watermark, rng

    @property
    def held(self) -> int:
        """Samples not drawn so far."""
        return len(self._unseen)

    @property
    def available(self) -> int:
        """What is held above the watermark; all of it once draining."""
        return max(0, len(self._unseen) - self._kept)

    def admit(self, slots: SlotNumbers) -> None:
        """Add to what may be drawn."""
        self._unseen.add(slots)

    def draw(self, count: int) -> SlotNumbers:
        """Take out a random subset."""
        return self._unseen.pop(count, self._rng)

    def drain(self, count: int) -> None:
        """Keep nothing back any more."""
        self._kept = 0

    def undrawn(self, candidates: SlotNumbers) -> SlotNumbers:
        """All that is held."""
        return self._unseen.listed()


@final
class Replacing:
    """Over all filled slots, with replacement."""

    def __init__(
        self, *, filled: SlotSet, draws: Counts, rng: np.random.Generator, even: bool
    ) -> None:
        self._filled, self._draws, self._rng, self._even = filled, draws, rng, even
        self._queue: SlotNumbers | None = None

    @property
    def held(self) -> int:
        """Filled slots, seen or not."""
        return len(self._filled)

    @property
    def available(self) -> int:
        """Any number while something is held; what is left of the queue once draining."""
        if self._queue is not None:
            return int(self._queue.size)
        return UNLIMITED if len(self._filled) else 0

    def admit(self, slots: SlotNumbers) -> None:
        """Nothing to do: the set of filled slots is shared with the reservoir."""

    def draw(self, count: int) -> SlotNumbers:
        """Random draws, or the next of the queue."""
        if self._queue is not None:
            slots, self._queue = self._queue[:count], self._queue[count:]
            return slots
        if not self._even:
            return self._filled.draw(count, self._rng)
        one, other = self._filled.draw(2 * count, self._rng).reshape(2, count)
        return np.where(self._draws[one] <= self._draws[other], one, other)

    def drain(self, count: int) -> None:
        """Queue ``count`` draws, and as many more as it takes to draw each unseen sample."""
        slots = self._filled.listed()
        unseen = slots[self._draws[slots] == 0]
        count = max(count, unseen.size)
        if count and self._even:
            queue = np.repeat(slots, _levelled(self._draws[slots], count, self._rng))
        else:
            again = self._filled.draw(count - unseen.size, self._rng) if count else NONE
            queue = np.concatenate([unseen, again])
        self._queue = self._rng.permutation(queue)

    def undrawn(self, candidates: SlotNumbers) -> SlotNumbers:
        """Any of them may be drawn."""
        return candidates


def _levelled(draws: Counts, count: int, rng: np.random.Generator) -> Counts:
    """How often each is to be drawn, ``count`` in all, for the least drawn to come out level."""
    order = rng.permutation(draws.size)
    order = order[np.argsort(draws[order], kind="stable")]
    low = draws[order]
    # Draws that it takes to bring the first ones level with each.
    costs = low * np.arange(1, low.size + 1) - np.cumsum(low)
    raised = int(np.searchsorted(costs, count, side="right"))
    level, rest = divmod(count + int(low[:raised].sum()), raised)
    more = np.zeros_like(draws)
    more[order[:raised]] = level - low[:raised]
    more[order[:rest]] += 1
    return more


Policy = Fifo | Firo | Replacing


def make_policy(
    name: PolicyName,
    *,
    capacity: int,
    watermark: int,
    filled: SlotSet,
    draws: Counts,
    rng: np.random.Generator,
) -> Policy:
    """The policy of that name; ``filled`` and ``draws`` are kept up to date by the caller."""
    if name == "fifo":
        return Fifo(capacity=capacity)
    if name == "firo":
        return Firo(capacity=capacity, watermark=watermark, rng=rng)
    return Replacing(filled=filled, draws=draws, rng=rng, even=name == "reservoir")
