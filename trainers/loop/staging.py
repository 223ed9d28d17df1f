"""Leases ahead and gathers batches on a background thread, while the loop trains on earlier ones.

A lease's slots are gathered with one ``index_select`` into a buffer of a small ring; the loop takes
batches as views of it. A buffer is filled again only when the loop is done with all its batches.

Invariants (``tests/unit/trainers/loop/test_staging.py``):

1. Batches come out in the order they were leased in, with the content the slots had then.
2. A batch keeps its content until ``done`` was called for it.
3. A lease is given back once, after its last batch is done.
4. Memory is bounded: at most ``RING`` buffers, of ``staging_bytes`` together or one batch each.
5. What goes wrong on the thread is raised in the loop; leaving the context ends the thread in
   bounded time.
"""

import threading
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, final

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from trainers.base import BatchSource, Lease
from trainers.config import TrainerConfig
from trainers.loop.lockstep import Readiness

RING: Final = 3  # one in use, one ready, one being filled
LEASE_SECONDS: Final = 0.2  # what was given back waits no longer than that
CLOSE_SECONDS: Final = 30.0


def tensor_over(array: Float[np.ndarray, " *shape"]) -> Float[Tensor, " *shape"]:
    """A tensor over an array that may be read-only, and is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedBatch:
    """One batch on the device of the network, valid until ``Staging.done``."""

    fields: Float[Tensor, " batch window channel *grid"]
    inputs: Float64[Tensor, " batch inputs"]


@dataclass(slots=True)
class _Buffer:
    """Room for several batches, and what the loop still has to take of it."""

    fields: Tensor  # (batches, batch, window, channel, *grid)
    inputs: Tensor  # (batches, batch, inputs)
    filled: int = 0
    taken: int = 0
    finished: int = 0
    used: torch.cuda.Event | None = None  # the copies out of it have ended


@dataclass(slots=True)
class _OpenLease:
    id: int
    left: int  # batches that are not done


@final
class Staging:
    """The loop's side: ``readiness``, ``take``, ``done``; everything else is the thread's.

    Attributes:
        trained: Batches that ``done`` was called for.
    """

    def __init__(self, source: BatchSource, config: TrainerConfig, device: torch.device) -> None:
        self._source = source
        self._fields, self._inputs = tensor_over(source.fields), tensor_over(source.inputs)
        self._device = device
        self._lease_batches = config.lease_batches
        batch_bytes = config.batch * (self._fields[0].nbytes + self._inputs[0].nbytes)
        room = config.staging_bytes // (RING * batch_bytes)
        self._room = max(1, min(config.lease_batches, room))
        self._free = deque(self._buffer(config.batch) for _ in range(RING))
        self._ready: deque[_Buffer] = deque()  # head may be partly taken
        self._taken: deque[_Buffer] = deque()  # head is the oldest that the loop is not done with
        self._leases: deque[_OpenLease] = deque()
        self._returned: deque[_OpenLease] = deque()
        self.trained = 0
        self._replays = 0
        self._finished = self._stop = False
        self._closing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="staging", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        if kind is None:
            self.raise_failure()
            if self._thread.is_alive():
                raise TimeoutError(
                    f"the batch source has not answered for {CLOSE_SECONDS:g} s. Is the reservoir "
                    "still alive?"
                )

    def readiness(self, timeout: float) -> Readiness:
        """How many batches are at hand; waits up to ``timeout`` seconds for the first."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ready or self._finished or self._error is not None, timeout
            )
            at_hand = sum(buffer.filled - buffer.taken for buffer in self._ready)
            return Readiness(
                steps=at_hand,
                over=self._finished and at_hand == 0,
                failed=self._error is not None,
                stop=self._stop,
            )

    def take(self, count: int, *, replay: bool = False) -> Iterator[StagedBatch]:
        """The next ``count`` batches; call ``done`` after each.

        Args:
            count: At most as many as ``readiness`` said.
            replay: Draw them again from what is held, after the stream has finished.
        """
        if replay:
            with self._changed:
                self._replays = count
                self._changed.notify_all()
        for _ in range(count):
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._error is not None)
                if not self._ready:
                    # Only then: the other ranks take the train steps that were agreed on, and
                    # would wait for this one in the all-reduce of a gradient.
                    self.raise_failure()
                buffer = self._ready[0]
                index = buffer.taken
                buffer.taken += 1
                if index == 0:
                    self._taken.append(buffer)
                if buffer.taken == buffer.filled:
                    self._ready.popleft()
            yield self._on_device(buffer, index)

    def done(self) -> None:
        """The loop will not read the oldest batch it took any more."""
        self.trained += 1
        with self._changed:
            lease = self._leases[0]
            lease.left -= 1
            if lease.left == 0:
                self._returned.append(self._leases.popleft())
            buffer = self._taken[0]
            buffer.finished += 1
            if buffer.finished == buffer.filled:
                self._free.append(self._taken.popleft())
                self._changed.notify_all()

    def raise_failure(self) -> None:
        """Raise in the loop what went wrong on the thread."""
        if self._error is not None:
            raise self._error

    def _buffer(self, batch: int) -> _Buffer:
        fields, inputs = (
            torch.empty(
                *(self._room, batch, *slots.shape[1:]),
                dtype=slots.dtype,
                pin_memory=self._device.type == "cuda",
            )
            for slots in (self._fields, self._inputs)
        )
        return _Buffer(fields, inputs)

    def _on_device(self, buffer: _Buffer, index: int) -> StagedBatch:
        fields, inputs = buffer.fields[index], buffer.inputs[index]
        if self._device.type == "cpu":
            return StagedBatch(fields=fields, inputs=inputs)
        fields = fields.to(self._device, non_blocking=True)
        inputs = inputs.to(self._device, non_blocking=True)
        if index == buffer.filled - 1:
            buffer.used = torch.cuda.Event()  # type: ignore[no-untyped-call]
            buffer.used.record()
        return StagedBatch(fields=fields, inputs=inputs)

    # --- the thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closing:
                self._give_back()
                if self._finished:
                    self._replay_or_wait()
                elif self._room_to_lease():
                    lease = self._source.lease(self._lease_batches, timeout=LEASE_SECONDS)
                    self._stage(lease)
                    self._finish_if(lease.finished)
            self._give_back()
            if self._finished:
                self._source.lease(1, timeout=0.0)  # takes along what was given back
        except BaseException as error:  # noqa: BLE001 - raised again, in the loop
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _finish_if(self, finished: bool) -> None:
        if finished:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _room_to_lease(self) -> bool:
        """Wait until a buffer is free, so that no slot is leased before it can be gathered."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._free) or self._closing or self._returned)
            return bool(self._free) and not self._closing

    def _replay_or_wait(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._replays > 0 or bool(self._returned)
            )
            count, self._replays = self._replays, 0
        if count and not self._closing:
            self._stage(self._source.replay(count))

    def _give_back(self) -> None:
        while self._returned:
            self._source.give_back(self._returned.popleft().id)

    def _stage(self, lease: Lease) -> None:
        """Gather all batches of a lease, a buffer at a time."""
        self._stop = lease.stop_asked
        if len(lease.indices) == 0:
            return
        with self._changed:
            self._leases.append(_OpenLease(lease.id, len(lease.indices)))
        for start in range(0, len(lease.indices), self._room):
            with self._changed:
                self._changed.wait_for(lambda: self._free or self._closing)
                if self._closing:
                    return
                buffer = self._free.popleft()
            self._fill(buffer, lease.indices[start : start + self._room])
            with self._changed:
                self._ready.append(buffer)
                self._changed.notify_all()

    def _fill(self, buffer: _Buffer, indices: Int64[np.ndarray, " batches batch"]) -> None:
        if buffer.used is not None:
            buffer.used.synchronize()
        count = len(indices)
        rows = torch.from_numpy(np.ascontiguousarray(indices).reshape(-1))
        for slots, staged in ((self._fields, buffer.fields), (self._inputs, buffer.inputs)):
            torch.index_select(slots, 0, rows, out=staged[:count].flatten(0, 1))
        buffer.filled, buffer.taken, buffer.finished = count, 0, 0
