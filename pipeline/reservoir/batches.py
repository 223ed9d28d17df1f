"""From leases to index batches: what a rank draws from.

Translates the pipeline's words into the trainer's (``trainers.base.BatchSource``), and keeps the
invariants listed there. Beyond them:

1. Ended leases travel with the next call for a lease: one call for several batches, both ways.
2. A call that fails loses no ended lease.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int64

from pipeline.slots.memory import Slots
from trainers.base import Held, Lease, Moments
from trainers.tasks.moments import moments_of, spread_evenly


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldState:
    """What a reservoir holds now.

    Attributes:
        slots: Training slots that hold a sample.
        validation: Validation samples, in slots 0, 1, ... of the append-only store.
        validation_complete: No further validation sample will come.
    """

    slots: Int64[np.ndarray, " slot"]
    validation: int
    validation_complete: bool


@runtime_checkable
class ReservoirClient(Protocol):
    """One reservoir as its rank sees it: an actor's handle, or an object of the same process."""

    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        ...

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        """End the returned leases, then draw; wait up to ``timeout`` seconds for a batch."""
        ...

    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again after the end."""
        ...

    def held(self) -> HeldState:
        """What is held now."""
        ...


@final
class ReservoirSource:
    """Batches of one rank out of a live reservoir, read in place.

    ``lease`` may run on a staging thread while another one calls ``give_back``: what they share is
    a deque, whose operations are atomic.
    """

    def __init__(
        self,
        *,
        client: ReservoirClient,
        training: Slots,
        validation: Slots | None,
        batch: int,
        first_members: int = 0,
        watermark: int | None = None,
        wait_slice: float = 0.05,
    ) -> None:
        """Take over attached slots; ``close`` lets go of them.

        Args:
            client: Where leases come from.
            training: The reservoir's slots, attached.
            validation: Its append-only store; None in a study without validation members.
            batch: Samples per batch.
            first_members: Members with numbers below this are whole when training may start.
            watermark: Samples that are there at least when training may start; None: unknown.
            wait_slice: Seconds one call waits at most. Leases that end while the rank waits for the
                next one are handed over after this time at the latest: their slots may be what the
                solvers, and so this rank, wait for.
        """
        self._client, self._training, self._validation = client, training, validation
        self._batch, self._slice = batch, wait_slice
        self._first_members, self._watermark = first_members, watermark
        self._leased = False
        self._returned: deque[int] = deque()

    @property
    def fields(self) -> Float[np.ndarray, " slot window channel *grid"]:
        """The slots, read-only."""
        return self._training.fields

    @property
    def inputs(self) -> Float64[np.ndarray, " slot inputs"]:
        """Parameters and times of each slot, read-only."""
        return self._training.inputs

    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        return self._client.wait_for_watermark(timeout)

    def moments(self) -> Moments:
        """Statistics of what is held; before the first lease, of the first members alone.

        Until then no sample was seen, and an unseen one is never overwritten: the slots keep their
        content without a lease. Where no first member is there, it is the first samples, by member
        and step, of which there are as many as training waits for.
        """
        slots = self._client.held().slots
        if not self._leased:
            members, steps = self._training.members[slots], self._training.steps[slots]
            order = np.lexsort((steps, members))
            whole = order[members[order] < self._first_members]
            slots = slots[whole if whole.size else order[: self._watermark]]
        sample_bytes = self.fields[:1].nbytes
        return moments_of(self.fields, self.inputs, spread_evenly(slots, sample_bytes))

    def lease(self, batches: int, *, timeout: float) -> Lease:
        """Draw up to ``batches`` batches; wait up to ``timeout`` seconds for the first."""
        self._leased = True
        remaining = max(timeout, 0.0)
        while True:
            wait = min(remaining, self._slice)
            lease = self._call(batches, wait)
            remaining -= wait
            if lease.indices.size or lease.finished or batches == 0 or remaining <= 0:
                return lease

    def replay(self, batches: int) -> Lease:
        """Draw exactly ``batches`` batches again after the stream has finished."""
        self.flush()
        return self._client.replay(batches, self._batch)

    def give_back(self, lease_id: int) -> None:
        """End a lease; the reservoir hears of it with the next call."""
        self._returned.append(lease_id)

    def flush(self) -> None:
        """Hand over ended leases now, without asking for a new one."""
        if self._returned:
            self._call(0, 0.0)

    def held_validation(self) -> Held:
        """Validation samples so far; rows of an append-only store, which nobody overwrites."""
        state = self._client.held()
        slots, count = self._validation, state.validation
        if slots is None:
            slots, count = self._training, 0
        return Held(
            fields=slots.fields[:count],
            inputs=slots.inputs[:count],
            members=slots.members[:count],
            steps=slots.steps[:count],
            complete=state.validation_complete,
        )

    def close(self) -> None:
        """Hand over the last leases and let go of the slots. Safe to call twice."""
        self.flush()
        self._training.close()
        if self._validation is not None:
            self._validation.close()

    def _call(self, batches: int, timeout: float) -> Lease:
        returned = [self._returned.popleft() for _ in range(len(self._returned))]
        try:
            return self._client.lease(returned, batches, self._batch, timeout)
        except BaseException:
            self._returned.extendleft(reversed(returned))
            raise
