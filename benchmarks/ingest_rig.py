"""What one size of snapshots makes of every transport, in one run: rates, and ratios of them."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Final

from benchmarks import memcpy
from benchmarks.figures import Figure
from benchmarks.stream_rig import SAMPLES_PER_MEMBER, Load, Transport, measure

ROUNDS: Final = 5
_SENDERS: Final = 2


def figures(
    name: str, grid: tuple[int, int], samples: Mapping[Transport, int], bars: Mapping[str, float]
) -> list[Figure]:
    """Medians of several rounds, the transports in turn.

    Args:
        name: Of the benchmark.
        grid: Of the snapshots.
        samples: To measure each transport with, so that it takes a second or two.
        bars: ``memcpy``: of the direct way over a copy by one core; ``curve``: samples/s over TCP.
    """
    load = Load(grid=grid, samples=0, senders=_SENDERS)
    step = _SENDERS * SAMPLES_PER_MEMBER
    loads = {way: replace(load, samples=-(-n // step) * step) for way, n in samples.items()}
    rounds = [
        {way: measure(each, way) for way, each in loads.items()}
        | {"memcpy": memcpy.rate(load.layout.nbytes) / load.layout.nbytes}
        for _ in range(ROUNDS)
    ]

    share = median(each["direct"] / each["memcpy"] for each in rounds)
    gigabytes = load.layout.nbytes / 1e9
    rates = {way: median(each[way] for each in rounds) for way in rounds[0]}
    made = [
        Figure.at_least(f"{name}.{way}", rate, bars.get(way, 0.0) * (way == "curve"), "samples/s")
        for way, rate in rates.items()
    ]
    made.append(Figure.at_least(f"{name}.bytes", gigabytes * rates["direct"], 0.0, "GB/s"))
    made.append(Figure.at_least(f"{name}.over_memcpy", share, bars["memcpy"], "of memcpy"))
    return made
