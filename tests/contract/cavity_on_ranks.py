"""Run under mpiexec: one cavity member on all ranks; each saves its own box of every snapshot."""

import sys
from pathlib import Path

import numpy as np

from solvers.cavity import Cavity
from solvers.configs.cavity import CavityConfig
from solvers.petsc import PETSc


def main(settings: str, values: dict[str, float], out: Path) -> None:
    """Save ``fields`` (snapshot, channel, *box) and where the box lies."""
    comm = PETSc.COMM_WORLD
    solver = Cavity(CavityConfig.model_validate_json(settings))
    rows, columns = solver.box(comm)
    fields = np.stack([snapshot.fields for snapshot in solver.run(values, comm)])
    box = (rows.start, rows.stop, columns.start, columns.stop)
    np.savez(out / f"rank{comm.rank}.npz", fields=fields, box=box)
    solver.close()


if __name__ == "__main__":
    main(
        sys.argv[1],
        dict(zip(("reynolds", "lid_speed"), map(float, sys.argv[2:4]), strict=True)),
        Path(sys.argv[4]),
    )
