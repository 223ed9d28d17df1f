"""Reads what reservoirs left in a checkpoint back, for the same or another number of ranks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from pipeline.checkpoint.store import Stored, Turn, columns_of, store_path
from pipeline.reservoir.state import (
    Counters,
    HeldRows,
    Numbers,
    Order,
    Recorded,
    ReservoirState,
    chosen,
    fitting,
    home,
    share_of,
)
from pipeline.slots.memory import SlotArrays


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What a reservoir takes over; the samples lie in slots 0, 1, ... already.

    Attributes:
        state: For the bookkeeping.
        stored: Which training samples of each member are not to be stored again.
        validation_held: Samples in the validation store.
        validation_stored: As ``stored``, for validation members.
        recorded: As in the snapshot.
        turn: The member whose turn it is, in a deterministic study.
        validation_turn: As ``turn``, for validation members.
    """

    state: ReservoirState
    stored: Stored
    validation_held: int
    validation_stored: Stored
    recorded: Recorded | None = None
    turn: Turn = None
    validation_turn: Turn = None


def read(
    checkpoint: Path,
    *,
    rank: int,
    ranks: int,
    old_ranks: int,
    training: SlotArrays,
    validation: SlotArrays | None,
) -> Restored:
    """Fill the slots of one rank, and tell what belongs to them.

    Args:
        checkpoint: A valid one, taken by ``old_ranks`` ranks.
        rank: The one to be filled.
        ranks: How many go on from it.
        old_ranks: How many took it.
        training: Slots to be filled.
        validation: The append-only store.

    Raises:
        ConfigError: More samples are unseen than there are slots.
    """
    sources = [rank] if ranks == old_ranks else list(range(old_ranks))
    roots = [zarr.open_group(store_path(checkpoint, each), mode="r") for each in sources]
    groups = [subgroup(root, "training") for root in roots]
    rows = [_own_rows(group, rank, ranks, validation=False) for group in groups]
    held = _merged(groups, rows)
    keep = fitting(held, len(training.members))
    _fill(training, groups, rows, keep)
    parts = [_counters(root) for root in roots]
    stored = _all_stored(groups)
    kept_checks = [subgroup(root, "validation") for root in roots]
    validation_rows = [_own_rows(group, rank, ranks, validation=True) for group in kept_checks]
    if validation is not None:
        _fill(validation, kept_checks, validation_rows, np.arange(sum(map(len, validation_rows))))
    same = ranks == old_ranks
    counters = parts[0] if same else share_of(parts, inserted=_inserted(stored, ranks), rank=rank)
    rng = json.loads(str(roots[0].attrs["rng"])) if same else None
    turns = json.loads(str(roots[0].attrs["turns"])) if same else (None, None)
    order = _order(roots[0]) if same else None
    return Restored(
        state=ReservoirState(held=chosen(held, keep), counters=counters, rng=rng, order=order),
        stored=_own(stored, rank, ranks, validation=False),
        validation_held=sum(map(len, validation_rows)),
        validation_stored=_own(_all_stored(kept_checks), rank, ranks, validation=True),
        recorded=_recorded(roots[0], keep) if same else None,
        turn=turns[0],
        validation_turn=turns[1],
    )


def stored_samples(checkpoint: Path, ranks: int) -> dict[int, int]:
    """Number of samples of each member that a checkpoint knows to be stored."""
    count: dict[int, int] = {}
    for rank in range(ranks):
        root = zarr.open_group(store_path(checkpoint, rank), mode="r")
        for name in ("training", "validation"):
            for member, known in read_stored(subgroup(root, name)):
                count[member] = count.get(member, 0) + int(known.sum())
    return count


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
    values = {name: int(str(root.attrs[name])) for name in ("inserted", "drawn", "late")}
    return Counters(**values)


def _order(root: zarr.Group) -> Order | None:
    if "order" not in root:
        return None
    group = subgroup(root, "order")
    return Order(
        facts=json.loads(str(group.attrs["facts"])),
        arrays={name: values_in(group, name) for name in group.array_keys()},
    )


def recorded_rows(checkpoint: Path, rank: int) -> tuple[int | None, int]:
    """Rows that the record of a rank had, None where there was none, and samples it had dropped."""
    root = zarr.open_group(store_path(checkpoint, rank), mode="r")
    if "record" not in root:
        return None, 0
    attributes = subgroup(root, "record").attrs
    return int(str(attributes["position"])), int(str(attributes["dropped"]))


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


def _of_rows(
    groups: Sequence[zarr.Group], name: str, rows: Sequence[Numbers]
) -> Shaped[np.ndarray, " _"]:
    return np.concatenate(
        [values_in(group, name)[own] for group, own in zip(groups, rows, strict=True)]
    )


def _merged(groups: Sequence[zarr.Group], rows: Sequence[Numbers]) -> HeldRows:
    """The rows of all old ranks, in turn: what was to be drawn next in each comes first."""
    draws, numbers = (_of_rows(groups, name, rows) for name in ("draws", "number"))
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
        for start, block in _blocks(mine, rows_of_block):
            end = slot + block.size
            for name, source in sources.items():
                lines = np.asarray(source[start : start + rows_of_block])
                targets[name][slot:end] = lines[block - start]
            slot = end


def _blocks(rows: Numbers, length: int) -> Iterator[tuple[int, Numbers]]:
    """Rows by the block they lie in, and where that begins."""
    numbers = rows // length
    for number in np.unique(numbers):
        yield int(number) * length, rows[numbers == number]


def read_stored(group: zarr.Group) -> Iterator[tuple[int, Bool[np.ndarray, " sample"]]]:
    """The samples of each member that were ever stored; ``group`` is training or validation."""
    bits, end = values_in(group, "stored_bits"), 0
    sizes = values_in(group, "stored_bytes").tolist()
    for member, size in zip(values_in(group, "stored_member").tolist(), sizes, strict=True):
        yield member, np.unpackbits(bits[end : end + size]).astype(np.bool_)
        end += size


def _all_stored(groups: Sequence[zarr.Group]) -> dict[int, Bool[np.ndarray, " sample"]]:
    """The samples that any of the old ranks has stored."""
    found: dict[int, Bool[np.ndarray, " sample"]] = {}
    for group in groups:
        for member, known in read_stored(group):
            before = found.get(member, np.zeros(0, np.bool_))
            longer, shorter = (known, before) if known.size >= before.size else (before, known)
            longer[: shorter.size] |= shorter
            found[member] = longer
    return found


def _own(
    stored: Stored, rank: int, ranks: int, *, validation: bool
) -> dict[int, Bool[np.ndarray, " sample"]]:
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
