"""A cavity member on several MPI ranks yields the same field, box by box."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from solvers.cavity import Cavity
from solvers.configs.cavity import CavityConfig
from solvers.petsc import self_communicator

pytestmark = pytest.mark.petsc

UNSTEADY = CavityConfig(grid=(13, 20), steps=6, dt=0.1, length=(0.8, 1.3))
STEADY = CavityConfig(mode="steady", grid=(13, 20), steps=2, length=(0.8, 1.3))
VALUES = {"reynolds": 150.0, "lid_speed": 1.4}


@pytest.mark.parametrize(
    ("ranks", "config"), [(2, UNSTEADY), (3, UNSTEADY), (3, STEADY), (4, STEADY)]
)
def test_the_boxes_of_all_ranks_are_the_field_of_one(
    ranks: int,
    config: CavityConfig,
    project: Path,
    tmp_path: Path,
    unavailable: Callable[[str], None],
) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    script = Path(__file__).with_name("cavity_on_ranks.py")
    numbers = [str(VALUES[p.name]) for p in config.parameters()]
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, script, config.model_dump_json(), *numbers,
         tmp_path],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    whole = np.full((config.max_snapshots, 3, *config.grid), np.nan, np.float32)
    for rank in range(ranks):
        with np.load(tmp_path / f"rank{rank}.npz") as part:
            south, north, west, east = part["box"]
            assert np.isnan(whole[..., south:north, west:east]).all(), "boxes overlap"
            whole[..., south:north, west:east] = part["fields"]
    solver = Cavity(config)
    expected = np.stack([s.fields for s in solver.run(VALUES, self_communicator())])
    solver.close()
    # Newton's tolerance is one of psi as a whole; w has two of its derivatives.
    np.testing.assert_allclose(whole[:, :2], expected[:, :2], rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(whole[:, 2], expected[:, 2], rtol=2e-7, atol=2e-6)
