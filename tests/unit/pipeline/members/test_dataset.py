"""What is written is what would be streamed."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.members.dataset import write_dataset
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from tests.small_study import STEPS, VALIDATION, small_study
from trainers.offline.stored import files_of
from trainers.tasks.moments import moments_of

pytestmark = pytest.mark.petsc

MEMBERS = (2, 3, 5)


def study() -> StudyConfig:
    return small_study(
        stream={"every": 2, "coarsen": 2, "dtype": "float16"},
        trainer={"task": {"kind": "direct", "window": 3, "stride": 2}},
    )


def test_members_are_those_of_a_run_in_every_store(tmp_path: Path) -> None:
    from solvers import petsc, registry

    made = study()
    data = write_dataset(made, tmp_path / "data", members=MEMBERS, stores=["npy", "zarr"])
    samples = (STEPS // 2 - 3) // 2 + 1
    assert (data.members, data.failed, data.samples) == (MEMBERS, 0, 3 * samples)
    solver, design = registry.build(made.solver), design_of(made)
    for place, member in enumerate(MEMBERS):
        values = design.values(member)
        snapshots = list(solver.run(values, petsc.self_communicator()))
        for store in ("npy", "zarr"):
            files = files_of(store, tmp_path / "data" / store)
            fields, index = files.read(member), files.index(member)
            assert fields.shape == (samples, 3, 1, 5, 7)
            assert fields.dtype == np.dtype("float16")
            assert index.steps.tolist() == [2 + 4 * sample for sample in range(samples)]
            for sample, step in enumerate(index.steps):
                shown = [snapshots[int(step) + 2 * k] for k in range(3)]
                expected = [*values.values(), *(one.time for one in shown)]
                np.testing.assert_array_equal(index.inputs[sample], expected)
                fine = np.stack([one.fields for one in shown]).astype(np.float64)
                means = fine.reshape(3, 1, 5, 2, 7, 2).mean(axis=(3, 5))
                np.testing.assert_allclose(fields[sample], means, rtol=1e-3)
        expected_moments = moments_of(fields, index.inputs, np.arange(samples))
        np.testing.assert_array_equal(data.moments[place].field_mean, expected_moments.field_mean)
    solver.close()
    for store in ("npy", "zarr"):
        assert data.bytes_written[store] > 3 * samples * 3 * 35 * 2
        assert data.write_seconds[store] > 0.0
    assert 0.0 < data.solve_seconds < 2 * data.wall_seconds


def test_a_member_that_fails_is_left_out(tmp_path: Path) -> None:
    # One iteration without a preconditioner cannot converge, unless there is nothing to solve.
    failing = small_study(
        solver={"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1 -ksp_rtol 1e-12"}
    )
    data = write_dataset(
        failing, tmp_path / "data", members=range(VALIDATION, VALIDATION + 3), stores=["npy"]
    )
    assert (data.members, data.failed, data.samples) == ((), 3, 0)
