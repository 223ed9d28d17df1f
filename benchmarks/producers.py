"""``producers``: samples/s with 1 to 1,024 connected senders at equal total load.

The senders live in two processes (one for a single sender), which run their members in turn: what
is measured is what a connection costs the receiver, not what a process costs two cores.
"""

from dataclasses import replace
from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.stream_rig import SAMPLES_PER_MEMBER, Load, measure

COUNTS: Final = (1, 8, 64, 256, 1024)
JUDGED: Final = 256
# As many members for each: a multiple of the most senders, so that every one has work.
TOTAL: Final = Load(grid=(64, 64), samples=COUNTS[-1] * SAMPLES_PER_MEMBER)
BAR: Final = 0.85
ROUNDS: Final = 3


def run() -> list[Figure]:
    """Rates as they are, and that of 256 over the best; medians of several rounds, in turn."""
    loads = [replace(TOTAL, senders=count, processes=min(count, 2)) for count in COUNTS]
    rounds = [[measure(load, "direct") for load in loads] for _ in range(ROUNDS)]
    rates = [median(column) for column in zip(*rounds, strict=True)]
    figures = [
        Figure.at_least(f"producers_{count}", rate, 0.0, "samples/s")
        for count, rate in zip(COUNTS, rates, strict=True)
    ]
    judged = rates[COUNTS.index(JUDGED)] / max(rates)
    return [*figures, Figure.at_least("producers", judged, BAR, "of the best")]
