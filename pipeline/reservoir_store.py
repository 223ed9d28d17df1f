"""A reservoir's part of a checkpoint: its samples and its bookkeeping as one Zarr v3 store.

1. What is written is what the slots held when the snapshot was taken; a block's slots are let go as
   soon as they are copied.
2. Memory is bounded by one block, whatever the reservoir holds.
3. What was written by any number of ranks can be read by any other number: each sample, and what is
   known of it, goes to the rank that its sender would send it to.
4. Nothing is pickled, and every chunk is one block: a damaged file is found by its digest.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from pipeline.record import direct_file
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
from trainers.checkpoint_files import Digest, digest_of

STORE: Final = "reservoir.zarr"
BLOCK_BYTES: Final = 8 << 20
Stored = Mapping[int, Bool[np.ndarray, " sample"]]
Turn = dict[str, Any] | None  # as pipeline.stream.order says it


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a reservoir knows at one moment; the samples themselves stay in their slots.

    Attributes:
        state: The bookkeeping.
        validation: Slots of the validation store that hold a sample.
        stored: Which training samples of each member were ever stored here.
        validation_stored: Likewise for validation members.
        turns: Whose turn it is in both stores, in a deterministic study.
        recorded: What the record knows of the held samples, where there is one.
    """

    state: ReservoirState
    validation: Numbers
    stored: Stored
    validation_stored: Stored
    turns: tuple[Turn, Turn] = (None, None)
    recorded: Recorded | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """What a reservoir takes over; the samples lie in slots 0, 1, ... already.

    Attributes:
        state: For the bookkeeping.
        stored: Which training samples of each member are not to be stored again.
        validation_held: Samples in the validation store.
        validation_stored: As ``stored``, for validation members.
        recorded: As in the snapshot.
        turn: Whose it is, in a deterministic study.
        validation_turn: As ``turn``, for validation members.
    """

    state: ReservoirState
    stored: Stored
    validation_held: int
    validation_stored: Stored
    recorded: Recorded | None = None
    turn: Turn = None
    validation_turn: Turn = None


def store_path(checkpoint: Path, rank: int) -> Path:
    """Where the store of a rank lies."""
    return checkpoint / f"rank{rank}" / STORE


def write(
    path: Path,
    snapshot: Snapshot,
    *,
    training: SlotArrays,
    validation: SlotArrays | None,
    copied: Callable[[Numbers], object],
) -> dict[Path, Digest]:
    """Write a new store.

    Args:
        path: Its folder.
        snapshot: What to write.
        training: The slots, which keep the content of ``snapshot`` until they are ``copied``.
        validation: The append-only store.
        copied: Told of slots whose content is not needed any more.

    Returns:
        Digests of its large files.
    """
    root = zarr.open_group(path, mode="w", zarr_format=3)
    held, counters = snapshot.state.held, snapshot.state.counters
    root.attrs.update(
        inserted=counters.inserted,
        drawn=counters.drawn,
        late=counters.late,
        # As text: other readers of JSON would round its integers of 128 bits.
        rng=json.dumps(snapshot.state.rng),
        turns=json.dumps(snapshot.turns),
    )
    if snapshot.state.order is not None:
        _write_order(root.create_group("order"), snapshot.state.order)
    if snapshot.recorded is not None:
        _write_recorded(root.create_group("record"), snapshot.recorded)
    group = root.create_group("training")
    _small(group, "seen", held.seen)
    _small(group, "passed", held.passed)
    digests = _write_slots(path, group, training, held.slots, copied)
    _write_stored(group, snapshot.stored)
    group = root.create_group("validation")
    if validation is not None:
        digests |= _write_slots(path, group, validation, snapshot.validation, None)
    _write_stored(group, snapshot.validation_stored)
    return digests


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
    groups = [_group(root, "training") for root in roots]
    rows = [_own_rows(group, rank, ranks, validation=False) for group in groups]
    held = _merged(groups, rows)
    keep = fitting(held, len(training.members))
    _fill(training, groups, rows, keep)
    parts = [_counters(root) for root in roots]
    stored = _all_stored(groups)
    kept_checks = [_group(root, "validation") for root in roots]
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
    """Of each member, how many samples a checkpoint knows to be stored."""
    count: dict[int, int] = {}
    for rank in range(ranks):
        root = zarr.open_group(store_path(checkpoint, rank), mode="r")
        for name in ("training", "validation"):
            for member, known in read_stored(_group(root, name)):
                count[member] = count.get(member, 0) + int(known.sum())
    return count


# --- writing --------------------------------------------------------------------------------------


def _small(group: zarr.Group, name: str, values: Shaped[np.ndarray, " _"]) -> None:
    array = _create(group, name, values.shape, str(values.dtype), max(1, len(values)))
    if len(values):
        array[:] = values


def _create(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, rows: int
) -> "zarr.Array[Any]":
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(rows, *(max(1, length) for length in shape[1:])),
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": "."},  # files, not folders of folders
        config={"write_empty_chunks": True},  # every chunk has a file, and so a digest
    )


def _write_slots(
    path: Path,
    group: zarr.Group,
    arrays: SlotArrays,
    slots: Numbers,
    copied: Callable[[Numbers], object] | None,
) -> dict[Path, Digest]:
    fields, sources = np.asarray(arrays.fields), _short(arrays)
    row_bytes = max(1, prod(fields.shape[1:]) * fields.itemsize)
    rows = max(1, min(BLOCK_BYTES // row_bytes, max(1, slots.size)))
    targets = [
        _create(group, name, (slots.size, *source.shape[1:]), str(source.dtype), rows)
        for name, source in sources.items()
    ]
    large = _create(group, "fields", (slots.size, *fields.shape[1:]), str(fields.dtype), rows)
    buffer = direct_file.aligned(large.chunks, str(fields.dtype))
    digests: dict[Path, Digest] = {}
    for number, start in enumerate(range(0, slots.size, rows)):
        block = slots[start : start + rows]
        for target, source in zip(targets, sources.values(), strict=True):
            target[start : start + rows] = source[block]
        np.take(fields, block, axis=0, out=buffer[: block.size], mode="clip")
        if copied is not None:
            copied(block)
        buffer[block.size :] = 0  # a chunk is written whole
        # What zarr itself would write, without its copies.
        file = (
            path / large.path / large.metadata.encode_chunk_key((number, *[0] * (large.ndim - 1)))
        )
        digests[file] = digest_of(buffer.data)
        direct_file.write(file, buffer.data)
    return digests


def _short(arrays: SlotArrays) -> dict[str, Shaped[np.ndarray, " slot ..."]]:
    """What is known of each sample, by its name in the store."""
    return {
        "member": arrays.members,
        "sample": arrays.samples,
        "step": arrays.steps,
        "input": arrays.inputs,
    }


def _write_stored(group: zarr.Group, stored: Stored) -> None:
    """Bits of all members, one after another; each member's begin with a byte of their own."""
    members = sorted(stored)
    bits = [np.packbits(stored[member]) for member in members]
    _small(group, "stored_member", np.array(members, np.int64))
    _small(group, "stored_bytes", np.array([each.size for each in bits], np.int64))
    _small(group, "stored_bits", np.concatenate([np.empty(0, np.uint8), *bits]))


def _write_order(group: zarr.Group, order: Order) -> None:
    group.attrs["facts"] = json.dumps(order.facts)
    for name, values in order.arrays.items():
        _small(group, name, values)


def _write_recorded(group: zarr.Group, recorded: Recorded) -> None:
    group.attrs.update(position=recorded.position, dropped=recorded.dropped)
    _small(group, "row", recorded.rows)
    _small(group, "draws", recorded.draws)
    inputs = recorded.inputs
    array = _create(group, "inputs", inputs.shape, str(inputs.dtype), max(1, len(inputs)))
    if inputs.size:
        array[:] = inputs


# --- reading --------------------------------------------------------------------------------------


def _group(root: zarr.Group, name: str) -> zarr.Group:
    found = root[name]
    assert isinstance(found, zarr.Group)
    return found


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def _values(group: zarr.Group, name: str) -> Shaped[np.ndarray, " _"]:
    return np.asarray(_array(group, name)[:])


def _counters(root: zarr.Group) -> Counters:
    values = {name: int(str(root.attrs[name])) for name in ("inserted", "drawn", "late")}
    return Counters(**values)


def _order(root: zarr.Group) -> Order | None:
    if "order" not in root:
        return None
    group = _group(root, "order")
    return Order(
        facts=json.loads(str(group.attrs["facts"])),
        arrays={name: _values(group, name) for name in group.array_keys()},
    )


def recorded_rows(checkpoint: Path, rank: int) -> tuple[int | None, int]:
    """Rows that the record of a rank had, None where there was none, and samples it had dropped."""
    root = zarr.open_group(store_path(checkpoint, rank), mode="r")
    if "record" not in root:
        return None, 0
    attributes = _group(root, "record").attrs
    return int(str(attributes["position"])), int(str(attributes["dropped"]))


def _recorded(root: zarr.Group, keep: Numbers) -> Recorded | None:
    if "record" not in root:
        return None
    group = _group(root, "record")
    return Recorded(
        position=int(str(group.attrs["position"])),
        dropped=int(str(group.attrs["dropped"])),
        rows=_values(group, "row")[keep],
        draws=_values(group, "draws")[keep],
        inputs=np.asarray(_array(group, "inputs")[:])[keep],
    )


def _own_rows(group: zarr.Group, rank: int, ranks: int, *, validation: bool) -> Numbers:
    if "member" not in group:
        return np.empty(0, np.int64)
    members, samples = _values(group, "member"), _values(group, "sample")
    return np.flatnonzero(home(members, samples, validation=validation, ranks=ranks) == rank)


def _of_rows(
    groups: Sequence[zarr.Group], name: str, rows: Sequence[Numbers]
) -> Shaped[np.ndarray, " _"]:
    return np.concatenate(
        [_values(group, name)[own] for group, own in zip(groups, rows, strict=True)]
    )


def _merged(groups: Sequence[zarr.Group], rows: Sequence[Numbers]) -> HeldRows:
    """The rows of all old ranks, in turn: what was to be drawn next in each comes first."""
    seen, passed = (_of_rows(groups, name, rows) for name in ("seen", "passed"))
    return HeldRows(slots=np.arange(len(seen)), seen=seen, passed=passed)


def _fill(
    arrays: SlotArrays,
    groups: Sequence[zarr.Group],
    rows: Sequence[Numbers],
    keep: Numbers,
) -> None:
    """Copy the rows ``keep`` of all groups together into slots 0, 1, ..., a block at a time."""
    targets = _short(arrays) | {"fields": np.asarray(arrays.fields)}
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
    """Of each member, which samples were ever stored; ``group`` is training or validation."""
    bits, end = _values(group, "stored_bits"), 0
    sizes = _values(group, "stored_bytes").tolist()
    for member, size in zip(_values(group, "stored_member").tolist(), sizes, strict=True):
        yield member, np.unpackbits(bits[end : end + size]).astype(np.bool_)
        end += size


def _all_stored(groups: Sequence[zarr.Group]) -> dict[int, Bool[np.ndarray, " sample"]]:
    """What any of the old ranks has stored."""
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
