"""Prints, as JSON, how many PETSc objects live: before, after 2 and 100 members, and when closed.

A process of its own: PETSc lists its objects only when it was started with ``-objects_dump``.
"""

import ctypes
import json
import os
import sys
import tempfile
from itertools import islice
from pathlib import Path

os.environ["PETSC_OPTIONS"] = "-objects_dump -malloc_debug"

from solvers.petsc import self_communicator
from solvers.registry import build, known


def _libpetsc() -> ctypes.CDLL:
    """The library that petsc4py has loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return ctypes.CDLL(next(line.split()[-1] for line in maps if "libpetsc" in line))


def live_objects() -> int:
    """PETSc objects that were created and not destroyed, those inside others included."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile() as listing:
        file = ctypes.c_void_p(libc.fopen(listing.name.encode(), b"w"))
        assert _libpetsc().PetscObjectsDump(file, 1) == 0
        libc.fclose(file)
        return Path(listing.name).read_text(encoding="utf-8").count("[0] ")


def live_bytes() -> int:
    """Memory that PETSc has allocated and not freed."""
    usage = ctypes.c_double()
    assert _libpetsc().PetscMallocGetCurrentUsage(ctypes.byref(usage)) == 0
    return int(usage.value)


def main(kind: str, settings: str) -> None:
    """Run 100 members and count on the way; every third is given up half way."""
    config = known(kind).model_validate_json(settings)
    parameters = {p.name: p.low for p in config.parameters()}
    comm = self_communicator()
    solver = build(config)  # a first time, because PETSc registers its types once per process
    list(solver.run(parameters, comm))
    solver.close()

    counts = {"before": (live_objects(), live_bytes())}
    solver = build(config)
    for member in range(1, 101):
        snapshots = solver.run(parameters, comm)
        for _ in islice(snapshots, 2 if member % 3 == 0 else None):
            pass
        if member in (2, 100):
            counts[f"after {member}"] = (live_objects(), live_bytes())
    kept = {name: getattr(solver, name) for name in vars(solver)}  # no help from reference counts
    solver.close()
    counts["closed"] = (live_objects(), live_bytes())
    del kept
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
