"""Offline training, to compare with: a batch source whose batches are read from files.

The loop, the network and the seeds are those of online training; only where batches come from
differs. It keeps the invariants listed in ``trainers/base.py``. Beyond them
(``tests/unit/trainers/offline/test_source.py``):

1. Before each pass its files are forgotten by the page cache, so that every pass reads storage.
2. When the time is up the stream is over, wherever a pass is.
3. Memory is bounded: ``BUFFERS`` times a lease of batches, and a pool of members.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from trainers.base import Held, Lease, Moments
from trainers.offline.reading import Item, Passes, Read, Table, loader_of, pooled
from trainers.offline.stored import MemberFiles, forget

BUFFERS: Final = 4  # three that a staging thread has, and one to be filled
_PUT_SECONDS: Final = 0.2


@final
class FileSource:
    """A ``BatchSource`` around a ``DataLoader``.

    The loader's batches arrive on a thread of their own, which copies nothing; ``lease`` copies
    them into slots. Create it before other threads are started: workers are forked.
    """

    def __init__(
        self,
        *,
        files: MemberFiles,
        table: Table,
        read: Read,
        batch: int,
        lease_batches: int,
        passes: int | None,
        workers: int,
        seed: int,
        moments: Moments,
        validation: Held,
        share: tuple[int, int] = (0, 1),
        ends_at: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the workers.

        Args:
            files: Where the fields are.
            table: What may be drawn.
            read: How files are read.
            batch: Samples of a batch.
            lease_batches: Most batches of a lease.
            passes: Over the data; None for no end.
            workers: Processes that read; 0: read on the source's thread.
            seed: Seed of the order; the same on all ranks.
            moments: Statistics of the data, taken when it was written.
            validation: What is validated with.
            share: This rank, and the number of ranks.
            ends_at: When the stream is over, by ``clock``; None for no limit.
            clock: Monotonic seconds.
        """
        self._moments, self._validation = moments, validation
        self._ends_at, self._clock, self._batch = ends_at, clock, batch
        self._table = table
        order_seed, self._pool_seed = np.random.SeedSequence(seed).spawn(2)
        order = Passes(
            count=len(table) if read == "sample" else len(table.members),
            passes=passes,
            share=share,
            rng=np.random.default_rng(order_seed),
            before=lambda: forget(files.paths(table.members)) if share[0] == 0 else None,
        )
        loader = loader_of(files, table, order, read=read, batch=batch, workers=workers)
        blocks = BUFFERS * lease_batches
        self._fields = np.empty((blocks * batch, *table.shape), table.dtype)
        self._inputs = np.empty((blocks * batch, table.inputs.shape[1]))
        self._free = deque(range(blocks))
        self._leased: dict[int, list[int]] = {}
        self._filled = 0  # blocks that have been filled at least once
        self._next_lease = 0
        self._over = self._closing = False
        self._rng = np.random.default_rng(self._pool_seed)
        self._arrived: queue.Queue[Item | BaseException | None] = queue.Queue(lease_batches)
        items = iter(loader)  # forks the workers, here and not on the thread
        batches = items if read == "sample" else pooled(items, batch, self._rng)
        self._thread = threading.Thread(
            target=self._feed, args=(batches,), name="offline", daemon=True
        )
        self._thread.start()

    @property
    def fields(self) -> Float[np.ndarray, " slot window channel *grid"]:
        """The slots."""
        return self._fields

    @property
    def inputs(self) -> Float64[np.ndarray, " slot inputs"]:
        """Parameters and times of each slot."""
        return self._inputs

    def wait_for_watermark(self, timeout: float) -> bool:
        """Everything is there."""
        return True

    def moments(self) -> Moments:
        """What was given."""
        return self._moments

    def lease(self, batches: int, *, timeout: float) -> Lease:
        """The next batches, as many as have arrived; waits for the first."""
        taken: list[int] = []
        if self._ends_at is not None and self._clock() >= self._ends_at:
            self._over = True
        while not self._over and len(taken) < batches and self._free:
            try:
                item = self._arrived.get(block=not taken, timeout=max(timeout, 1e-3))
            except queue.Empty:
                break
            if isinstance(item, BaseException):
                raise item
            if item is None:
                self._over = True
                break
            taken.append(self._keep(item))
        return self._grant(taken)

    def replay(self, batches: int) -> Lease:
        """Draw again from the slots, which nothing is written to any more."""
        slots = self._rng.integers(0, self._filled * self._batch, (batches, self._batch))
        self._next_lease += 1
        return Lease(id=self._next_lease, indices=slots, finished=True)

    def give_back(self, lease_id: int) -> None:
        """The lease's slots may be written to again."""
        self._free.extend(self._leased.pop(lease_id, []))

    def held_validation(self) -> Held:
        """What was given."""
        return self._validation

    def close(self) -> None:
        """End the thread, and with it the workers. Safe to call twice."""
        self._closing = True
        self._thread.join()

    def _keep(self, item: Item) -> int:
        fields, rows = item
        block = self._free.popleft()
        slots = slice(block * self._batch, (block + 1) * self._batch)
        self._fields[slots] = fields.numpy()
        self._inputs[slots] = self._table.inputs[rows.numpy()]
        self._filled = max(self._filled, block + 1)  # blocks are used in turn at first
        return block

    def _grant(self, blocks: list[int]) -> Lease:
        self._next_lease += 1
        if blocks:
            self._leased[self._next_lease] = blocks
        indices = np.array(blocks, np.int64)[:, None] * self._batch + np.arange(self._batch)
        return Lease(id=self._next_lease, indices=indices, finished=self._over)

    # --- the thread -------------------------------------------------------------------------------

    def _feed(self, batches: Iterator[Item]) -> None:
        try:
            for item in batches:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again, by lease
            self._put(error)

    def _put(self, item: Item | BaseException | None) -> bool:
        """Whether it was taken before the source was closed."""
        while not self._closing:
            try:
                self._arrived.put(item, timeout=_PUT_SECONDS)
            except queue.Full:
                continue
            return True
        return False
