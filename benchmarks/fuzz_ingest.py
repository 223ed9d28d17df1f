"""``fuzz_ingest``: samples/s of a live stream under attack, as a share of the rate without it.

A tenth of the attack that ``make test-slow`` makes: 100,000 frames from peers with its keys,
nearly all wrong, 1,000 silent connections, 100 that talk nonsense, 100 sockets with wrong keys.
"""

from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.fuzz_rig import FULL, measure

SCALE: Final = 0.1
PAUSE: Final = 0.0002  # seconds that a solver computes for a sample: the senders stay in charge
BAR: Final = 0.8
MEMORY_BAR: Final = 64.0
ROUNDS: Final = 3


def run() -> list[Figure]:
    """Median of several rounds."""
    outcomes = [measure(FULL.scaled(SCALE), quiet_seconds=5.0, pause=PAUSE) for _ in range(ROUNDS)]
    kept = median(outcome.kept for outcome in outcomes)
    frames = median(SCALE * FULL.frames / outcome.seconds for outcome in outcomes)
    grown = max(outcome.grown_bytes for outcome in outcomes) / 2**20
    return [
        Figure.at_least("fuzz_ingest", kept, BAR, "of the rate without attack"),
        Figure.at_least("fuzz_ingest_frames", frames, 0.0, "wrong frames/s"),
        Figure.at_most("fuzz_ingest_memory", grown, MEMORY_BAR, "MiB"),
    ]
