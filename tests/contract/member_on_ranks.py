"""Run under mpiexec: one member of any solver on all ranks.

Each rank saves its own box of every snapshot, and the text of the failure where there is one.
"""

import json
import sys
from pathlib import Path

import numpy as np

from solvers.base import Distributed, SolverFailed
from solvers.petsc import PETSc
from solvers.registry import build, known


def main(kind: str, settings: str, values: str, out: str) -> None:
    """Save ``fields`` (snapshot, channel, *box), where the box lies, and ``failure``."""
    comm = PETSc.COMM_WORLD
    solver = build(known(kind).config.model_validate_json(settings))
    assert isinstance(solver, Distributed)
    rows, columns = solver.box(comm)
    box = (rows.start, rows.stop, columns.start, columns.stop)
    fields: list[np.ndarray] = []
    failure = ""
    try:
        fields.extend(s.fields for s in solver.run(json.loads(values), comm))
    except SolverFailed as failed:
        failure = str(failed)
    np.savez(Path(out) / f"rank{comm.rank}.npz", fields=fields, box=box, failure=failure)
    solver.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
