"""Offline training, to compare with: batches that a torch ``DataLoader`` reads from files.

The loop, the network and the seeds are those of online training; only where batches come from
differs. It keeps the invariants listed in ``trainers/base.py``. Beyond them
(``tests/unit/test_offline.py``):

1. A pass draws every sample of this rank once, in a random order, before the next pass begins.
2. Before each pass its files are forgotten by the page cache, so that every pass reads storage.
3. ``read="sample"`` shuffles over the whole data set and reads one sample at a time;
   ``read="member"`` reads files whole and shuffles over the ``POOL`` members read last.
4. When the time is up the stream is over, wherever a pass is.
5. Memory is bounded: ``BUFFERS`` times a lease of batches, and a pool of members.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from trainers.base import Held, Lease, Moments, TrainStats
from trainers.stored import MemberFiles, forget

Read = Literal["sample", "member"]
Item = tuple[Tensor, Tensor]  # fields of some samples, and which ones they are

POOL: Final = 16  # members that are shuffled together
PREFETCH: Final = 4  # batches, or members, that each worker reads ahead
BUFFERS: Final = 4  # three that a staging thread has, and one to be filled
_PUT_SECONDS: Final = 0.2


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What a rank may draw: one row for each sample of its members.

    Attributes:
        members: In the order of the rows.
        first: Row of each member's first sample, and the number of rows at the end.
        inputs: Parameters and times of each row.
        shape: ``(window, channel, *grid)`` of a sample.
        dtype: Of the fields.
    """

    members: tuple[int, ...]
    first: Int64[np.ndarray, " bounds"]
    inputs: Float32[np.ndarray, " row inputs"]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, files: MemberFiles, members: Sequence[int]) -> "Table":
        """Look at the members' inputs; no field is read.

        Raises:
            ValueError: There is no sample.
        """
        found = [files.index(member) for member in members]
        counts = [len(each.steps) for each in found]
        if sum(counts) == 0:
            raise ValueError(f"no samples in {len(members)} members: nothing to train on")
        return cls(
            members=tuple(members),
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            inputs=np.concatenate([each.inputs for each in found]),
            shape=found[0].fields.shape[1:],
            dtype=found[0].fields.dtype,
        )

    def __len__(self) -> int:
        return int(self.first[-1])

    def place(self, row: int) -> tuple[int, int]:
        """Member and sample of a row."""
        which = int(np.searchsorted(self.first, row, side="right")) - 1
        return self.members[which], row - int(self.first[which])


@final
class SampleFiles(Dataset[Item]):
    """Single samples; the loader makes batches of them."""

    def __init__(self, files: MemberFiles, table: Table) -> None:
        self._files, self._table = files, table

    def __getitem__(self, row: int) -> Item:
        fields = self._files.read_sample(*self._table.place(row))
        return torch.from_numpy(fields), torch.tensor(row)


@final
class WholeMembers(Dataset[Item]):
    """Whole members, by their position."""

    def __init__(self, files: MemberFiles, table: Table) -> None:
        self._files, self._table = files, table

    def __getitem__(self, position: int) -> Item:
        fields = self._files.read(self._table.members[position])
        first, end = self._table.first[position : position + 2]
        return torch.from_numpy(fields), torch.arange(int(first), int(end))


@final
class Passes:
    """Random orders of ``count`` things, one after the other; ``before`` is called ahead of each.

    Args:
        count: Samples, or members.
        passes: How many orders; None for no end.
        share: This rank and the number of ranks: every order is dealt out to them in turn.
        rng: The same on all ranks.
        before: Called before a pass begins.
    """

    def __init__(
        self,
        *,
        count: int,
        passes: int | None,
        share: tuple[int, int],
        rng: np.random.Generator,
        before: Callable[[], None],
    ) -> None:
        self._count, self._passes, self._share = count, passes, share
        self._rng, self._before = rng, before

    def __iter__(self) -> Iterator[int]:
        done = 0
        while self._passes is None or done < self._passes:
            self._before()
            rank, ranks = self._share
            yield from self._rng.permutation(self._count)[rank::ranks].tolist()
            done += 1


@final
class Batches:
    """Cuts an order into batches, across passes; the last one is filled up with earlier rows."""

    def __init__(self, order: Passes, batch: int) -> None:
        self._order, self._batch = order, batch

    def __iter__(self) -> Iterator[list[int]]:
        held: list[int] = []
        first: list[int] = []
        for row in self._order:
            held.append(row)
            if len(first) < self._batch:
                first.append(row)
            if len(held) == self._batch:
                yield held
                held = []
        if held:
            filling = first * self._batch
            yield held + filling[: self._batch - len(held)]


def pooled(members: Iterator[Item], batch: int, rng: np.random.Generator) -> Iterator[Item]:
    """Batches drawn at random, without replacement, from the members read last.

    Once ``POOL`` members are held, a batch is drawn whenever more than that is there; after the
    last member what is left is drawn. The last batch is filled up with samples of itself.
    """
    fields: list[Tensor] = []
    rows: list[Tensor] = []

    def drawn(keep: int) -> Iterator[Item]:
        # Joined once for each member that arrives, not once for each batch.
        all_fields, all_rows = torch.cat(fields), torch.cat(rows)
        order = torch.from_numpy(rng.permutation(len(all_rows)))
        taken = max(0, len(all_rows) - keep) // batch * batch
        for start in range(0, taken, batch):
            chosen = order[start : start + batch]
            yield all_fields[chosen], all_rows[chosen]
        left = order[taken:]
        fields[:], rows[:] = [all_fields[left]], [all_rows[left]]

    held = 0
    for member_fields, member_rows in members:
        fields.append(member_fields)
        rows.append(member_rows)
        held += 1
        if held >= POOL and held % (POOL // 2) == 0:
            yield from drawn(keep=POOL // 2 * len(member_rows))
    if held:
        yield from drawn(keep=0)
        if len(rows[0]):
            filling = torch.arange(batch) % len(rows[0])
            yield fields[0][filling], rows[0][filling]


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
        said: Callable[[TrainStats], None] = lambda stats: None,
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
            seed: Of the order; the same on all ranks.
            moments: Statistics of the data, taken when it was written.
            validation: What is validated with.
            share: This rank, and the number of ranks.
            ends_at: When the stream is over, by ``clock``; None for no limit.
            clock: Monotonic seconds.
            said: Is told what the training loop reports.
        """
        self._moments, self._validation, self._said = moments, validation, said
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
        loader = _loader(files, table, order, read=read, batch=batch, workers=workers)
        blocks = BUFFERS * lease_batches
        self._fields = np.empty((blocks * batch, *table.shape), table.dtype)
        self._inputs = np.empty((blocks * batch, table.inputs.shape[1]), np.float32)
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
    def inputs(self) -> Float32[np.ndarray, " slot inputs"]:
        """Parameters and times of each slot."""
        return self._inputs

    @property
    def read_ahead(self) -> int:
        """Batches that were read and not leased yet."""
        return self._arrived.qsize()

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

    def give_back(self, lease_id: int, losses: Sequence[Float32[np.ndarray, " batch"]]) -> None:
        """The lease's slots may be written to again."""
        self._free.extend(self._leased.pop(lease_id, []))

    def held_validation(self) -> Held:
        """What was given."""
        return self._validation

    def report(self, stats: TrainStats) -> None:
        """Pass it on."""
        self._said(stats)

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


def _loader(
    files: MemberFiles, table: Table, order: Passes, *, read: Read, batch: int, workers: int
) -> "DataLoader[Item]":
    ahead: dict[str, Any] = {"num_workers": workers}
    if workers:
        ahead |= {"prefetch_factor": PREFETCH, "multiprocessing_context": "fork"}
    if read == "sample":
        samples = SampleFiles(files, table)
        batches = Batches(order, batch)
        return DataLoader(samples, batch_sampler=batches, collate_fn=_together, **ahead)
    return DataLoader(WholeMembers(files, table), batch_size=None, sampler=order, **ahead)


def _together(samples: Sequence[Item]) -> Item:
    """Several samples as one batch, in shared memory when a worker does it."""
    fields, rows = default_collate(list(samples))
    return fields, rows
