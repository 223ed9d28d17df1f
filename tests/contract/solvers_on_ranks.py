"""Run under mpiexec: a member of each case on all ranks; each saves its own boxes.

One program for all of them, because starting Python on every rank takes longer than the members.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvers.base import Distributed, Solver
from solvers.petsc import PETSc
from solvers.registry import build, known


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A solver on a grid that 2, 3 and 4 do not divide.

    Attributes:
        kind: Of the solver.
        settings: Of the solver.
        values: The member's parameters.
        rtol: Relative tolerance of every value.
        atol: Absolute tolerance, per channel or for all of them.
    """

    kind: str
    settings: dict[str, object]
    values: dict[str, float]
    rtol: float = 1e-6
    atol: tuple[float, ...] = (1e-7,)

    def build(self) -> Solver:
        """A solver that was not used yet."""
        return build(known(self.kind).config.model_validate(self.settings))


_FLOW = {"reynolds": 150.0, "lid_speed": 1.4}
CASES: dict[str, Case] = {
    "heat": Case(
        kind="heat",
        settings={"grid": [13, 19], "steps": 6, "dt": 0.02, "length": [0.8, 1.3]},
        values={"initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0},
        rtol=2e-7,
        atol=(0.0,),
    ),
    "burgers": Case(
        kind="burgers",
        settings={"grid": [31], "steps": 4, "dt": 0.5},
        values={"alpha": 1.0, "beta": 0.1, "gamma": 0.3, "amplitude": 0.5, "seed": 3.0},
    ),
    "kuramoto_sivashinsky": Case(
        kind="kuramoto_sivashinsky",
        settings={"grid": [31], "steps": 4, "dt": 0.5, "length": 22.0},
        values={"amplitude": 1.0, "seed": 3.0},
    ),
    "wave": Case(
        kind="wave",
        settings={"grid": [13, 19], "steps": 6, "dt": 0.02, "length": [0.8, 1.3]},
        values={"x": 0.6, "y": 0.4, "width": 0.05, "height": 0.7},
    ),
    "gray_scott": Case(
        kind="gray_scott",
        settings={"grid": [13, 19], "steps": 6, "dt": 2.0, "length": [0.3, 0.5], "spots": 2},
        values={"F": 0.04, "k": 0.06},
    ),
    # Newton's tolerance is one of psi as a whole; w has two of its derivatives.
    "cavity, unsteady": Case(
        kind="cavity",
        settings={"grid": [13, 19], "steps": 6, "dt": 0.1, "length": [0.8, 1.3]},
        values=_FLOW,
        rtol=2e-7,
        atol=(2e-7, 2e-7, 2e-6),
    ),
    "cavity, steady": Case(
        kind="cavity",
        settings={"mode": "steady", "grid": [13, 19], "steps": 2, "length": [0.8, 1.3]},
        values=_FLOW,
        rtol=2e-7,
        atol=(2e-7, 2e-7, 2e-6),
    ),
}


def main(out: str) -> None:
    """Save ``fields`` (snapshot, channel, *box) of each case, and where the box lies."""
    comm = PETSc.COMM_WORLD
    for name, case in CASES.items():
        solver = case.build()
        assert isinstance(solver, Distributed)
        box = solver.box(comm)
        fields = np.stack([snapshot.fields for snapshot in solver.run(case.values, comm)])
        solver.close()
        np.savez(
            Path(out) / f"{name}-{comm.rank}.npz",
            fields=fields,
            start=[each.start for each in box],
            stop=[each.stop for each in box],
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
