"""A data set on disk: members as files, written once and read back by offline training.

One ``.npy`` for each member, or one Zarr v3 group with a chunk for each member.

Invariants (``tests/unit/trainers/offline/test_stored.py``):

1. What is read back equals what was written, bit for bit, in whatever order members were written.
2. A member is written by one process at a time; several processes may write different members.
3. Of an ``.npy`` one sample can be read alone; a chunk of Zarr is read whole.
4. ``InMemory`` reads members once; there is nothing of them to forget.
5. ``forget`` takes files out of the kernel's page cache: what is read next comes from storage.
6. Nothing is pickled.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, final

import numpy as np
import zarr
from jaxtyping import Float, Float64, Int64

from trainers.durable import replacing

Store = Literal["npy", "zarr"]

_AXES: Final = ("z", "y", "x")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberSamples:
    """All samples of one member.

    Attributes:
        fields: Values of all samples, in the fields' units.
        inputs: Parameters, then the time of each snapshot in the window.
        steps: Solver step of each sample's first snapshot.
    """

    fields: Float[np.ndarray, " sample window channel *grid"]
    inputs: Float64[np.ndarray, " sample inputs"]
    steps: Int64[np.ndarray, " sample"]


class MemberFiles(ABC):
    """Where members are read from."""

    @abstractmethod
    def index(self, member: int) -> MemberSamples:
        """A member's inputs and steps; its fields are not read and have no values."""

    @abstractmethod
    def read(self, member: int) -> Float[np.ndarray, " sample window channel *grid"]:
        """All fields of a member."""

    def read_sample(self, member: int, sample: int) -> Float[np.ndarray, " window channel *grid"]:
        """The fields of one sample; those of its whole member are read for it."""
        return np.asarray(self.read(member)[sample])

    @abstractmethod
    def paths(self, members: Sequence[int]) -> list[Path]:
        """Where the fields of these members lie."""


@final
class NpyFiles(MemberFiles):
    """``member-00012.npy``: the fields; ``member-00012.npz``: ``inputs`` and ``steps``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[int, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def write(self, member: int, samples: MemberSamples) -> None:
        """Keep a member; its fields come last."""
        with replacing(self._path(member).with_suffix(".npz")) as part:
            np.savez(part, inputs=samples.inputs, steps=samples.steps)
        with replacing(self._path(member)) as part:
            np.save(part, samples.fields)

    def index(self, member: int) -> MemberSamples:
        """A member's inputs and steps; its fields are not read and have no values."""
        _, shape, dtype = self._place(member)
        with np.load(self._path(member).with_suffix(".npz"), allow_pickle=False) as arrays:
            inputs, steps = arrays["inputs"], arrays["steps"]
        none = np.broadcast_to(np.zeros((), dtype), shape)
        return MemberSamples(fields=none, inputs=inputs, steps=steps)

    def read(self, member: int) -> Float[np.ndarray, " sample window channel *grid"]:
        """All fields of a member."""
        return self._read(member, 0, self._place(member)[1])

    def read_sample(self, member: int, sample: int) -> Float[np.ndarray, " window channel *grid"]:
        """The fields of one sample, and no others."""
        return self._read(member, sample, self._place(member)[1][1:])

    def paths(self, members: Sequence[int]) -> list[Path]:
        """One file for each."""
        return [self._path(member) for member in members]

    def _path(self, member: int) -> Path:
        return self._folder / f"member-{member:05d}.npy"

    def _read(
        self, member: int, first: int, shape: tuple[int, ...]
    ) -> Float[np.ndarray, " *shape"]:
        """An array of this shape, ``first`` times its length behind the first value."""
        (begin, _, dtype), count = self._place(member), prod(shape)
        offset = begin + first * count * dtype.itemsize
        values = np.fromfile(self._path(member), dtype, count, offset=offset)
        if values.size < count:
            raise EOFError(f"{self._path(member)}: ends before its fields do")
        return values.reshape(shape)

    def _place(self, member: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
        """Where the fields begin in the file, their shape and dtype; looked up once.

        No mapping stays open: the page cache cannot ``forget`` what is mapped.
        """
        if member not in self._places:
            fields = np.load(self._path(member), mmap_mode="r")
            self._places[member] = fields.offset, fields.shape, fields.dtype
        return self._places[member]


@final
class ZarrFiles(MemberFiles):
    """``data.zarr``, which xarray opens: a chunk of ``fields`` is one member.

    The chunks are not compressed: storage is what a comparison is about, not a codec.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "data.zarr"
        self._group: zarr.Group | None = None
        self._rows: dict[int, int] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        members: Sequence[int],
        samples: int,
        sample_shape: tuple[int, ...],
        dtype: str,
        inputs: int,
    ) -> None:
        """Make the arrays, which have no values yet.

        Args:
            folder: Where ``data.zarr`` is made.
            members: Numbers of the members that will be written.
            samples: Most samples of a member.
            sample_shape: ``(window, channel, *grid)``.
            dtype: Type of the fields.
            inputs: Parameters and times of a sample.
        """
        group = zarr.create_group(folder / "data.zarr", zarr_format=3)
        grid = _AXES[-(len(sample_shape) - 2) :]
        rows = len(members)
        wanted: dict[str, tuple[tuple[int, ...], str, tuple[str, ...]]] = {
            "fields": ((rows, samples, *sample_shape), dtype,
                       ("member", "sample", "window", "channel", *grid)),
            "inputs": ((rows, samples, inputs), "float64", ("member", "sample", "input")),
            "steps": ((rows, samples), "int64", ("member", "sample")),
            "count": ((rows,), "int64", ("member",)),
            "member": ((rows,), "int64", ("member",)),
        }  # fmt: skip
        for name, (shape, kind, names) in wanted.items():
            chunk = shape if name == "member" else (1, *shape[1:])
            group.create_array(
                name, shape=shape, dtype=kind, chunks=chunk, compressors=None, fill_value=0,
                dimension_names=names,
            )  # fmt: skip
        _array(group, "member")[:] = np.array(members, np.int64)

    def write(self, member: int, samples: MemberSamples) -> None:
        """Keep a member; its ``count`` comes last."""
        row, held = self._row(member), len(samples.steps)
        for name in ("fields", "inputs", "steps"):
            _array(self._open(), name)[row, :held] = getattr(samples, name)
        _array(self._open(), "count")[row] = held

    def index(self, member: int) -> MemberSamples:
        """A member's inputs and steps; its fields are not read and have no values."""
        group, row = self._open(), self._row(member)
        held = int(np.asarray(_array(group, "count")[row]))
        fields = _array(group, "fields")
        return MemberSamples(
            fields=np.broadcast_to(np.zeros((), fields.dtype), (held, *fields.shape[2:])),
            inputs=np.asarray(_array(group, "inputs")[row, :held]),
            steps=np.asarray(_array(group, "steps")[row, :held]),
        )

    def read(self, member: int) -> Float[np.ndarray, " sample window channel *grid"]:
        """All fields of a member."""
        group, row = self._open(), self._row(member)
        held = int(np.asarray(_array(group, "count")[row]))
        return np.asarray(_array(group, "fields")[row, :held])

    def paths(self, members: Sequence[int]) -> list[Path]:
        """The chunks of each."""
        rows = [str(self._row(member)) for member in members]
        chunks = self._folder / "fields" / "c"
        return [path for row in rows for path in (chunks / row).rglob("*") if path.is_file()]

    def _open(self) -> zarr.Group:
        if self._group is None:
            self._group = zarr.open_group(self._folder, mode="r+")
            numbers = np.asarray(_array(self._group, "member")[:])
            self._rows = {int(member): row for row, member in enumerate(numbers)}
        return self._group

    def _row(self, member: int) -> int:
        self._open()
        return self._rows[member]


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


@final
class InMemory(MemberFiles):
    """Members of other files, whose fields are read whole, once."""

    def __init__(self, files: MemberFiles, members: Sequence[int]) -> None:
        self._files = files
        self._fields = {member: files.read(member) for member in members}

    def index(self, member: int) -> MemberSamples:
        """A member's inputs and steps."""
        return self._files.index(member)

    def read(self, member: int) -> Float[np.ndarray, " sample window channel *grid"]:
        """All fields of a member."""
        return self._fields[member]

    def paths(self, members: Sequence[int]) -> list[Path]:
        """None: no pass reads a file."""
        return []


def files_of(store: Store, folder: Path) -> NpyFiles | ZarrFiles:
    """The files of one kind in a folder."""
    return NpyFiles(folder) if store == "npy" else ZarrFiles(folder)


def forget(paths: Iterable[Path]) -> None:
    """Take files out of the page cache; what was not written back yet is written back first.

    What the storage below caches (a controller, a network file system's server, the host of a
    virtual machine) is out of reach.
    """
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


class Sizes(NamedTuple):
    """Bytes in files, and bytes of storage that they take."""

    written: int
    disk: int


def sizes(folder: Path) -> Sizes:
    """Sizes of all files below a folder together."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return Sizes(sum(each.st_size for each in found), 512 * sum(each.st_blocks for each in found))
