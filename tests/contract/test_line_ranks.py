"""A member of a 1-D solver on several MPI ranks yields the same field, box by box."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from solvers.petsc import self_communicator
from tests.contract.line_on_ranks import VALUES, built

pytestmark = pytest.mark.petsc


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_boxes_of_all_ranks_are_the_field_of_one(
    ranks: int, project: Path, tmp_path: Path, unavailable: Callable[[str], None]
) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    script = Path(__file__).with_name("line_on_ranks.py")
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, script, tmp_path],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr

    for kind, values in VALUES.items():
        solver = built(kind)
        expected = np.stack([s.fields for s in solver.run(values, self_communicator())])
        solver.close()
        whole = np.full(expected.shape, np.nan, np.float32)
        for rank in range(ranks):
            with np.load(tmp_path / f"{kind}-{rank}.npz") as part:
                box = slice(*part["box"])
                assert np.isnan(whole[..., box]).all(), "boxes overlap"
                whole[..., box] = part["fields"]
        np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-7, err_msg=kind)
