"""The heat solver's PETSc calls in a plain loop: what headrace's overhead is measured over.

1. Same matrix, same factorisation, same vector operations in the same order as
   ``solvers.pdes.heat``, set up before the clock starts; nothing else: no snapshot, no copy, no
   check.
2. It ends in the same state as the solver, to the last bit (``tests/numerics/test_bare_heat.py``).

``python benchmarks/bare_heat.py`` prints what yielding snapshots costs without a stream.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import petsc4py

petsc4py.init(["bare_heat", "-no_signal_handler", "-skip_petscrc"])

from petsc4py import PETSc  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from solvers.configs.heat import HeatConfig  # noqa: E402

MEMBERS, ROUNDS = 5, 15
PARAMETERS = {"initial": 300.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 410.0}


class BareHeat:
    """A straight petsc4py program for the plate on one rank."""

    def __init__(self, config: HeatConfig) -> None:
        (ny, nx), (ly, lx) = config.grid, config.length
        self.config = config
        share = 2 / 3 * config.dt * config.diffusivity
        self.ry, self.rx = share / (ly / ny) ** 2, share / (lx / nx) ** 2
        da = PETSc.DMDA().create(sizes=(nx, ny), dof=1, stencil_width=1, comm=PETSc.COMM_SELF)
        matrix = PETSc.Mat().createAIJ((nx * ny, nx * ny), nnz=5, comm=PETSc.COMM_SELF)
        for j in range(ny):
            for i in range(nx):
                walls_x, walls_y = (i == 0) + (i == nx - 1), (j == 0) + (j == ny - 1)
                diagonal = 1.0 + self.rx * (2.0 + walls_x) + self.ry * (2.0 + walls_y)
                row = j * nx + i
                matrix.setValue(row, row, diagonal)
                for column, value, inside in (
                    (row - 1, -self.rx, i > 0),
                    (row + 1, -self.rx, i < nx - 1),
                    (row - nx, -self.ry, j > 0),
                    (row + nx, -self.ry, j < ny - 1),
                ):
                    if inside:
                        matrix.setValue(row, column, value)
        matrix.assemble()
        self.ksp = PETSc.KSP().create(PETSc.COMM_SELF)
        self.ksp.setOperators(matrix)
        self.ksp.setType("preonly")
        self.ksp.pc.setType("lu")
        self.ksp.pc.setFactorOrdering("nd")
        self.ksp.setUp()
        self.now, self.before, self.spare, self.rhs, self.walls = (
            da.createGlobalVec() for _ in range(5)
        )

    def run(self, parameters: Mapping[str, float]) -> float:
        """One member.

        Returns:
            Wall seconds from the initial state to the last step.
        """
        ny, nx = self.config.grid
        started = time.perf_counter()
        walls = np.zeros((ny, nx))
        walls[:, 0] += 2 * self.rx * parameters["west"]
        walls[:, -1] += 2 * self.rx * parameters["east"]
        walls[0] += 2 * self.ry * parameters["south"]
        walls[-1] += 2 * self.ry * parameters["north"]
        self.walls.setArray(walls.ravel())  # type: ignore[arg-type]  # the stub's type
        now, before, spare, rhs = self.now, self.before, self.spare, self.rhs
        now.set(parameters["initial"])
        rhs.waxpy(1.0, now, self.walls)
        self.ksp.solve(rhs, before)
        rhs.waxpy(1.0, before, self.walls)
        self.ksp.solve(rhs, spare)
        spare.axpby(0.5, 0.5, before)
        now, before = spare, now
        for _ in range(self.config.steps - 1):
            before.axpby(4 / 3, -1 / 3, now)
            rhs.waxpy(1.0, before, self.walls)
            self.ksp.solve(rhs, before)
            now, before = before, now
        self.last = now
        return time.perf_counter() - started

    def temperature(self) -> np.ndarray:
        """The state that the last member ended in, ``(y, x)`` in kelvin."""
        return np.array(self.last.getArray(readonly=True)).reshape(self.config.grid)


@lru_cache(maxsize=4)
def _bare(config: HeatConfig) -> BareHeat:
    return BareHeat(config)


def run_bare(config: HeatConfig, parameters: Mapping[str, float]) -> float:
    """Wall seconds of one member in the bare loop; the set-up is kept between calls."""
    return _bare(config).run(parameters)


def run_solver(config: HeatConfig, members: int) -> Iterable[float]:
    """Wall seconds of each of ``members`` members of the solver, its snapshots thrown away."""
    from solvers.pdes.heat import Heat
    from solvers.petsc import self_communicator

    solver, comm = Heat(config), self_communicator()
    for _ in range(members + 1):
        started = time.perf_counter()
        for _snapshot in solver.run(PARAMETERS, comm):
            pass
        yield time.perf_counter() - started


def main() -> None:
    """Run both alternately and print the ratio of their best times."""
    config = HeatConfig()
    solver = iter(run_solver(config, members=MEMBERS * ROUNDS))
    next(solver), run_bare(config, PARAMETERS)  # set-up
    bare_rounds, solver_rounds = [], []
    for _ in range(ROUNDS):
        bare_rounds.append(min(run_bare(config, PARAMETERS) for _ in range(MEMBERS)))
        solver_rounds.append(min(next(solver) for _ in range(MEMBERS)))
    ratio = statistics.median(s / b for s, b in zip(solver_rounds, bare_rounds, strict=True))
    for name, value, unit in (
        ("heat_steps_bare", config.steps / statistics.median(bare_rounds), "1/s"),
        ("heat_steps_solver", config.steps / statistics.median(solver_rounds), "1/s"),
        ("heat_solver_over_bare", ratio, "1"),
    ):
        line = {"name": name, "value": round(value, 4), "unit": unit, "bar": None, "ok": True}
        print(json.dumps(line))  # noqa: T201 - the benchmark's output


if __name__ == "__main__":
    main()
