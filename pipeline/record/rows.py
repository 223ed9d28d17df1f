"""A Zarr v3 group whose arrays grow together, row by row; a crash leaves what was committed.

Files are written as the Zarr v3 specification lays them out (zarr-specs.readthedocs.io, core 3.0;
codecs ``bytes`` and ``zstd``): a chunk that is not compressed is its values, little-endian.

1. A row can be read only once ``commit`` has put it into the group's metadata, for all arrays at
   once: one file, replaced in one step, after every chunk is on the disk.
2. A chunk file is replaced as a whole, by one that is on the disk already and holds every committed
   row of the old one.
3. ``cut`` makes rows unreadable before it touches their chunks.
4. One writer per group.

The metadata of all arrays stand in the group's own ``zarr.json`` (consolidated), which zarr-python
and xarray read; other programs read that of each array, which is written just before.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from jaxtyping import Shaped

from pipeline.record import direct_file
from trainers.durable import json_text, synchronise, write_durably

Compression = Literal["none", "zstd"]

METADATA: Final = "zarr.json"
_PART: Final = ".part"  # a file that is being written; nobody reads it
_ZSTD_LEVEL: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One array of a group.

    Attributes:
        name: Name of the array, and of its folder.
        dtype: Type of the values, as NumPy names it.
        row: Shape of one row.
        dims: Name of each axis, that of the rows first.
        chunk_rows: Rows per chunk.
        attributes: Unit, and what it is.
    """

    name: str
    dtype: str
    dims: tuple[str, ...]
    chunk_rows: int
    row: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self, rows: int, compression: Compression) -> dict[str, Any]:
        """The array's ``zarr.json`` when it holds ``rows`` rows, as zarr-python writes it."""
        import zarr  # here: a study is checked without it
        from zarr.codecs import ZstdCodec

        files: dict[str, Any] = {}
        zarr.create_array(
            files,
            shape=(rows, *self.row),
            chunks=(self.chunk_rows, *self.row),
            dtype=self.dtype,
            compressors=ZstdCodec(level=_ZSTD_LEVEL) if compression == "zstd" else None,
            fill_value=0,
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=self.dims,
            attributes=dict(self.attributes),
        )
        found: dict[str, Any] = json.loads(files[METADATA].to_bytes())
        return found

    def chunk(self, index: int) -> str:
        """Where a chunk lies in the group; all axes but the first have one chunk.

        One folder for all of them: making four for each costs as much as writing it.
        """
        return f"{self.name}/c.{index}{'.0' * len(self.row)}"


@final
class RowGroup:
    """Writes one group; ``create`` a new one or ``reopen`` what is there."""

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[Column],
        attributes: Mapping[str, Any],
        compression: Compression,
        rows: int,
    ) -> None:
        self.path, self.columns, self.rows = path, tuple(columns), rows
        self.attributes = dict(attributes)
        self.bytes_written = 0
        self._compression = compression
        self._written: set[Path] = set()  # since the last commit; they still lie beside their place
        self._arrays = {column.name: column.metadata(rows, compression) for column in columns}
        self._fixed: dict[str, dict[str, Any]] = {}

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        columns: Sequence[Column],
        fixed: Sequence[tuple[Column, Shaped[np.ndarray, " _ ..."]]],
        attributes: Mapping[str, Any],
        compression: Compression,
    ) -> "RowGroup":
        """A group without rows.

        Args:
            path: A folder that does not exist.
            columns: Arrays that grow.
            fixed: Arrays that are whole from the start, such as coordinates, with their values.
            attributes: Attributes of the group.
            compression: Codec of all chunks.
        """
        for column in (*columns, *(column for column, _ in fixed)):
            (path / column.name).mkdir(parents=True)
        group = cls(path, columns=columns, attributes=attributes, compression=compression, rows=0)
        for column, values in fixed:
            metadata = group._fixed[column.name] = column.metadata(len(values), "none")
            group._write(path / column.chunk(0), values.astype(column.dtype).tobytes())
            group._write(path / column.name / METADATA, json_text(metadata).encode())
        group.commit(0)
        return group

    @classmethod
    def reopen(
        cls, path: Path, *, columns: Sequence[Column], compression: Compression
    ) -> "RowGroup":
        """The group that a writer has left behind, killed or not.

        Raises:
            ValueError: It was written with other columns.
        """
        found = json.loads((path / METADATA).read_text(encoding="utf-8"))
        arrays = found["consolidated_metadata"]["metadata"]
        rows = int(arrays[columns[0].name]["shape"][0])
        group = cls(
            path, columns=columns, attributes=found["attributes"], compression=compression,
            rows=rows,
        )  # fmt: skip
        for name, wanted in group._arrays.items():
            if arrays.get(name) != wanted:
                raise ValueError(
                    f"{path}/{name}: was written as {arrays.get(name)}, but this study writes "
                    f"{wanted}. Record into a new folder"
                )
        group._fixed = {name: each for name, each in arrays.items() if name not in group._arrays}
        for part in path.rglob(f"*{_PART}"):
            part.unlink()
        return group

    def write_chunk(
        self, column: Column, index: int, values: Shaped[np.ndarray, " rows ..."]
    ) -> None:
        """Replace a chunk; ``values`` has all its rows, those that are not yet known too."""
        assert values.shape == (column.chunk_rows, *column.row), (column, values.shape)
        raw = np.ascontiguousarray(values, column.dtype).reshape(-1).view(np.uint8).data
        if self._compression == "zstd":
            from numcodecs import zstd

            raw = zstd.compress(raw, _ZSTD_LEVEL)
        self._write(self.path / column.chunk(index), raw)

    def read(self, column: Column, first: int) -> Shaped[np.ndarray, " rows ..."]:
        """The committed rows of an array from ``first`` on."""
        return ArrayFiles(self.path / column.name).read(first, self.rows)

    def commit(self, rows: int) -> None:
        """Everything up to ``rows`` can be read from now on, and survives a loss of power."""
        for path in self._written:
            synchronise(_part_of(path))
        for path in self._written:
            os.replace(_part_of(path), path)
        for folder in {path.parent for path in self._written}:
            synchronise(folder)
        self._written.clear()
        for name, metadata in self._arrays.items():
            metadata["shape"][0] = rows
            write_durably(self.path / name / METADATA, json_text(metadata))
        write_group(self.path, self.attributes, self._arrays | self._fixed)
        self.rows = rows

    def discard(self) -> None:
        """Take back what was written since the last commit: the disk may have lost some of it."""
        for path in self._written:
            _part_of(path).unlink(missing_ok=True)
        self._written.clear()

    def cut(self, rows: int) -> None:
        """Take back the rows from ``rows`` on."""
        if not 0 <= rows <= self.rows:
            raise ValueError(f"rows={rows}: {self.path} holds {self.rows}, cut to one of these")
        self.commit(rows)
        for column in self.columns:
            kept = -(-rows // column.chunk_rows)
            for chunk in (self.path / column.name).glob("c.*"):
                if int(chunk.name.split(".")[1]) >= kept:
                    chunk.unlink()

    def _write(self, path: Path, content: bytes | memoryview) -> None:
        """What will lie at ``path`` after the next commit."""
        part = _part_of(path)
        try:
            direct_file.write(part, content)
        except OSError:
            self._written.discard(path)
            part.unlink(missing_ok=True)
            raise
        self._written.add(path)
        self.bytes_written += len(content)


@final
class ArrayFiles:
    """Reads one array, and makes nothing up: zarr itself has zeros for a chunk that is missing."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self.folder = folder
        self.array = zarr.open_array(folder, mode="r")

    def read(self, first: int, end: int) -> Shaped[np.ndarray, " rows ..."]:
        """Some rows.

        Raises:
            OSError: A chunk of them is not there.
            ValueError: A chunk has another length.
            RuntimeError: A compressed chunk is damaged.
        """
        metadata = self.array.metadata
        for index in range(first // self.array.chunks[0], -(-end // self.array.chunks[0])):
            key = metadata.encode_chunk_key((index, *[0] * (self.array.ndim - 1)))
            (self.folder / key).stat()
        return np.asarray(self.array[first:end])


def write_group(
    path: Path, attributes: Mapping[str, Any], members: Mapping[str, dict[str, Any]]
) -> None:
    """Replace a group's ``zarr.json``, which holds that of each of its members, too."""
    inside = {"kind": "inline", "must_understand": False, "metadata": members}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    write_durably(path / METADATA, json_text(group | {"consolidated_metadata": inside}))


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of a group."""
    found: dict[str, Any] = json.loads((path / METADATA).read_text(encoding="utf-8"))["attributes"]
    return found


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + _PART)
