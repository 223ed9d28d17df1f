"""A shallow water member on several MPI ranks yields the same field box by box, or fails on all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.petsc import self_communicator
from solvers.shallow_water import ShallowWater

pytestmark = pytest.mark.petsc

Saved = dict[str, NDArray[np.generic]]
OnRanks = Callable[[int, ShallowWaterConfig, dict[str, float]], list[Saved]]

BASIN = {"grid": (13, 20), "length": (52.0, 80.0), "steps": 12, "dt": 0.5}
SETTINGS = {
    "tsunami on a beach": {"initial": "hump", "bottom": "slope"},
    "dam break on a dry bed": {"initial": "dam", "bottom": "bump", "boundary": "periodic"},
}
VALUES = {
    "tsunami on a beach": {
        "level": 1.0, "height": 0.6, "x": 30.0, "y": 20.0, "width": 6.0, "bottom_start": 40.0,
        "bottom_height": 2.0,
    },
    "dam break on a dry bed": {
        "level_left": 1.5, "level_right": 0.0, "dam_position": 41.0, "bottom_x": 55.0,
        "bottom_y": 25.0, "bottom_width": 6.0, "bottom_height": 0.8,
    },
}  # fmt: skip


@pytest.fixture
def on_ranks(project: Path, tmp_path: Path, unavailable: Callable[[str], None]) -> OnRanks:
    """Run a member on that many mpi_ranks; what each of them saved."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        unavailable(f"no mpiexec beside {sys.executable}: pip install mpich")
    script = Path(__file__).with_name("shallow_water_on_ranks.py")

    def run(ranks: int, config: ShallowWaterConfig, values: dict[str, float]) -> list[Saved]:
        done = subprocess.run(
            [mpiexec, "-n", str(ranks), sys.executable, script, config.model_dump_json(),
             json.dumps(values), tmp_path],
            cwd=project,
            env={"PYTHONPATH": str(project), "PATH": str(mpiexec.parent), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(ranks)]

    return run


@pytest.mark.parametrize(
    ("ranks", "case"),
    [(2, "tsunami on a beach"), (2, "dam break on a dry bed"), (3, "dam break on a dry bed")],
)
def test_the_boxes_of_all_ranks_are_the_field_of_one(
    ranks: int, case: str, on_ranks: OnRanks
) -> None:
    config = ShallowWaterConfig.model_validate(BASIN | SETTINGS[case])
    solver = ShallowWater(config)
    alone = list(solver.run(VALUES[case], self_communicator()))
    solver.close()

    whole = np.full((config.max_snapshots, 4, *config.grid), np.nan, np.float32)
    for part in on_ranks(ranks, config, VALUES[case]):
        south, north, west, east = part["box"]
        assert np.isnan(whole[..., south:north, west:east]).all(), "boxes overlap"
        whole[..., south:north, west:east] = part["fields"]
        assert part["iterations"].tolist() == [s.iterations for s in alone]
    expected = np.stack([s.fields for s in alone])
    np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-10)


def test_all_ranks_fail_together(on_ranks: OnRanks) -> None:
    # Only the western rank has deep water, and so a wave that is too fast.
    case = "dam break on a dry bed"
    config = ShallowWaterConfig.model_validate(BASIN | SETTINGS[case] | {"max_substeps": 4})
    values = VALUES[case] | {"level_left": 9.0, "dam_position": 10.0}
    solver = ShallowWater(config)
    with pytest.raises(SolverFailed) as failed:
        list(solver.run(values, self_communicator()))
    solver.close()
    for part in on_ranks(2, config, values):
        assert len(part["fields"]) == 1
        assert str(part["failure"]) == str(failed.value)
