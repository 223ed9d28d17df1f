"""Run under mpiexec: heat members on all ranks; each saves its own boxes, and how a bad one ends.

One program for all of them, because starting Python on every rank takes longer than the members.
"""

import sys
from pathlib import Path

import numpy as np

from solvers.base import SolverFailed
from solvers.configs.heat import HeatConfig
from solvers.heat import Heat
from solvers.petsc import PETSc

# Cells that 2 and 3 do not divide.
CONFIGS = {
    "rod": HeatConfig(grid=(31,), steps=3, dt=0.02, length=(0.8,), source="gaussian"),
    "plate": HeatConfig(grid=(13, 20), steps=3, dt=0.02, length=(0.8, 1.3)),
    "block": HeatConfig(
        grid=(7, 11, 13),
        steps=3,
        dt=0.02,
        length=(0.5, 0.8, 1.3),
        source="gaussian",
        source_field=True,
    ),
}
GIVEN = {
    "initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0,
    "bottom": 150.0, "top": 500.0, "source_rate": 800.0, "source_x": 0.3, "source_y": 0.5,
    "source_z": 0.2, "source_width": 0.1,
}  # fmt: skip
# What cannot be streamed, in one corner of the plate: one mpi_rank alone has it.
WRONG = {"nan": np.nan, "infinite": np.inf, "large": 1e39}


def values_of(config: HeatConfig) -> dict[str, float]:
    """The parameters that this configuration has."""
    return {p.name: GIVEN[p.name] for p in config.parameters()}


def failures() -> list[str]:
    """How members end on this mpi_rank whose north-east corner starts wrong."""
    config, told, wrong = CONFIGS["plate"], [], iter(WRONG.values())

    def corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where((x > 1.25) & (y > 0.75), next(wrong), 0.0)

    # One solver for all: with more ranks than cores, its set-up is what takes long.
    solver = Heat(config, perturbation=corner)
    for _ in WRONG:
        try:
            list(solver.run(values_of(config), PETSc.COMM_WORLD))
        except SolverFailed as failed:
            told.append(str(failed))
    solver.close()
    return told


def main(out: str) -> None:
    """Save ``fields`` (snapshot, channel, *box) of each configuration, and where the box lies."""
    comm = PETSc.COMM_WORLD
    for name, config in CONFIGS.items():
        solver = Heat(config)
        ends = [(axis.start, axis.stop) for axis in solver.box(comm)]
        snapshots = list(solver.run(values_of(config), comm))
        solver.close()
        fields = np.stack([snapshot.fields for snapshot in snapshots])
        iterations = [snapshot.iterations for snapshot in snapshots]
        file = Path(out) / f"{name}-{comm.rank}.npz"
        np.savez(file, fields=fields, iterations=iterations, box=ends)
    file = Path(out) / f"failures-{comm.rank}.txt"
    file.write_text("\n".join(failures()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
