"""``wrapper_overhead``: wall time per step of every solver, over the same PETSc calls alone.

1. The bare side takes the solver's own matrices, vectors, TS, SNES and KSP, set up by the solver's
   private code, and drives them with PETSc alone: one ``ts.solve()`` for all steps (burgers,
   kuramoto_sivashinsky, gray_scott, lorenz), a straight loop around ``ksp.solve`` (wave, and heat
   as in ``benchmarks/bare_heat.py``) or ``snes.solve`` (cavity), or the solver's own steps, which
   are NumPy and PETSc in turn (navier_stokes, darcy, shallow_water). No generator, no snapshot,
   no float32 copy, no finite check, no failure told. The equation's own callbacks are Python on
   both sides.
2. Both sides take the same steps from the same state, and end in the same one
   (``tests/numerics/test_bare_loops.py``); set-up and initial state are outside the clock.
3. Both take turns in short blocks, in one process that nothing else shares. The figure is the
   median ratio of neighbouring blocks over the quietest third of the turns, those in which both
   blocks together took the least: who else computes on the machine empties the caches.

1-D solvers have as many points as the 2-D ones, 128 x 128. lorenz has three numbers: its figure
shows the fixed cost of a snapshot, some 8 us, and not what a field costs. A new solver adds one
line to ``CASES``, and a bare loop where none of these fits.
"""

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from benchmarks.figures import Figure
from solvers.base import Solver
from solvers.petsc import self_communicator
from solvers.registry import build, known

BAR: Final = 1.05
TURNS: Final = 60
WARMING: Final = 3
POINTS: Final = 128
_TIMEOUT_SECONDS: Final = 600.0

Channel = Float64[np.ndarray, " points"]
# Takes every step of a member from its initial state, which is set; gives one channel.
Steps = Callable[[], Channel]
# Puts the objects of a solver, of which only the module knows, in a member's initial state.
Bare = Callable[[Any, dict[str, float]], Steps]


class Case(NamedTuple):
    """One solver.

    Attributes:
        settings: Of its config; as many steps as take some 10 ms, a 2-D flow some more.
        values: Of its parameters.
        bare: Its PETSc calls without headrace.
        channel: Which of its channels ``bare`` gives.
    """

    settings: dict[str, object]
    values: dict[str, float]
    bare: Bare
    channel: int = -1


def begun(solver: Any, values: dict[str, float]) -> Any:  # noqa: ANN401
    """What a solver has built, with the initial state of a member."""
    next(solver.run(values, self_communicator()))
    return solver._on(self_communicator())


def bare_heat(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """BDF2 with one KSP; two solves make the first step."""
    plate = begun(solver, values)
    ksp, rhs, walls = plate._ksp, plate._rhs, plate._given
    new, old, start = plate._spare, plate._now, plate._before

    def steps() -> Channel:
        now, before = new, old
        rhs.waxpy(1.0, before, walls)
        ksp.solve(rhs, start)
        rhs.waxpy(1.0, start, walls)
        ksp.solve(rhs, now)
        now.axpby(0.5, 0.5, start)
        for _ in range(solver.max_snapshots - 2):
            before.axpby(4 / 3, -1 / 3, now)
            rhs.waxpy(1.0, before, walls)
            ksp.solve(rhs, before)
            now, before = before, now
        return np.asarray(now.array_r)

    return steps


def bare_line(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """One TSSolve, where the Courant number asks for one step an interval."""
    line = begun(solver, values)
    line._ts.setMaxSteps(solver.max_snapshots - 1)

    def steps() -> Channel:
        line._ts.solve()
        return np.asarray(line._state.array_r)

    return steps


def bare_wave(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """Numerov's scheme with one KSP."""
    membrane = begun(solver, values)
    ksp, matrix, dt = membrane._ksp, membrane._matrix, membrane._dt
    u, v, q = membrane._displacement, membrane._velocity, membrane._push
    first, second = membrane._image, membrane._rhs

    def steps() -> Channel:
        image, rhs = first, second
        for _ in range(solver.max_snapshots - 1):
            rhs.waxpy(-5.0, image, u)
            rhs.axpy(5.0, u)
            rhs.axpy(dt, q)
            u.axpy(dt, q)
            ksp.solve(rhs, u)
            q.waxpy(-1.0, image, u)
            q.axpy(5.0, u)
            q.axpby(-5 / dt, 1 / dt, rhs)
            image, rhs = rhs, image
            matrix.mult(q, v)
        return np.asarray(v.array_r)

    return steps


def bare_gray_scott(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """One TSSolve."""
    dish = solver._on(self_communicator())
    dish._begin(values)

    def steps() -> Channel:
        dish._ts.solve()
        return np.asarray(dish._now.array_r[1::2])

    return steps


def bare_cavity(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """BDF2 with one SNES; velocity and vorticity are derived by the solver's own formulas."""
    flow = begun(solver, values)
    snes, rate, quick = flow._snes, flow._rate, sys.modules[type(flow).__module__]._QUICK

    def solve() -> None:
        flow._now.copy(flow._guess)
        snes.solve(None, flow._now)
        flow._rebuild = snes.getIterationNumber() > quick
        flow._derive()

    def steps() -> Channel:
        before = flow._vorticity
        for _ in range(2):
            flow._right = rate * flow._vorticity
            solve()
        flow._now.axpby(0.5, 0.5, flow._guess)
        flow._derive()
        flow._vorticity_before = before
        for _ in range(solver.max_snapshots - 2):
            flow._right = rate * ((4 * flow._vorticity - flow._vorticity_before) / 3)
            flow._now, flow._before = flow._before, flow._now
            flow._now.axpby(2.0, -1.0, flow._before)
            solve()
        return np.ravel(flow._vorticity)

    return steps


def bare_lorenz(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """One TSSolve."""
    system = solver._on(self_communicator())
    system._begin(values)

    def steps() -> Channel:
        system._ts.solve()
        return np.asarray(system._state.array_r[2:])

    return steps


def bare_flow(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """Runge-Kutta steps of the vorticity, each with a KSP."""
    flow = begun(solver, values)

    def steps() -> Channel:
        for step in range(1, solver.max_snapshots):
            flow._advance(step)
        return np.ravel(flow._state)

    return steps


def bare_medium(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """One matrix and one KSP."""
    medium = begun(solver, values)

    def steps() -> Channel:
        medium._solve(values["forcing"])
        return np.ravel(medium._fields[0])

    return steps


def bare_basin(solver: Any, values: dict[str, float]) -> Steps:  # noqa: ANN401
    """Runge-Kutta steps of depth and discharges."""
    basin = begun(solver, values)

    def steps() -> Channel:
        for step in range(1, solver.max_snapshots):
            basin._advance(step)
        return np.ravel(basin._fields[0])

    return steps


_SQUARE: Final[dict[str, object]] = {"grid": [POINTS, POINTS]}
_LINE: Final[dict[str, object]] = {"grid": [POINTS * POINTS], "length": 256.0}
_WALLS: Final = {"initial": 300.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 410.0}
_FORCING: Final = {"amplitude": 0.5, "seed": 3.0}

CASES: Final[dict[str, Case]] = {
    "heat": Case({**_SQUARE, "steps": 20}, _WALLS, bare_heat),
    "burgers": Case(
        {**_LINE, "steps": 3, "dt": 1e-3},
        {**_FORCING, "alpha": 1.0, "beta": 0.1, "gamma": 0.0},
        bare_line,
    ),
    "kuramoto_sivashinsky": Case({**_LINE, "steps": 10, "dt": 1e-3}, _FORCING, bare_line),
    "wave": Case(
        {**_SQUARE, "steps": 20, "dt": 0.005},
        {"x": 0.4, "y": 0.5, "width": 0.06, "height": 1.0},
        bare_wave,
    ),
    "gray_scott": Case(
        {**_SQUARE, "steps": 15, "dt": 0.5, "length": [1.0, 1.0]},
        {"F": 0.04, "k": 0.06},
        bare_gray_scott,
    ),
    "cavity": Case(
        {**_SQUARE, "steps": 3, "dt": 0.01}, {"reynolds": 100.0, "lid_speed": 1.0}, bare_cavity
    ),
    "navier_stokes": Case(
        {**_SQUARE, "steps": 2, "dt": 0.05},
        {"viscosity": 1e-3, "forcing": 0.1, "seed": 3.0},
        bare_flow,
    ),
    "darcy": Case(_SQUARE, {"forcing": 1.0, "seed": 3.0}, bare_medium, channel=0),
    "shallow_water": Case(
        {**_SQUARE, "steps": 5, "dt": 0.02, "initial": "hump", "bottom": "flat"},
        {"level": 1.0, "height": 0.4, "x": 30.0, "y": 40.0, "width": 8.0},
        bare_basin,
        channel=0,
    ),
    "lorenz": Case(
        {"steps": 300},
        {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3, "x": 1.0, "y": 1.0, "z": 20.0},
        bare_lorenz,
    ),
}  # fmt: skip


def run() -> list[Figure]:
    """One figure for each solver."""
    # As Ray sets it for an actor with one CPU; the child has it before it imports NumPy.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_take_turns, args=(there,), daemon=True)
    process.start()
    there.close()  # so that the end of the process is seen here
    try:
        if not here.poll(_TIMEOUT_SECONDS):
            raise TimeoutError(f"no result within {_TIMEOUT_SECONDS} s")
        ratios: dict[str, float] = here.recv()
    finally:
        process.kill()
        process.join()
    return [
        Figure.at_most(f"wrapper_overhead.{kind}", ratio, BAR, "1")
        for kind, ratio in ratios.items()
    ]


def _take_turns(result: Connection) -> None:
    result.send({kind: overhead(kind) for kind in CASES})


def made(kind: str, **changed: object) -> Solver:
    """The solver of a case."""
    return build(known(kind).model_validate(CASES[kind].settings | changed))


def overhead(kind: str) -> float:
    """Wrapped over bare, in this process."""
    solver, case, turns = made(kind), CASES[kind], []
    for turn in range(WARMING + TURNS):
        # Whoever comes second finds other things in the caches.
        order = (_bare, _wrapped) if turn % 2 else (_wrapped, _bare)
        seconds = {side: side(solver, case) for side in order}
        turns.append((seconds[_bare], seconds[_wrapped]))
    solver.close()
    quietest = sorted(turns[WARMING:], key=sum)[: TURNS // 3]
    return statistics.median(wrapped / bare for bare, wrapped in quietest)


def _bare(solver: Solver, case: Case) -> float:
    steps = case.bare(solver, case.values)
    started = time.perf_counter()
    steps()
    return time.perf_counter() - started


def _wrapped(solver: Solver, case: Case) -> float:
    snapshots = solver.run(case.values, self_communicator())
    next(snapshots)
    started = time.perf_counter()
    for _ in snapshots:
        pass
    return time.perf_counter() - started
