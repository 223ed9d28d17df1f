"""What a sample looks like and where it goes: shapes, boxes, endpoints, keys, for both ends.

1. The pieces of a box are disjoint, cover it, and are no larger than asked while they can be cut.
2. Keys never show in a ``repr``.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Self

import numpy as np

MAX_AXES: Final = 3
# Code on the wire -> dtype.
DTYPES: Final[dict[int, np.dtype[Any]]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<f2"),
}
CODES: Final = {"float32": 1, "float64": 2, "float16": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLayout:
    """Shape of one sample; the same on both ends of the stream.

    Attributes:
        window: Consecutive snapshots in a sample.
        sample_shape: ``(channel, *grid)`` of one snapshot.
        num_parameters: Number of physical inputs of a member.
        dtype: Type of the fields, on the wire and in the slots.
    """

    window: int
    sample_shape: tuple[int, ...]
    num_parameters: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 0xFFFF:
            raise ValueError(f"window must be in [1, 65535] snapshots, got {self.window}")
        if not 2 <= len(self.sample_shape) <= 1 + MAX_AXES or min(self.sample_shape) < 1:
            raise ValueError(
                f"sample_shape must be (channel, *grid) with 1 to {MAX_AXES} grid axes, all >= 1, "
                f"got {self.sample_shape}"
            )
        if not 0 <= self.num_parameters <= 0xFFFF:
            raise ValueError(f"num_parameters must be in [0, 65535], got {self.num_parameters}")
        if self.dtype not in CODES:
            raise ValueError(f"dtype must be one of {sorted(CODES)}, got {self.dtype!r}")

    @property
    def channels(self) -> int:
        """Fields per grid point."""
        return self.sample_shape[0]

    @property
    def grid(self) -> tuple[int, ...]:
        """Grid points per axis."""
        return self.sample_shape[1:]

    @property
    def bytes_per_point(self) -> int:
        """Bytes of all channels and snapshots at one grid point."""
        return self.window * self.channels * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Field bytes of one sample."""
        return self.bytes_per_point * prod(self.grid)

    @property
    def num_inputs(self) -> int:
        """Parameters, then the time of each snapshot in the window."""
        return self.num_parameters + self.window


@dataclass(frozen=True, slots=True)
class Box:
    """A block of grid points: what one mpi_rank owns, or one slab of a large sample."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.size):
            raise ValueError(f"box start and size differ in length: {self.start}, {self.size}")

    @classmethod
    def whole(cls, grid: tuple[int, ...]) -> Self:
        """The box that covers ``grid``."""
        return cls((0,) * len(grid), grid)

    @property
    def points(self) -> int:
        """Grid points in it."""
        return prod(self.size)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the box in an array over the grid."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))

    def fits(self, grid: tuple[int, ...]) -> bool:
        """Whether it is not empty and lies inside ``grid``."""
        return len(grid) == len(self.size) and all(
            a >= 0 and n >= 1 and a + n <= extent
            for a, n, extent in zip(self.start, self.size, grid, strict=True)
        )

    def overlaps(self, other: "Box") -> bool:
        """Whether both hold a common grid point."""
        return all(
            a < b + m and b < a + n
            for a, n, b, m in zip(self.start, self.size, other.start, other.size, strict=True)
        )

    def pieces(self, limit_points: int) -> list["Box"]:
        """Cut in halves along the slowest axis until no piece has more than ``limit_points``."""
        if self.points <= max(1, limit_points):
            return [self]
        axis = next(i for i, n in enumerate(self.size) if n > 1)
        half = self.size[axis] // 2
        low = self._cut(axis, self.start[axis], half)
        high = self._cut(axis, self.start[axis] + half, self.size[axis] - half)
        return low.pieces(limit_points) + high.pieces(limit_points)

    def _cut(self, axis: int, start: int, size: int) -> "Box":
        return Box(
            (*self.start[:axis], start, *self.start[axis + 1 :]),
            (*self.size[:axis], size, *self.size[axis + 1 :]),
        )
