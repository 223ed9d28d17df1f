"""The record of a whole study, against the same members simulated alone."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.members.one_member import built, parameters_of
from pipeline.record.reader import open_record
from pipeline.run import StudyResult, run
from tests.small_study import MEMBERS, STEPS, VALIDATION, small_study

pytestmark = [pytest.mark.cluster, pytest.mark.studies]

STUDY = small_study(record={"what": "inserted"})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run(STUDY, out=tmp_path_factory.mktemp("study") / "run")


def test_the_record_is_what_the_solver_computes(recorded: StudyResult) -> None:
    dataset = open_record(recorded.out)
    members = range(VALIDATION, VALIDATION + MEMBERS)
    assert dataset["member"].values.tolist() == [m for m in members for _ in range(STEPS)]
    assert dataset["step"].values.tolist() == [*range(1, STEPS + 1)] * MEMBERS
    with built(STUDY.solver) as (solver, comm):
        for member in members:
            parameters = parameters_of(STUDY, member)
            mine = dataset.isel(sample=dataset["member"].values == member)
            alone = list(solver.run(parameters, comm))[1:]
            fields = np.stack([snapshot.fields for snapshot in alone])
            np.testing.assert_array_equal(mine["temperature"].values, fields)
            assert mine["time"].values[:, 0].tolist() == [snapshot.time for snapshot in alone]
            for name, value in parameters.items():
                assert set(mine[name].values.tolist()) == {value}


def test_draws_and_counters_agree_with_the_summary(recorded: StudyResult) -> None:
    summary, dataset = recorded.summary, open_record(recorded.out)
    assert int(dataset["draws"].sum()) == summary.samples_drawn
    assert summary.samples_recorded == dataset.sizes["sample"] == summary.samples_inserted
    assert (summary.record_dropped, summary.record_problem) == (0, None)
    assert dataset.attrs["complete"] is True


def test_there_is_a_group_for_each_rank_and_an_index(recorded: StudyResult) -> None:
    groups = sorted(path.name for path in Path(recorded.out, "record.zarr").iterdir())
    assert groups == ["rank0", "rank1", "zarr.json"]
