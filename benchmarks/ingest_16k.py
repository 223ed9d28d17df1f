"""``ingest_16k``: samples/s of 64 x 64 float32 snapshots from two processes into slots.

The whole protocol, on every way: grants or credits, deduplication, reservoir, slots.
"""

from benchmarks.figures import Figure
from benchmarks.ingest_rig import figures


def run() -> list[Figure]:
    """Rates of all transports, and their ratios."""
    return figures(
        "ingest_16k",
        (64, 64),
        {"direct": 200_000, "curve": 40_000},
        {"memcpy": 0.3, "curve": 50_000.0},
    )
