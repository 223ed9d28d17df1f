"""Which samples are drawn next: the three policies, over slot numbers.

A policy is told which slots were filled (``admit``) and answers with slots to draw; who may
overwrite a slot is the reservoir's business (``pipeline/reservoir/book.py``). Randomness is passed
in.

1. ``fifo`` draws each sample once, in order of arrival.
2. ``firo`` draws each sample once, at random, only while more than ``watermark`` are held or
   production has ended.
3. ``reservoir`` draws uniformly over what is held, with replacement; once production has ended it
   draws each held sample once more, in random order.
4. Every operation costs O(slots named in it), whatever the capacity; only the change to draining is
   O(held), once.
"""

from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Int64

from pipeline.flow import UNLIMITED, PolicyName
from pipeline.slots.memory import SlotNumbers

Undrawn = Int64[np.ndarray, " undrawn"]

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

    def draw(self, count: int, rng: np.random.Generator) -> SlotNumbers:
        """``count`` members, uniformly, with replacement."""
        return self._dense[rng.integers(self._size, size=count)]

    def shuffled(self, rng: np.random.Generator) -> SlotNumbers:
        """All members in random order."""
        return rng.permutation(self._dense[: self._size])

    def listed(self) -> SlotNumbers:
        """All members; a set that they are added to in this order draws as this one does."""
        return self._dense[: self._size].copy()

    def members(self) -> SlotNumbers:
        """All members, ascending."""
        return np.sort(self._dense[: self._size])


@runtime_checkable
class Policy(Protocol):
    """Decides what is drawn."""

    @property
    def held(self) -> int:
        """Samples that may be drawn from."""
        ...

    @property
    def available(self) -> int:
        """Draws that may be made now."""
        ...

    def admit(self, slots: SlotNumbers) -> None:
        """These slots hold new samples."""
        ...

    def draw(self, count: int) -> SlotNumbers:
        """Draw ``count <= available`` samples."""
        ...

    def drain(self, passed: SlotNumbers) -> None:
        """Nothing is admitted any more: each sample but ``passed`` is drawn once from now on."""
        ...

    def undrawn(self, candidates: SlotNumbers) -> Undrawn:
        """Those of the candidates that are still to be drawn, next ones first.

        Before the end of production a policy that admits them in this order draws as this one does.
        """
        ...


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

    def drain(self, passed: SlotNumbers) -> None:
        """Nothing changes."""

    def undrawn(self, candidates: SlotNumbers) -> Undrawn:
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

    def drain(self, passed: SlotNumbers) -> None:
        """Keep nothing back any more."""
        self._kept = 0

    def undrawn(self, candidates: SlotNumbers) -> Undrawn:
        """All that is held."""
        return self._unseen.listed()


@final
class Uniform:
    """Uniformly over all filled slots, with replacement; in the end each of them once more."""

    def __init__(self, *, filled: SlotSet, rng: np.random.Generator) -> None:
        self._filled, self._rng = filled, rng
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
        """Uniform draws, or the next of the queue."""
        if self._queue is None:
            return self._filled.draw(count, self._rng)
        slots, self._queue = self._queue[:count], self._queue[count:]
        return slots

    def drain(self, passed: SlotNumbers) -> None:
        """Queue everything held but ``passed``, in random order."""
        queue = self._filled.shuffled(self._rng)
        self._queue = queue[~np.isin(queue, passed)]

    def undrawn(self, candidates: SlotNumbers) -> Undrawn:
        """The queue while draining; before that any of them may be drawn."""
        return candidates if self._queue is None else self._queue


def make_policy(
    name: PolicyName,
    *,
    capacity: int,
    watermark: int,
    filled: SlotSet,
    rng: np.random.Generator,
) -> Policy:
    """The policy of that name; ``filled`` is kept up to date by the caller."""
    if name == "fifo":
        return Fifo(capacity=capacity)
    if name == "firo":
        return Firo(capacity=capacity, watermark=watermark, rng=rng)
    return Uniform(filled=filled, rng=rng)
