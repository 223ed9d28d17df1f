"""Run under mpiexec: a member of each case on all ranks; each saves its boxes, and how it failed.

One program for all of them, because starting Python on every rank takes longer than the members.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvers.base import Distributed, Solver, SolverFailed
from solvers.configs.heat import HeatConfig
from solvers.pdes.heat import Heat
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
        return build(known(self.kind).model_validate(self.settings))


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing(Case):
    """A member that fails: on all ranks, whoever finds it out.

    Attributes:
        message: In what each of them says, or in what it says of another mpi_rank.
        corner: What the plate of ``heat`` has too much in its north-east corner, on one rank alone.
    """

    message: str
    corner: float = 0.0

    def build(self) -> Solver:
        """A solver that was not used yet."""
        if not self.corner:
            return Case.build(self)

        def perturbation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return np.where((x > 1.25) & (y > 0.75), self.corner, 0.0)

        return Heat(HeatConfig.model_validate(self.settings), perturbation=perturbation)


_PLATE: dict[str, object] = {"grid": [13, 19], "steps": 6, "dt": 0.02, "length": [0.8, 1.3]}
_ROD_WALLS = {"initial": 450.0, "west": 120.0, "east": 480.0}
_WALLS = {**_ROD_WALLS, "south": 200.0, "north": 330.0}
_SPOT = {"source_rate": 800.0, "source_x": 0.3, "source_width": 0.1}
_FLOW = {"reynolds": 150.0, "lid_speed": 1.4}
_TURBULENCE: dict[str, object] = {
    "grid": [13, 20], "steps": 3, "dt": 0.4, "length": [0.8, 1.3],
    "initial": {"kind": "gaussian", "modes": 6, "std": 2.0},
}  # fmt: skip
_TURBULENT = {"viscosity": 1e-3, "forcing": 0.2, "seed": 11.0}
_MEDIUM: dict[str, object] = {
    "grid": [13, 20], "length": [0.8, 1.3],
    "coefficient": {"kind": "two_phase", "modes": 9, "contrast": 1000.0},
}  # fmt: skip
_DRAWN = {"forcing": 1.0, "seed": 11.0}
_BASIN: dict[str, object] = {"grid": [13, 20], "length": [52.0, 80.0], "steps": 12, "dt": 0.5}
_DAM: dict[str, object] = {**_BASIN, "initial": "dam", "bottom": "bump", "boundary": "periodic"}
_DRY_BED = {
    "level_left": 1.5, "level_right": 0.0, "dam_position": 41.0, "bottom_x": 55.0,
    "bottom_y": 25.0, "bottom_width": 6.0, "bottom_height": 0.8,
}  # fmt: skip
CASES: dict[str, Case] = {
    "heat": Case(kind="heat", settings=_PLATE, values=_WALLS, rtol=2e-7, atol=(0.0,)),
    "heat, 1-D": Case(
        kind="heat",
        settings={"grid": [31], "steps": 3, "dt": 0.02, "length": [0.8], "source": "gaussian"},
        values={**_ROD_WALLS, **_SPOT},
        rtol=2e-7,
        atol=(0.0,),
    ),
    "heat, 3-D": Case(
        kind="heat",
        settings={
            "grid": [7, 11, 13],
            "steps": 3,
            "dt": 0.02,
            "length": [0.5, 0.8, 1.3],
            "source": "gaussian",
            "source_field": True,
        },
        values={
            **_WALLS,
            "bottom": 150.0,
            "top": 500.0,
            **_SPOT,
            "source_y": 0.5,
            "source_z": 0.2,
        },
        rtol=2e-7,
        atol=(0.0,),
    ),
    "navier_stokes": Case(
        kind="navier_stokes", settings=_TURBULENCE, values=_TURBULENT, rtol=2e-7, atol=(2e-6,)
    ),
    "navier_stokes, multigrid": Case(
        kind="navier_stokes",
        settings={
            **_TURBULENCE,
            "steps": 1,
            "dt": 0.05,
            "petsc_options": "-ksp_type cg -pc_type gamg",
        },
        values=_TURBULENT,
        rtol=2e-7,
        atol=(2e-6,),
    ),
    "darcy": Case(kind="darcy", settings=_MEDIUM, values=_DRAWN, rtol=2e-7, atol=(1e-7, 0.0)),
    "shallow_water, dam on a dry bed": Case(
        kind="shallow_water", settings=_DAM, values=_DRY_BED, atol=(1e-10,)
    ),
    "shallow_water, tsunami on a beach": Case(
        kind="shallow_water",
        settings={**_BASIN, "initial": "hump", "bottom": "slope"},
        values={
            "level": 1.0,
            "height": 0.6,
            "x": 30.0,
            "y": 20.0,
            "width": 6.0,
            "bottom_start": 40.0,
            "bottom_height": 2.0,
        },
        atol=(1e-10,),
    ),
    "burgers": Case(
        kind="burgers",
        settings={"grid": [31], "steps": 4, "dt": 0.5},
        values={"alpha": 1.0, "beta": 0.1, "gamma": 0.3, "amplitude": 0.5, "seed": 3.0},
    ),
    "kuramoto_sivashinsky": Case(
        kind="kuramoto_sivashinsky",
        settings={"grid": [33], "steps": 4, "dt": 0.5, "length": 22.0},
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


_NO_ITERATIONS = "-ksp_type cg -pc_type none -ksp_max_it 1"
_DIVERGED = "linear solve failed at solver step 1"
FAILING: dict[str, Failing] = {
    **{
        f"{wrong} in a corner": Failing(
            kind="heat", settings=_PLATE, values=_WALLS, corner=value,
            message="field is not finite at solver step 0",
        )
        for wrong, value in (("nan", math.nan), ("infinite", math.inf), ("large", 1e39))
    },
    "heat diverges": Failing(
        kind="heat", settings={**_PLATE, "petsc_options": _NO_ITERATIONS}, values=_WALLS,
        message=_DIVERGED,
    ),
    "flow diverges": Failing(
        kind="navier_stokes", settings={**_TURBULENCE, "petsc_options": _NO_ITERATIONS},
        values=_TURBULENT, message=_DIVERGED,
    ),
    "flow is too fast": Failing(
        kind="navier_stokes", settings=_TURBULENCE, values={**_TURBULENT, "viscosity": 1e3},
        message="flow is too fast at solver step 1",
    ),
    "medium diverges": Failing(
        kind="darcy", settings={**_MEDIUM, "petsc_options": _NO_ITERATIONS}, values=_DRAWN,
        message=_DIVERGED,
    ),
    "medium overflows in places": Failing(
        kind="darcy",
        settings={
            **_MEDIUM,
            "coefficient": {
                "kind": "lognormal", "modes": 2, "length_scale": 0.5, "log_std": None,
            },
        },
        values={**_DRAWN, "log_std": 80.0},
        message="field is not finite at solver step 0",
    ),
    # Under the lid alone, which is not on every rank.
    "vorticity overflows": Failing(
        kind="cavity",
        settings={"grid": [19, 13], "steps": 2, "dt": 1e-39, "length": [1.3e-8, 0.8e-8]},
        values={"reynolds": 150.0, "lid_speed": 1e30},
        message="field is not finite at solver step 2",
    ),
    # Only the western rank has deep water, and so a wave that is too fast.
    "wave is too fast": Failing(
        kind="shallow_water", settings={**_DAM, "max_substeps": 4},
        values={**_DRY_BED, "level_left": 9.0, "dam_position": 10.0},
        message="solver step 1",
    ),
}  # fmt: skip


def main(out: str) -> None:
    """Save ``fields`` (snapshot, channel, *box) of each case, where the box lies, and the failure.

    ``fields`` are those before the failure, where there is one.
    """
    comm = PETSc.COMM_WORLD
    for name, case in {**CASES, **FAILING}.items():
        solver = case.build()
        assert isinstance(solver, Distributed)
        box, fields, failure = solver.box(comm), [], ""
        try:
            for snapshot in solver.run(case.values, comm):
                fields.append(snapshot.fields)  # noqa: PERF401 - kept when the next one fails
        except SolverFailed as failed:
            failure = str(failed)
        solver.close()
        np.savez(
            Path(out) / f"{name}-{comm.rank}.npz",
            fields=fields,
            failure=failure,
            start=[each.start for each in box],
            stop=[each.stop for each in box],
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
