"""A member on several mpi_ranks yields the same fields as on one, or fails on all of them."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from solvers.base import Distributed
from solvers.petsc import self_communicator
from solvers.registry import SOLVERS, build
from tests.contract.solvers_on_ranks import CASES, FAILING

pytestmark = pytest.mark.petsc


@pytest.fixture(scope="module", params=[2, 3])
def parts(
    request: pytest.FixtureRequest,
    project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], None],
) -> Path:
    """A folder with what each of so many mpi_ranks has computed of each case."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    out = tmp_path_factory.mktemp(f"ranks{request.param}")
    script = Path(__file__).with_name("solvers_on_ranks.py")
    done = subprocess.run(
        [mpiexec, "-n", str(request.param), sys.executable, script, out],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(out)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return out


@cache
def serial(name: str) -> np.ndarray:
    case = CASES[name]
    solver = case.build()
    fields = np.stack([s.fields for s in solver.run(case.values, self_communicator())])
    solver.close()
    return fields


@pytest.mark.parametrize("name", CASES)
def test_the_boxes_of_all_ranks_are_the_field_of_one(name: str, parts: Path) -> None:
    expected, case = serial(name), CASES[name]
    whole: np.ndarray = np.full(expected.shape, np.nan, np.float32)
    for path in sorted(parts.glob(f"{name}-*.npz")):
        with np.load(path) as part:
            ends = zip(part["start"].tolist(), part["stop"].tolist(), strict=True)
            box = (slice(None), slice(None), *(slice(*each) for each in ends))
            assert np.isnan(whole[box]).all(), "boxes overlap"
            whole[box] = part["fields"]
    for channel in range(whole.shape[1]):
        atol = case.atol[channel % len(case.atol)]
        np.testing.assert_allclose(
            whole[:, channel], expected[:, channel], rtol=case.rtol, atol=atol
        )


@pytest.mark.parametrize("name", FAILING)
def test_all_ranks_fail_together(name: str, parts: Path) -> None:
    said = []
    for path in sorted(parts.glob(f"{name}-*.npz")):
        with np.load(path) as part:
            said.append((str(part["failure"]), len(part["fields"])))
    assert all(FAILING[name].message in failure for failure, _ in said), said
    assert len({snapshots for _, snapshots in said}) == 1
    # One of them has seen it itself.
    assert any("on another mpi_rank" not in failure for failure, _ in said)


def test_every_distributed_solver_is_covered() -> None:
    kinds = {kind for kind, entry in SOLVERS.items() if entry.distributed}
    assert {case.kind for case in CASES.values()} == kinds


@pytest.mark.parametrize("kind", sorted(SOLVERS.keys() - {"program", "own"}))
def test_the_registry_knows_who_is_distributed(kind: str) -> None:
    solver = build(SOLVERS[kind]())
    assert isinstance(solver, Distributed) == SOLVERS[kind].distributed
    solver.close()
