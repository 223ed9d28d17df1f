"""Reads what reservoirs left in a checkpoint back, for the same or another number of ranks."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from pipeline.checkpoint.store import Snapshot, Stored, columns_of, store_path
from pipeline.reservoir.state import (
    Counters,
    HeldRows,
    Numbers,
    Order,
    Recorded,
    ReservoirState,
    fitting,
    home,
    share_of,
)
from pipeline.slots.memory import SlotArrays


def read(
    checkpoint: Path,
    *,
    rank: int,
    ranks: int,
    old_ranks: int,
    training: SlotArrays,
    validation: SlotArrays | None,
) -> Snapshot:
    """Fill the slots 0, 1, ... of one rank, and tell what belongs to them.

    Args:
        checkpoint: A valid one, taken by ``old_ranks`` ranks.
        rank: The one to be filled.
        ranks: How many go on from it.
        old_ranks: How many took it.
        training: Slots to be filled.
        validation: The append-only store.

    Returns:
        The rank's share of what was known, of each member what is not to be stored again.

    Raises:
        ConfigError: More samples are unseen than there are slots.
    """
    same = ranks == old_ranks
    roots = [open_store(checkpoint, each) for each in ([rank] if same else range(old_ranks))]
    groups = [subgroup(root, "training") for root in roots]
    checks = [subgroup(root, "validation") for root in roots]
    rows = [_own_rows(group, rank, ranks, validation=False) for group in groups]
    check_rows = [_own_rows(group, rank, ranks, validation=True) for group in checks]
    held, filled = _merged(groups, rows), np.arange(sum(map(len, check_rows)))
    keep = fitting(held, len(training.members))
    _fill(training, groups, rows, keep)
    if validation is not None:
        _fill(validation, checks, check_rows, filled)
    parts, stored = [_counters(root) for root in roots], all_stored(groups)
    counters = parts[0] if same else share_of(parts, inserted=_inserted(stored, ranks), rank=rank)
    rng, turns = (json.loads(str(roots[0].attrs[name])) for name in ("rng", "turns"))
    return Snapshot(
        state=ReservoirState(
            held=held.select(keep),
            counters=counters,
            rng=rng if same else None,
            order=_order(roots[0]) if same else None,
        ),
        validation=filled,
        stored=_own(stored, rank, ranks, validation=False),
        validation_stored=_own(all_stored(checks), rank, ranks, validation=True),
        turns=(turns[0], turns[1]) if same else (None, None),
        recorded=_recorded(roots[0], keep) if same else None,
    )


def stored_samples(checkpoint: Path, ranks: int) -> dict[int, int]:
    """Number of samples of each member that a checkpoint knows to be stored."""
    roots = [open_store(checkpoint, rank) for rank in range(ranks)]
    groups = [subgroup(root, name) for root in roots for name in ("training", "validation")]
    return {member: int(known.sum()) for member, known in all_stored(groups).items()}


def recorded_rows(checkpoint: Path, rank: int) -> tuple[int | None, int]:
    """Rows that the record of a rank had, None where there was none, and samples it had dropped."""
    recorded = _recorded(open_store(checkpoint, rank), np.empty(0, np.int64))
    return (None, 0) if recorded is None else (recorded.position, recorded.dropped)


def open_store(checkpoint: Path, rank: int) -> zarr.Group:
    """What a rank has written into a checkpoint."""
    return zarr.open_group(store_path(checkpoint, rank), mode="r")


def subgroup(root: zarr.Group, name: str) -> zarr.Group:
    """The group of this name in another."""
    found = root[name]
    assert isinstance(found, zarr.Group)
    return found


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def values_in(group: zarr.Group, name: str) -> Shaped[np.ndarray, " _"]:
    """All values of an array."""
    return np.asarray(_array(group, name)[:])


def _counters(root: zarr.Group) -> Counters:
    return Counters(**{name: int(str(root.attrs[name])) for name in ("inserted", "drawn", "late")})


def _order(root: zarr.Group) -> Order | None:
    if "order" not in root:
        return None
    group = subgroup(root, "order")
    return Order(
        facts=json.loads(str(group.attrs["facts"])),
        arrays={name: values_in(group, name) for name in group.array_keys()},
    )


def _recorded(root: zarr.Group, keep: Numbers) -> Recorded | None:
    if "record" not in root:
        return None
    group = subgroup(root, "record")
    return Recorded(
        position=int(str(group.attrs["position"])),
        dropped=int(str(group.attrs["dropped"])),
        rows=values_in(group, "row")[keep],
        draws=values_in(group, "draws")[keep],
    )


def _own_rows(group: zarr.Group, rank: int, ranks: int, *, validation: bool) -> Numbers:
    if "member" not in group:
        return np.empty(0, np.int64)
    members, samples = values_in(group, "member"), values_in(group, "sample")
    return np.flatnonzero(home(members, samples, validation=validation, ranks=ranks) == rank)


def _merged(groups: Sequence[zarr.Group], rows: Sequence[Numbers]) -> HeldRows:
    """The rows of all old ranks, in turn: what was to be drawn next in each comes first."""
    draws, numbers = (
        np.concatenate([values_in(each, name)[own] for each, own in zip(groups, rows, strict=True)])
        for name in ("draws", "number")
    )
    return HeldRows(slots=np.arange(len(draws)), draws=draws, numbers=numbers)


def _fill(
    arrays: SlotArrays,
    groups: Sequence[zarr.Group],
    rows: Sequence[Numbers],
    keep: Numbers,
) -> None:
    """Copy the rows ``keep`` of all groups together into slots 0, 1, ..., a block at a time."""
    targets = columns_of(arrays) | {"fields": np.asarray(arrays.fields)}
    slot, begin = 0, 0
    for group, own in zip(groups, rows, strict=True):
        mine = own[keep[(keep >= begin) & (keep < begin + own.size)] - begin]
        begin += own.size
        if mine.size == 0:
            continue
        sources = {name: _array(group, name) for name in targets}
        rows_of_block = sources["fields"].chunks[0]
        for start in np.unique(mine - mine % rows_of_block).tolist():
            block = mine[(mine >= start) & (mine < start + rows_of_block)]
            end = slot + block.size
            for name, source in sources.items():
                lines = np.asarray(source[start : start + rows_of_block])
                targets[name][slot:end] = lines[block - start]
            slot = end


def read_stored(group: zarr.Group) -> Iterator[tuple[int, Bool[np.ndarray, " sample"]]]:
    """The samples of each member that were ever stored; ``group`` is training or validation."""
    bits, end = values_in(group, "stored_bits"), 0
    sizes = values_in(group, "stored_bytes").tolist()
    for member, size in zip(values_in(group, "stored_member").tolist(), sizes, strict=True):
        yield member, np.unpackbits(bits[end : end + size]).astype(np.bool_)
        end += size


def all_stored(groups: Iterable[zarr.Group]) -> Stored:
    """The samples of each member that any of these groups knows."""
    found: dict[int, Bool[np.ndarray, " sample"]] = {}
    for group in groups:
        for member, known in read_stored(group):
            before = found.get(member, np.zeros(0, np.bool_))
            longer, shorter = (known, before) if known.size >= before.size else (before, known)
            longer[: shorter.size] |= shorter
            found[member] = longer
    return found


def _own(stored: Stored, rank: int, ranks: int, *, validation: bool) -> Stored:
    return {
        member: known & (_homes(member, known, ranks, validation=validation) == rank)
        for member, known in stored.items()
    }


def _inserted(stored: Stored, ranks: int) -> list[int]:
    """Training samples of each of the new ranks."""
    total = np.zeros(ranks, np.int64)
    for member, known in stored.items():
        total += np.bincount(_homes(member, known, ranks, validation=False)[known], minlength=ranks)
    return [int(count) for count in total]


def _homes(
    member: int, known: Bool[np.ndarray, " sample"], ranks: int, *, validation: bool
) -> Numbers:
    samples = np.arange(known.size)
    return home(np.full(known.size, member), samples, validation=validation, ranks=ranks)
