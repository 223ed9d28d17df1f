"""Writes large files past the page cache: data that nobody reads again soon.

Through the page cache a gigabyte costs 0.3 s of a core, and several where the kernel has to find
the memory first; past it 0.07 s, and nothing else is driven out. ``record_cost`` on two busy cores:
99 % of the samples are recorded at 0.55 to 0.7 of the plain rate, through the cache 36 % at 0.4 to
0.57.

1. The file holds exactly the content, whatever its length.
2. Memory that is not ``aligned``, and a file system that refuses, get an ordinary write.
"""

import mmap
import os
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Shaped

LARGE: Final = 1 << 20  # bytes; what is smaller costs as little either way
_BLOCK: Final = mmap.PAGESIZE  # hardly a file system asks for more


def aligned(shape: tuple[int, ...], dtype: str) -> Shaped[np.ndarray, " ..."]:
    """An array of zeros in memory that the disk can read as it is."""
    kind, count = np.dtype(dtype), prod(shape)
    memory = mmap.mmap(-1, max(1, count * kind.itemsize), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, kind, count).reshape(shape)


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a new file, or an old one anew; not synchronised.

    Args:
        path: Its name.
        content: Bytes, contiguous.
    """
    raw = memoryview(content).cast("B")
    if len(raw) >= LARGE and np.frombuffer(raw, np.uint8).ctypes.data % _BLOCK == 0:
        try:
            _write(path, raw, os.O_DIRECT)
        except OSError:
            pass  # one that has nothing to do with O_DIRECT comes again
        else:
            return
    _write(path, raw, 0)


def _write(path: Path, raw: memoryview, how: int) -> None:
    direct = len(raw) - len(raw) % _BLOCK if how else len(raw)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | how, 0o666)
    try:
        _write_all(descriptor, raw[:direct])
        if rest := len(raw) - direct:
            block = aligned((_BLOCK,), "uint8")
            block[:rest] = np.frombuffer(raw[direct:], np.uint8)
            _write_all(descriptor, block.data)
            os.ftruncate(descriptor, len(raw))
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, raw: memoryview) -> None:
    while raw:
        raw = raw[os.write(descriptor, raw) :]
