"""A heat member on several MPI ranks yields the same field, box by box, or fails on all of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from solvers.heat import Heat
from solvers.petsc import self_communicator
from tests.contract.heat_on_ranks import CONFIGS, WRONG, values_of

pytestmark = pytest.mark.petsc


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_together_do_what_one_does(
    ranks: int, project: Path, tmp_path: Path, unavailable: Callable[[str], None]
) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    script = Path(__file__).with_name("heat_on_ranks.py")
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, script, tmp_path],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,  # a rank that goes on alone waits for the others for ever
    )
    assert done.returncode == 0, done.stderr
    for name in CONFIGS:
        assert_same_as_on_one_rank(name, ranks, tmp_path)
    assert_all_ranks_fail(ranks, tmp_path)


def assert_same_as_on_one_rank(name: str, ranks: int, saved: Path) -> None:
    config = CONFIGS[name]
    solver = Heat(config)
    members = solver.run(values_of(config), self_communicator())
    expected = np.stack([snapshot.fields for snapshot in members])
    solver.close()
    whole = np.full(expected.shape, np.nan, np.float32)
    iterations = []
    for rank in range(ranks):
        with np.load(saved / f"{name}-{rank}.npz") as part:
            box = (slice(None), slice(None), *(slice(*ends) for ends in part["box"]))
            assert np.isnan(whole[box]).all(), f"{name}: boxes overlap"
            whole[box] = part["fields"]
            iterations.append(list(part["iterations"]))
    np.testing.assert_allclose(whole, expected, rtol=2e-7, err_msg=name)
    assert iterations == [iterations[0]] * ranks
    first, *later = iterations[0]
    assert first == 0
    assert all(2 <= count <= 40 for count in later), f"{name}: {later} iterations"


def assert_all_ranks_fail(ranks: int, saved: Path) -> None:
    told = [(saved / f"failures-{rank}.txt").read_text().splitlines() for rank in range(ranks)]
    for kind, messages in zip(WRONG, zip(*told, strict=True), strict=True):
        where = [message.rpartition(": ")[2] for message in messages]
        assert all("field is not finite at solver step 0" in message for message in messages), kind
        assert sum("1 of" in place for place in where) == 1, f"{kind}: {where}"
        assert where.count("on another mpi_rank") == ranks - 1, f"{kind}: {where}"
