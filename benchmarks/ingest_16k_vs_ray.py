"""``ingest_16k_vs_ray``: the stream over Ray actor calls, side by side in one run.

Ray's side does less than ours: two actors call a third one, with calls in flight up to the same
credit, and it copies into slots; no deduplication, no reservoir, no acknowledgement.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import ray

from benchmarks.figures import Figure
from benchmarks.stream_rig import Load, measure
from pipeline.cluster import cluster
from pipeline.sender import BATCH_BYTES, CREDIT_BYTES

LOAD: Final = Load(grid=(64, 64), samples=200_000)
TOGETHER: Final = BATCH_BYTES // LOAD.layout.nbytes
SINGLE_CALLS: Final = 3_000
BATCHED_CALLS: Final = 1_500
SINGLE_BAR: Final = 50.0
BATCHED_BAR: Final = 3.0
SLOTS: Final = 16_384
IN_FLIGHT: Final = 64  # calls; more did not make Ray quicker
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

    def run(self, calls: int, together: int) -> None:
        """Hand over ``calls`` times ``together`` samples and wait for the last."""
        fields = np.random.default_rng(1).random((together, 64, 64), np.float32)
        bound = min(IN_FLIGHT, max(2, CREDIT_BYTES // fields.nbytes))
        flying: list[Any] = []
        for _ in range(calls):
            if len(flying) >= bound:
                _, flying = ray.wait(flying, num_returns=bound // 2)
            flying.append(self._store.put.remote(fields))
        ray.get(flying)


def _ray_rate(callers: list[Any], calls: int, together: int) -> float:
    started = time.perf_counter()
    ray.get([caller.run.remote(calls // len(callers), together) for caller in callers])
    return calls * together / (time.perf_counter() - started)


def run() -> list[Figure]:
    """Ratios of medians over several rounds, all three in turn."""
    with cluster(actors=3, project_root=Path(__file__).resolve().parent.parent):
        store = ray.remote(num_cpus=1)(_Store).remote()
        callers = [ray.remote(num_cpus=1)(_Caller).remote(store) for _ in range(2)]
        _ray_rate(callers, 100, 1)  # processes start
        _ray_rate(callers, 100, TOGETHER)
        rounds = [
            (
                measure(LOAD, "ipc"),
                _ray_rate(callers, SINGLE_CALLS, 1),
                _ray_rate(callers, BATCHED_CALLS, TOGETHER),
            )
            for _ in range(ROUNDS)
        ]
    ours, single, batched = (median(column) for column in zip(*rounds, strict=True))
    return [
        Figure.at_least("ingest_16k_vs_ray_single", ours / single, SINGLE_BAR, "times"),
        Figure.at_least("ingest_16k_vs_ray_batched", ours / batched, BATCHED_BAR, "times"),
    ]
