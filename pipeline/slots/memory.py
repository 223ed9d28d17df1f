"""The shared-memory arrays behind a reservoir: one row per slot, mapped by owner and readers.

One file in ``/dev/shm`` per reservoir and purpose. All its bytes are there before the first sample:
a file that does not fit is an error at the start, no SIGBUS later (``shared_files.py``).

1. What the owner or a sender writes into a slot is what a reader sees there; a reader cannot write.
2. ``close`` may be called twice, and while arrays of the slots are still in use.
3. Regions do not overlap, and each starts at a multiple of 64 bytes.

::

    members int64 | samples int64 | steps int64 | inputs float64 | fields
"""

import ctypes
import mmap
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, Protocol, Self, final, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from pipeline.slots.layout import SampleLayout
from pipeline.slots.shared_files import PREFIX, SHARED_MEMORY, create, release

SlotNumbers = Int64[np.ndarray, " _"]  # any number of them, of different lengths in one call
Rows = slice | SlotNumbers

_ALIGNMENT: Final = 64  # a cache line, and the widest vector load
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, Linux 5.14
_CHUNK: Final = 64 << 20  # bytes populated per call


def slots_path(study: str, rank: int, purpose: str, *, directory: Path = SHARED_MEMORY) -> Path:
    """Where the slots of one reservoir lie, e.g. ``/dev/shm/headrace-3f2a-r0-train``."""
    return directory / f"{PREFIX}{study}-r{rank}-{purpose}"


def slots_bytes(capacity: int, layout: SampleLayout) -> int:
    """Bytes of the file behind ``capacity`` slots."""
    return _regions(capacity, layout)[-1].end


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotsDescription:
    """All that a reader needs to attach.

    Attributes:
        path: The file, on the owner's node.
        capacity: Slots.
        layout: Shape of one sample.
    """

    path: str
    capacity: int
    layout: SampleLayout

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return slots_bytes(self.capacity, self.layout)


@final
class Slots:
    """Fields, inputs, member, number and step of every sample, one row per slot."""

    members: Int64[np.ndarray, " slot"]
    samples: Int64[np.ndarray, " slot"]
    steps: Int64[np.ndarray, " slot"]
    inputs: Float64[np.ndarray, " slot inputs"]
    fields: Float[np.ndarray, " slot window channel *grid"]

    def __init__(
        self, *, description: SlotsDescription, fd: int, owner: bool, writable: bool
    ) -> None:
        """Map an open file, which this object closes; use ``create`` or ``attach``."""
        self.description = description
        self._fd: int | None = fd
        self._owner, self._writable = owner, writable
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._memory: mmap.mmap | None = mmap.mmap(fd, description.nbytes, access=access)
        if writable and not owner:
            self._memory.madvise(mmap.MADV_DONTFORK)
        regions = _regions(description.capacity, description.layout)
        self.members, self.samples, self.steps, self.inputs, self.fields = (
            region.array(self._memory) for region in regions
        )

    @classmethod
    def create(cls, path: Path, *, capacity: int, layout: SampleLayout) -> Self:
        """Allocate the file and own it until ``close`` or the end of this process.

        Raises:
            ConfigError: It does not fit, or another living study owns a file of that name.
        """
        if capacity < 1:
            raise ValueError(f"capacity={capacity} is below 1 slot")
        description = SlotsDescription(path=str(path), capacity=capacity, layout=layout)
        fd = create(path, description.nbytes)
        try:
            return cls(description=description, fd=fd, owner=True, writable=True)
        except BaseException:
            release(fd, path, unlink=True)
            raise

    @classmethod
    def attach(cls, description: SlotsDescription, *, writable: bool = False) -> Self:
        """Map the slots of another process of this node.

        Args:
            description: Of the owner.
            writable: For a sender, which writes what it was granted; children that it forks do
                not inherit the mapping.

        Raises:
            FileNotFoundError: The owner has removed them, or runs on another node.
            ValueError: The file has another size or owner: it belongs to another study.
        """
        how = os.O_RDWR if writable else os.O_RDONLY
        fd = os.open(description.path, how | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _check_size(fd, description)
            return cls(description=description, fd=fd, owner=False, writable=writable)
        except BaseException:
            os.close(fd)
            raise

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self.description.capacity

    def populate(self) -> bool:
        """Let a writer's page tables cover all slots, so that no first write pays for a fault.

        Takes 0.1 to 2 s per GB (longest on a virtual machine), changes no byte, and may run on a
        thread beside writers: it holds no lock of Python's. Without it the same time is spent while
        samples arrive.

        Returns:
            Whether it was done; a kernel before 5.14 cannot, and nothing is lost by that but time.
        """
        memory = self._memory
        if memory is None or not self._writable:
            return False
        whole = np.frombuffer(memory, np.uint8)
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for offset in range(0, whole.size, _CHUNK):
            size = min(_CHUNK, whole.size - offset)
            if self._fd is None or madvise(whole.ctypes.data + offset, size, _POPULATE_WRITE) != 0:
                return False
        return True

    def close(self, *, unlink: bool = True) -> None:
        """Let go of the file; the owner also removes it, unless told not to.

        Arrays that are still referenced elsewhere stay valid: the memory is unmapped with the last
        of them, never under somebody's feet (closing the mapping would raise BufferError).
        """
        if self._fd is None:
            return
        if self._owner:
            release(self._fd, Path(self.description.path), unlink=unlink)
        else:
            os.close(self._fd)
        self._fd = self._memory = None
        arrays = (self.members, self.samples, self.steps, self.inputs, self.fields)
        self.members, self.samples, self.steps, self.inputs, self.fields = (
            np.empty((0, *array.shape[1:]), array.dtype) for array in arrays
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Region:
    """One array inside the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def end(self) -> int:
        return self.offset + prod(self.shape) * np.dtype(self.dtype).itemsize

    def array(self, memory: mmap.mmap) -> Shaped[np.ndarray, " ..."]:
        flat = np.frombuffer(memory, self.dtype, count=prod(self.shape), offset=self.offset)
        return flat.reshape(self.shape)


def _regions(capacity: int, layout: SampleLayout) -> list[_Region]:
    rows: list[tuple[tuple[int, ...], str]] = [
        ((), "int64"),
        ((), "int64"),
        ((), "int64"),
        ((layout.num_inputs,), "float64"),
        ((layout.window, *layout.sample_shape), layout.dtype),
    ]
    regions: list[_Region] = []
    for shape, dtype in rows:
        after = regions[-1].end if regions else 0
        offset = -(-after // _ALIGNMENT) * _ALIGNMENT
        regions.append(_Region(offset=offset, shape=(capacity, *shape), dtype=dtype))
    return regions


def _check_size(fd: int, description: SlotsDescription) -> None:
    about = os.fstat(fd)
    actual = about.st_size
    if about.st_uid != os.geteuid():
        raise ValueError(f"{description.path} belongs to user {about.st_uid}: not of this study")
    if actual != description.nbytes:
        raise ValueError(
            f"{description.path} has {actual} bytes, but {description.capacity} slots of "
            f"{description.layout} take {description.nbytes}: it belongs to another study"
        )


@runtime_checkable
class SlotArrays(Protocol):
    """The memory behind a reservoir, as ``Slots`` lays it out."""

    members: Int64[np.ndarray, " slot"]
    samples: Int64[np.ndarray, " slot"]
    steps: Int64[np.ndarray, " slot"]
    inputs: Float64[np.ndarray, " slot inputs"]
    fields: Float[np.ndarray, " slot window channel *grid"]


def span(numbers: SlotNumbers) -> slice | SlotNumbers:
    """A slice when the numbers are consecutive: copying it is one plain memory copy."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first == numbers.size - 1 and bool((numbers[1:] - numbers[:-1] == 1).all()):
        return slice(first, last + 1)
    return numbers
