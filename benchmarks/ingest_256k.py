"""``ingest_256k``: samples/s of 256 x 256 float32 snapshots from two processes into slots."""

from benchmarks.figures import Figure
from benchmarks.ingest_rig import figures


def run() -> list[Figure]:
    """Rates of all transports, and their ratios."""
    return figures(
        "ingest_256k",
        (256, 256),
        {"direct": 20_000, "curve": 3_000},
        {"memcpy": 0.7, "curve": 3_800.0},
    )
