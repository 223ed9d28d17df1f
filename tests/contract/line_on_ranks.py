"""Run under mpiexec: a member of each 1-D solver on all ranks; each saves its own boxes.

One program for all of them, because starting Python on every rank takes longer than the members.
"""

import sys
from pathlib import Path

import numpy as np

from solvers.burgers import Burgers
from solvers.configs.burgers import BurgersConfig
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.configs.lorenz import LorenzConfig
from solvers.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.lorenz import Lorenz
from solvers.petsc import PETSc

AnySolver = Burgers | KuramotoSivashinsky | Lorenz

# A number of points that 2 and 3 do not divide, and long intervals with several steps each.
VALUES: dict[str, dict[str, float]] = {
    "burgers": {"alpha": 1.0, "beta": 0.1, "gamma": 0.3, "amplitude": 0.5, "seed": 3.0},
    "kuramoto_sivashinsky": {"amplitude": 1.0, "seed": 3.0},
    "lorenz": {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3, "x": 1.0, "y": 2.0, "z": 3.0},
}


def built(kind: str) -> AnySolver:
    """A solver that was not used yet."""
    if kind == "burgers":
        return Burgers(BurgersConfig(grid=(31,), steps=4, dt=0.5))
    if kind == "kuramoto_sivashinsky":
        config = KuramotoSivashinskyConfig(grid=(31,), steps=4, dt=0.5, length=22.0)
        return KuramotoSivashinsky(config)
    return Lorenz(LorenzConfig(steps=4))


def main(out: str) -> None:
    """Save ``fields`` (snapshot, channel, *box) of each kind, and where the box lies."""
    comm = PETSc.COMM_WORLD
    for kind, values in VALUES.items():
        solver = built(kind)
        (box,) = solver.box(comm)
        fields = np.stack([snapshot.fields for snapshot in solver.run(values, comm)])
        solver.close()
        np.savez(Path(out) / f"{kind}-{comm.rank}.npz", fields=fields, box=(box.start, box.stop))


if __name__ == "__main__":
    main(*sys.argv[1:])
