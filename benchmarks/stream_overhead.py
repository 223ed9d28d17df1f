"""``stream_overhead``: wall time of a heat member with streaming, over the bare PETSc loop.

1. The streaming side is what a study runs: solver, samples, sender, and the wait until the last
   sample is stored; the receiver fills real slots in another process.
2. The bare side is the same PETSc calls in a plain loop (``benchmarks/bare_heat.py``).
3. Both take turns in one process that nothing else shares; the figure is the median over turns of
   the ratio of their best times.
"""

import multiprocessing
import os
import statistics
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.figures import Figure
from benchmarks.stream_rig import drawing, fifo
from pipeline.controller import Assignment
from pipeline.intake import Intake
from pipeline.members import run_member
from pipeline.placing import Placing
from pipeline.receiver import ReceiverThread, Turnstile
from pipeline.sender import Sender
from pipeline.slots import Slots, slots_path
from pipeline.wire import Endpoint, SampleLayout, StudyKeys

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
    keys = StudyKeys.generate()
    layout = SampleLayout(window=1, sample_shape=(1, points, points), num_parameters=5)
    with ExitStack() as stack:
        path = slots_path(f"bench{keys.study:x}", 0, "train")
        capacity = SLOT_BYTES // layout.nbytes
        slots = stack.enter_context(Slots.create(path, capacity=capacity, layout=layout))
        slots.populate()
        lock, book = Turnstile(), fifo(capacity)
        placing = Placing(slots=slots, book=book, layout=layout)
        intake = Intake(layout=layout, study=keys.study, training=placing)
        receiver = ReceiverThread(intake=intake, lock=lock, bind="ipc", keys=keys)
        stack.callback(receiver.close)
        endpoint = receiver.start()
        stack.enter_context(drawing(book, lock, receiver))
        # As Ray sets it for an actor with one CPU; it has to be there before NumPy is imported.
        os.environ["OMP_NUM_THREADS"] = "1"
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        solver = context.Process(
            target=_take_turns, args=(points, endpoint, keys, layout, there), daemon=True
        )
        solver.start()
        stack.callback(solver.kill)
        if not here.poll(_TIMEOUT_SECONDS):
            raise TimeoutError(f"no result within {_TIMEOUT_SECONDS} s")
        ratio = float(here.recv())
        solver.join(_TIMEOUT_SECONDS)
    return ratio


def _take_turns(
    points: int, endpoint: Endpoint, keys: StudyKeys, layout: SampleLayout, result: Connection
) -> None:
    from benchmarks.bare_heat import PARAMETERS, run_bare
    from solvers.configs.heat import HeatConfig
    from solvers.heat import Heat
    from solvers.petsc import self_communicator

    config = HeatConfig(grid=(points, points), steps=STEPS)
    solver, sender = Heat(config), Sender([endpoint], layout=layout, keys=keys)
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
