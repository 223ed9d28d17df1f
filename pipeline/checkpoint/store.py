"""A reservoir's part of a checkpoint: its samples and its bookkeeping as one Zarr v3 store.

1. What is written is what the slots held when the snapshot was taken; a block's slots are let go as
   soon as they are copied.
2. Memory is bounded by one block, whatever the reservoir holds.
3. What was written by any number of ranks can be read by any other number: each sample, and what is
   known of it, goes to the rank that its sender would send it to.
4. Nothing is pickled, and every chunk is one block: a damaged file is found by its digest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from pipeline.record import direct_file
from pipeline.reservoir.state import Numbers, Recorded, ReservoirState
from pipeline.slots.memory import SlotArrays
from trainers.checkpoints.files import Digest, digest_of

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
    if (order := snapshot.state.order) is not None:
        group = root.create_group("order", attributes={"facts": json.dumps(order.facts)})
        for name, values in order.arrays.items():
            _small(group, name, values)
    if (known := snapshot.recorded) is not None:
        group = root.create_group("record")
        group.attrs.update(position=known.position, dropped=known.dropped)
        _small(group, "row", known.rows)
        _small(group, "draws", known.draws)
    group = root.create_group("training")
    _small(group, "draws", held.draws)
    _small(group, "number", held.numbers)
    digests = _write_slots(path, group, training, held.slots, copied)
    _write_stored(group, snapshot.stored)
    group = root.create_group("validation")
    if validation is not None:
        digests |= _write_slots(path, group, validation, snapshot.validation, None)
    _write_stored(group, snapshot.validation_stored)
    return digests


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
    fields, sources = np.asarray(arrays.fields), columns_of(arrays)
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
        key = large.metadata.encode_chunk_key((number, *[0] * (large.ndim - 1)))
        file = path / large.path / key
        digests[file] = digest_of(buffer.data)
        direct_file.write(file, buffer.data)
    return digests


def columns_of(arrays: SlotArrays) -> dict[str, Shaped[np.ndarray, " slot ..."]]:
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
