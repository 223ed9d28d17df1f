"""Members that a seed draws yield the same field on several MPI ranks, box by box."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solvers.petsc import self_communicator
from solvers.registry import build, known

pytestmark = pytest.mark.petsc

Settings = dict[str, Any]
FLOW: Settings = {
    "kind": "navier_stokes", "grid": [13, 20], "steps": 3, "dt": 0.4, "length": [0.8, 1.3],
    "initial": {"kind": "gaussian", "modes": 6, "std": 2.0},
}  # fmt: skip
MULTIGRID = FLOW | {"steps": 1, "dt": 0.05, "petsc_options": "-ksp_type cg -pc_type gamg"}
MEDIUM: Settings = {
    "kind": "darcy", "grid": [13, 20], "length": [0.8, 1.3],
    "coefficient": {"kind": "two_phase", "modes": 9, "contrast": 1000.0},
}  # fmt: skip
FLOW_VALUES = {"viscosity": 1e-3, "forcing": 0.2, "seed": 11.0}
MEDIUM_VALUES = {"forcing": 1.0, "seed": 11.0}


@pytest.fixture
def on_ranks(
    project: Path, tmp_path: Path, unavailable: Callable[[str], None]
) -> Callable[[int, Settings, dict[str, float]], list[dict[str, Any]]]:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")

    def member(ranks: int, settings: Settings, values: dict[str, float]) -> list[dict[str, Any]]:
        script = Path(__file__).with_name("member_on_ranks.py")
        done = subprocess.run(
            [mpiexec, "-n", str(ranks), sys.executable, script, settings["kind"],
             json.dumps(settings), json.dumps(values), tmp_path],
            cwd=project,
            env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        parts = []
        for rank in range(ranks):
            with np.load(tmp_path / f"rank{rank}.npz") as part:
                parts.append({name: part[name] for name in part.files})
        return parts

    return member


OnRanks = Callable[[int, Settings, dict[str, float]], list[dict[str, Any]]]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    ("settings", "values"),
    [(FLOW, FLOW_VALUES), (MULTIGRID, FLOW_VALUES), (MEDIUM, MEDIUM_VALUES)],
    ids=["flow", "multigrid", "medium"],
)
def test_the_boxes_of_all_ranks_are_the_fields_of_one(
    ranks: int, settings: Settings, values: dict[str, float], on_ranks: OnRanks
) -> None:
    solver = build(known(settings["kind"]).config.model_validate(settings))
    expected = np.stack([s.fields for s in solver.run(values, self_communicator())])
    solver.close()
    whole = np.full_like(expected, np.nan)
    for part in on_ranks(ranks, settings, values):
        assert part["failure"] == ""
        south, north, west, east = part["box"]
        assert np.isnan(whole[..., south:north, west:east]).all(), "boxes overlap"
        whole[..., south:north, west:east] = part["fields"]
    scale = np.abs(expected[-1, 0]).max()
    np.testing.assert_allclose(whole[:, 0], expected[:, 0], rtol=2e-7, atol=1e-6 * scale)
    np.testing.assert_allclose(whole[:, 1:], expected[:, 1:], rtol=2e-7)
    assert np.ptp(expected[-1]) > 0.0


def test_all_ranks_fail_when_the_coefficient_overflows_on_some(on_ranks: OnRanks) -> None:
    coefficient = {"kind": "lognormal", "modes": 2, "length_scale": 0.5, "log_std": None}
    values = MEDIUM_VALUES | {"log_std": 80.0}
    parts = on_ranks(3, MEDIUM | {"coefficient": coefficient}, values)
    failures = [str(part["failure"]) for part in parts]
    assert all("field is not finite at solver step 0" in failure for failure in failures)
    assert any("on another mpi_rank" in failure for failure in failures), "overflows on all"
    assert any("values are NaN, infinite" in failure for failure in failures)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (FLOW, FLOW_VALUES | {"viscosity": 1e3}, "flow is too fast at solver step 1"),
        (
            FLOW | {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
            FLOW_VALUES,
            "linear solve failed at solver step 1, time 0.4 s: DIVERGED_ITS",
        ),
        (
            MEDIUM | {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
            MEDIUM_VALUES,
            "linear solve failed at solver step 1, time 1 s: DIVERGED_ITS",
        ),
    ],
)
def test_all_ranks_fail_together(
    settings: Settings, values: dict[str, float], message: str, on_ranks: OnRanks
) -> None:
    for part in on_ranks(2, settings, values):
        assert message in str(part["failure"])
        assert len(part["fields"]) == 1
