"""``ingest_16k_vs_ray``: the stream over Ray actor calls, side by side in one run.

Two actors call a third one, which copies into slots: no deduplication, no reservoir. Three ways:
one call per snapshot, each awaited, as the plain program does it; the same with up to 64 calls in
flight; and as many snapshots per call as our messages hold, with as many bytes in flight as ours.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import ray

from benchmarks.figures import Figure
from benchmarks.stream_rig import SENDING, Load, measure
from pipeline.actors.cluster import cluster

LOAD: Final = Load(grid=(64, 64), samples=200_000)
TOGETHER: Final = SENDING["batch_bytes"] // LOAD.layout.nbytes
SINGLE_CALLS: Final = 3_000
BATCHED_CALLS: Final = 1_500
SINGLE_BAR: Final = 50.0
BATCHED_BAR: Final = 3.0
SLOTS: Final = 16_384
IN_FLIGHT: Final = 64  # calls; more did not make Ray quicker
IN_FLIGHT_BAR: Final = 3.0
ROUNDS: Final = 3


class _Store:
    """Copies what comes into slots."""

    def __init__(self) -> None:
        self._fields = np.zeros((SLOTS, 64, 64), np.float32)
        self._next = 0

    def put(self, fields: np.ndarray) -> None:
        """Store samples one after the other."""
        if self._next + len(fields) > SLOTS:
            self._next = 0
        self._fields[self._next : self._next + len(fields)] = fields
        self._next += len(fields)


class _Caller:
    """Calls a store as often as told, with a bounded number of calls in flight."""

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - Ray gives its handles no type
        self._store = store

    def run(self, calls: int, together: int, bound: int) -> None:
        """Hand over ``calls`` times ``together`` samples, ``bound`` calls in flight at most."""
        fields = np.random.default_rng(1).random((together, 64, 64), np.float32)
        flying: list[Any] = []
        for _ in range(calls):
            if len(flying) >= bound:
                _, flying = ray.wait(flying, num_returns=max(1, bound // 2))
            flying.append(self._store.put.remote(fields))
        ray.get(flying)


def _ray_rate(callers: list[Any], calls: int, together: int, bound: int) -> float:
    started = time.perf_counter()
    ray.get([caller.run.remote(calls // len(callers), together, bound) for caller in callers])
    return calls * together / (time.perf_counter() - started)


def run() -> list[Figure]:
    """Ratios of medians over several rounds, all in turn."""
    with cluster(cpus=3, project_root=Path(__file__).resolve().parent.parent):
        store = ray.remote(num_cpus=1)(_Store).remote()
        callers = [ray.remote(num_cpus=1)(_Caller).remote(store) for _ in range(2)]
        same_credit = SENDING["credit_bytes"] // SENDING["batch_bytes"]
        _ray_rate(callers, 200, 1, IN_FLIGHT)  # processes start
        _ray_rate(callers, 200, TOGETHER, same_credit)
        rounds = [
            (
                measure(LOAD, "direct"),
                _ray_rate(callers, SINGLE_CALLS, 1, 1),
                _ray_rate(callers, SINGLE_CALLS, 1, IN_FLIGHT),
                _ray_rate(callers, BATCHED_CALLS, TOGETHER, same_credit),
            )
            for _ in range(ROUNDS)
        ]
    ours, *theirs = (median(column) for column in zip(*rounds, strict=True))
    bars = {"awaited": SINGLE_BAR, "in_flight": IN_FLIGHT_BAR, "batched": BATCHED_BAR}
    return [
        Figure.at_least(f"ingest_16k_vs_ray_{name}", ours / rate, bar, "times")
        for (name, bar), rate in zip(bars.items(), theirs, strict=True)
    ]
