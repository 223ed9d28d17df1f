"""A batch source over arrays that are complete from the start: what a live one is held against."""

from typing import final

import numpy as np
from jaxtyping import Float, Float64

from trainers.base import Held, Lease, Moments
from trainers.tasks.moments import moments_of


@final
class ResidentSource:
    """Every sample is drawn once before any of them is drawn twice."""

    def __init__(
        self,
        *,
        fields: Float[np.ndarray, " sample window channel *grid"],
        inputs: Float64[np.ndarray, " sample inputs"],
        batch: int,
        rng: np.random.Generator,
        total_batches: int,
        validation: Held | None = None,
    ) -> None:
        if len(fields) == 0:
            raise ValueError("no samples: a ResidentSource needs at least one")
        self._fields, self._inputs, self._batch, self._rng = fields, inputs, batch, rng
        self._left = total_batches
        self._validation = validation
        self._queue = np.empty(0, np.int64)
        self._next_lease = 0

    @property
    def fields(self) -> Float[np.ndarray, " sample window channel *grid"]:
        """The array that was given."""
        return self._fields

    @property
    def inputs(self) -> Float64[np.ndarray, " sample inputs"]:
        """The array that was given."""
        return self._inputs

    def wait_for_watermark(self, timeout: float) -> bool:
        """Everything is there."""
        return True

    def moments(self) -> Moments:
        """Statistics over all samples."""
        return moments_of(self._fields, self._inputs, np.arange(len(self._fields)))

    def lease(self, batches: int, *, timeout: float) -> Lease:
        """The next batches of a random order, which starts anew when it is used up."""
        rows = min(batches, self._left)
        self._left -= rows
        return self._grant(rows)

    def replay(self, batches: int) -> Lease:
        """Go on as before."""
        return self._grant(batches)

    def give_back(self, lease_id: int) -> None:
        """Nothing to do: nobody overwrites the arrays."""

    def held_validation(self) -> Held:
        """What was given, or nothing."""
        if self._validation is not None:
            return self._validation
        none = np.empty(0, np.int64)
        return Held(
            fields=self._fields[:0],
            inputs=self._inputs[:0],
            members=none,
            steps=none,
            complete=True,
        )

    def _grant(self, rows: int) -> Lease:
        needed = rows * self._batch
        while self._queue.size < needed:
            self._queue = np.concatenate([self._queue, self._rng.permutation(len(self._fields))])
        slots, self._queue = self._queue[:needed], self._queue[needed:]
        self._next_lease += 1
        indices = slots.reshape(rows, self._batch)
        return Lease(id=self._next_lease, indices=indices, finished=self._left == 0)
