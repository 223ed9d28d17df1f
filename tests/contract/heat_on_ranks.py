"""Run under mpiexec: one heat member on all ranks; each saves its own box of every snapshot."""

import sys
from pathlib import Path

import numpy as np

from solvers.configs.heat import HeatConfig
from solvers.heat import Heat
from solvers.petsc import PETSc


def main(settings: str, values: dict[str, float], out: Path) -> None:
    """Save ``fields`` (snapshot, channel, *box) and where the box lies."""
    comm = PETSc.COMM_WORLD
    solver = Heat(HeatConfig.model_validate_json(settings))
    rows, columns = solver.box(comm)
    fields = np.stack([snapshot.fields for snapshot in solver.run(values, comm)])
    box = (rows.start, rows.stop, columns.start, columns.stop)
    np.savez(out / f"rank{comm.rank}.npz", fields=fields, box=box)
    solver.close()


if __name__ == "__main__":
    main(
        sys.argv[1],
        dict(
            zip(
                ("initial", "west", "east", "south", "north"),
                map(float, sys.argv[2:7]),
                strict=True,
            )
        ),
        Path(sys.argv[7]),
    )
