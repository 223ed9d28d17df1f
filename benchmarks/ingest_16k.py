"""``ingest_16k``: samples/s of 64 x 64 float32 snapshots from two processes into slots.

The whole protocol: credits, acknowledgements, deduplication, reservoir, slots.
"""

from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.stream_rig import Load, measure

IPC: Final = Load(grid=(64, 64), samples=200_000)
CURVE: Final = Load(grid=(64, 64), samples=80_000)
IPC_BAR: Final = 150_000.0
CURVE_BAR: Final = 50_000.0
ROUNDS: Final = 3


def run() -> list[Figure]:
    """Median of several rounds, the transports in turn."""
    rates = [(measure(IPC, "ipc"), measure(CURVE, "curve")) for _ in range(ROUNDS)]
    ipc, curve = (median(column) for column in zip(*rates, strict=True))
    return [
        Figure.at_least("ingest_16k_ipc", ipc, IPC_BAR, "samples/s"),
        Figure.at_least("ingest_16k_curve", curve, CURVE_BAR, "samples/s"),
    ]
