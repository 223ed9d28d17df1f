"""``ingest_256k``: GB/s of 256 x 256 float32 snapshots from two processes into slots."""

from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.stream_rig import Load, measure

IPC: Final = Load(grid=(256, 256), samples=16_000)
CURVE: Final = Load(grid=(256, 256), samples=5_000)
IPC_BAR: Final = 3.0
CURVE_BAR: Final = 1.0
ROUNDS: Final = 3


def run() -> list[Figure]:
    """Median of several rounds, the transports in turn."""
    gigabytes = IPC.layout.nbytes / 1e9
    rates = [
        (gigabytes * measure(IPC, "ipc"), gigabytes * measure(CURVE, "curve"))
        for _ in range(ROUNDS)
    ]
    ipc, curve = (median(column) for column in zip(*rates, strict=True))
    return [
        Figure.at_least("ingest_256k_ipc", ipc, IPC_BAR, "GB/s"),
        Figure.at_least("ingest_256k_curve", curve, CURVE_BAR, "GB/s"),
    ]
