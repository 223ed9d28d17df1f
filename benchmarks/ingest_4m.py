"""``ingest_4m``: samples/s of 1024 x 1024 float32 snapshots from two processes into slots."""

from benchmarks.figures import Figure
from benchmarks.ingest_rig import figures


def run() -> list[Figure]:
    """The rate, and its ratio to a copy."""
    bars = {"memcpy": 0.7}
    return figures("ingest_4m", (1024, 1024), {"direct": 1_600}, bars)
