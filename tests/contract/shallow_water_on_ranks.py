"""Run under mpiexec: one shallow water member on all ranks; each saves its box of every snapshot.

A member that fails is saved with what it said.
"""

import json
import sys
from pathlib import Path

import numpy as np

from solvers.base import Snapshot, SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.petsc import PETSc
from solvers.shallow_water import ShallowWater


def main(settings: str, values: dict[str, float], out: Path) -> None:
    """Save ``fields`` (snapshot, channel, *box), where the box lies, steps, and the failure."""
    comm = PETSc.COMM_WORLD
    solver = ShallowWater(ShallowWaterConfig.model_validate_json(settings))
    rows, columns = solver.box(comm)
    found: list[Snapshot] = []
    failure = ""
    try:
        found.extend(solver.run(values, comm))  # keeps what came before a failure
    except SolverFailed as failed:
        failure = str(failed)
    np.savez(
        out / f"rank{comm.rank}.npz",
        fields=np.stack([snapshot.fields for snapshot in found]),
        box=(rows.start, rows.stop, columns.start, columns.stop),
        iterations=[snapshot.iterations for snapshot in found],
        failure=failure,
    )
    solver.close()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]))
