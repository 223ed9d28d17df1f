"""``ingest_mpi``: 256 x 256 snapshots in two parts from two mpi_ranks, against whole ones.

As many sender processes both times, so that the same bytes come over as many connections: whole
samples of two members, put together in messages as a serial member does; or halves of one member's
samples, a few of them in a message, as the mpi_ranks of a group send them.
"""

from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.stream_rig import Load, measure
from pipeline.flow import MOST_TOGETHER

WHOLE: Final = Load(grid=(256, 256), samples=12_000)
HALVES: Final = Load(
    grid=(256, 256), samples=12_000, mpi_ranks=2, batch_bytes=MOST_TOGETHER * 128 << 10
)
BAR: Final = 0.8
ROUNDS: Final = 5


def run() -> list[Figure]:
    """GB/s as they are, and their ratio; medians of several rounds, in turn."""
    gigabytes = WHOLE.layout.nbytes / 1e9
    rounds = [
        (gigabytes * measure(WHOLE, "direct"), gigabytes * measure(HALVES, "direct"))
        for _ in range(ROUNDS)
    ]
    whole, halves = (median(column) for column in zip(*rounds, strict=True))
    return [
        Figure.at_least("ingest_mpi_whole", whole, 0.0, "GB/s"),
        Figure.at_least("ingest_mpi_halves", halves, 0.0, "GB/s"),
        Figure.at_least("ingest_mpi", halves / whole, BAR, "of whole samples"),
    ]
