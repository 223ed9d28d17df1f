"""``record_cost``: what recording every inserted sample costs the stream, on the disk of the bench.

The same stream with and without a record, in turn. The disk's own rate is
measured in the same run: files of the same size, written in the same way by a thread that does
nothing else, and synchronised at the end. The bar is 0.9 of the stream without a record, or the
disk's rate where that is lower. How much was recorded is told too, without a bar.
"""

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benchmarks.figures import Figure
from benchmarks.stream_rig import Load, measure, recording
from pipeline.record import direct_file
from pipeline.record.layout import BLOCK_BYTES
from pipeline.record.writer import Record

LOAD: Final = Load(grid=(64, 64), samples=60_000)
ROUNDS: Final = 3
_DISK_BYTES: Final = 512 << 20


def run() -> list[Figure]:
    """Median of several rounds."""
    plain, ingest, recorded, disk = [], [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # /tmp may be in memory
            disk.append(disk_rate(Path(folder)) / LOAD.layout.nbytes)
            plain.append(measure(LOAD, "direct"))
            with recording(Path(folder) / "record.zarr", LOAD) as record:
                ingest.append(measure(LOAD, "direct", record))
                recorded.append(_share(record))
    bar = min(0.9 * median(plain), median(disk))
    return [
        Figure.at_least("record_cost.ingest", median(ingest), bar, "samples/s"),
        Figure.at_least("record_cost.recorded", median(recorded), 0.0, "of the samples stored"),
        Figure.at_least("record_cost.disk", median(disk), 0.0, "samples/s the disk can take"),
        Figure.at_least("record_cost.plain", median(plain), 0.0, "samples/s without a record"),
    ]


def disk_rate(folder: Path) -> float:
    """Bytes per second of files of one block each, on the disk at the end."""
    block = direct_file.aligned((BLOCK_BYTES,), "uint8")
    block[:] = np.random.default_rng(1).integers(0, 256, BLOCK_BYTES, np.uint8)
    paths = [folder / f"block{number}" for number in range(_DISK_BYTES // BLOCK_BYTES)]
    started = time.perf_counter()
    for path in paths:
        direct_file.write(path, block.data)
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return _DISK_BYTES / (time.perf_counter() - started)


def _share(record: Record) -> float:
    """Of the samples that were stored, those that are on the disk and not dropped."""
    record.flush()
    stats = record.stats()
    return stats.recorded / (stats.recorded + stats.record_dropped)
