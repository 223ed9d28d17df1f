"""Members from files in random orders, by the workers of a torch ``DataLoader``.

Invariants (``tests/unit/trainers/offline/test_source.py``):

1. A pass names every sample of this rank once, in a random order, before the next pass begins.
2. ``read="sample"`` shuffles over the whole data set and reads one sample at a time;
   ``read="member"`` reads files whole and shuffles over the ``POOL`` members read last.
3. Batches go on over passes; only the last one of all is filled up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from trainers.offline.stored import MemberFiles

Read = Literal["sample", "member"]
Item = tuple[Tensor, Tensor]  # fields of some samples, and which ones they are

POOL: Final = 16  # members that are shuffled together
PREFETCH: Final = 4  # batches, or members, that each worker reads ahead


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What a rank may draw: one row for each sample of its members.

    Attributes:
        members: Numbers of the members, in the order of the rows.
        first: Row of each member's first sample, and the number of rows at the end.
        inputs: Parameters and times of each row.
        shape: ``(window, channel, *grid)`` of a sample.
        dtype: Type of the fields.
    """

    members: tuple[int, ...]
    first: Int64[np.ndarray, " bounds"]
    inputs: Float64[np.ndarray, " row inputs"]
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


def loader_of(
    files: MemberFiles, table: Table, order: Passes, *, read: Read, batch: int, workers: int
) -> "DataLoader[Item]":
    """What reads ahead: an item is a batch, or a member where files are read whole."""
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
