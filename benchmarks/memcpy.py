"""``memcpy``: GB/s at which one core copies samples into slots: what transfers are held against.

Whole samples, one NumPy copy each, from a few arrays that are warm in the cache into slots that are
many times larger than it.
"""

import time
from statistics import median
from typing import Final

import numpy as np

from benchmarks.figures import Figure

SLOT_BYTES: Final = 256 << 20  # several times the last-level cache
ROUNDS: Final = 3
_SECONDS: Final = 0.5


def rate(nbytes: int) -> float:
    """Bytes per second, of samples of ``nbytes`` each."""
    values = nbytes // 4
    slots = np.ones((SLOT_BYTES // nbytes, values), np.float32)
    fields = np.random.default_rng(1).random((4, values), np.float32)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        for slot in range(len(slots)):
            slots[slot] = fields[slot % 4]
        count += len(slots)
    return count * nbytes / (time.perf_counter() - started)


def run() -> list[Figure]:
    """For each size that other benchmarks transfer."""
    sizes = {"16k": 16 << 10, "256k": 256 << 10, "4m": 4 << 20}
    return [
        Figure.at_least(
            f"memcpy.{name}", median(rate(nbytes) for _ in range(ROUNDS)) / 1e9, 0.0, "GB/s"
        )
        for name, nbytes in sizes.items()
    ]
