"""A heat member on several MPI ranks yields the same field, box by box."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from solvers.configs.heat import HeatConfig
from solvers.heat import Heat
from solvers.petsc import self_communicator

pytestmark = pytest.mark.petsc

CONFIG = HeatConfig(grid=(13, 20), steps=6, dt=0.02, length=(0.8, 1.3))
VALUES = {"initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0}


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_boxes_of_all_ranks_are_the_field_of_one(
    ranks: int, project: Path, tmp_path: Path, unavailable: Callable[[str], None]
) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    script = Path(__file__).with_name("heat_on_ranks.py")
    numbers = [str(VALUES[p.name]) for p in CONFIG.parameters()]
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, script, CONFIG.model_dump_json(), *numbers,
         tmp_path],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    whole = np.full((CONFIG.max_snapshots, 1, *CONFIG.grid), np.nan, np.float32)
    for rank in range(ranks):
        with np.load(tmp_path / f"rank{rank}.npz") as part:
            south, north, west, east = part["box"]
            assert np.isnan(whole[..., south:north, west:east]).all(), "boxes overlap"
            whole[..., south:north, west:east] = part["fields"]
    solver = Heat(CONFIG)
    expected = np.stack([s.fields for s in solver.run(VALUES, self_communicator())])
    solver.close()
    np.testing.assert_allclose(whole, expected, rtol=2e-7)
