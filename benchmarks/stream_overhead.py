"""``stream_overhead``: wall time of a heat member with streaming, over the bare PETSc loop.

1. The streaming side is what a study runs: solver, samples, sender, and the wait until the last
   sample is stored; the receiver fills real slots in another process.
2. The bare side is the same PETSc calls in a plain loop (``benchmarks/bare_heat.py``).
3. Both take turns in one process that nothing else shares; the figure is the median over turns of
   the ratio of their best times.
"""

import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.figures import Figure
from benchmarks.processes import reporting
from benchmarks.store_rig import drawing, fifo, store
from benchmarks.stream_rig import SENDING
from pipeline.members.attempt import Assignment
from pipeline.members.run_member import run_member
from pipeline.slots.layout import SampleLayout
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sender import Sender

GRIDS: Final = (64, 128, 256)
TURNS: Final = 15
MEMBERS: Final = 4  # of each side in a turn
STEPS: Final = 100
SLOT_BYTES: Final = 256 << 20
BAR: Final = 1.05
_TIMEOUT_SECONDS: Final = 300.0


def run() -> list[Figure]:
    """One figure for each grid."""
    return [
        Figure.at_most(f"stream_overhead.{points}", _ratio(points), BAR, "1") for points in GRIDS
    ]


def _ratio(points: int) -> float:
    layout = SampleLayout(window=1, sample_shape=(1, points, points), num_parameters=5)
    # As Ray sets it for an actor with one CPU; it has to be there before NumPy is imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    with (
        store(layout, fifo(SLOT_BYTES // layout.nbytes)) as stored,
        drawing(stored),
        reporting(_take_turns, points, stored.endpoint, stored.keys, layout) as solver,
    ):
        if not solver.poll(_TIMEOUT_SECONDS):
            raise TimeoutError(f"no result within {_TIMEOUT_SECONDS} s")
        return float(solver.recv())


def _take_turns(
    points: int, endpoint: Endpoint, keys: StudyKeys, layout: SampleLayout, result: Connection
) -> None:
    from benchmarks.bare_heat import PARAMETERS, run_bare
    from solvers.configs.heat import HeatConfig
    from solvers.pdes.heat import Heat
    from solvers.petsc import self_communicator

    config = HeatConfig(grid=(points, points), steps=STEPS)
    solver, sender = Heat(config), Sender([endpoint], layout=layout, keys=keys, **SENDING)
    member = 0

    def stream() -> float:
        nonlocal member
        member += 1
        started = time.perf_counter()
        run_member(
            solver,
            sender,
            Assignment(member=member, attempt=1, validation=False),
            PARAMETERS,
            comm=self_communicator(),
            downsampling=lambda snapshots: snapshots,
            window=1,
            initial_state=False,
            time_step=config.dt,
            flush_timeout=_TIMEOUT_SECONDS,
            clock=time.monotonic,
        )
        return time.perf_counter() - started

    stream(), run_bare(config, PARAMETERS)  # factorisations, connections
    ratios = []
    for _ in range(TURNS):
        bare = min(run_bare(config, PARAMETERS) for _ in range(MEMBERS))
        ratios.append(min(stream() for _ in range(MEMBERS)) / bare)
    result.send(statistics.median(ratios))
    sender.close()
    solver.close()
