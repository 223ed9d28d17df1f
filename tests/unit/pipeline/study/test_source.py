import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.record.layout import FOLDER
from pipeline.record.replay import RecordedMembers
from pipeline.slots.layout import Box
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from pipeline.study.load import parse
from pipeline.study.source import recorded_numbers
from solvers.base import SolverFailed
from tests.small_study import MEMBERS, STEPS, VALIDATION
from tests.source_rig import DT, first_study, second_tree, snapshot_of, write_record

RECORDED = range(VALIDATION, VALIDATION + MEMBERS)
NEXT = {"task": {"kind": "next"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("whole"), first_study())


def second(folder: Path, **sections: Any) -> StudyConfig:
    return parse(second_tree(folder, **sections))


def refusals(folder: Path, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        second(folder, **sections)
    return caught.value.problems


def test_a_record_of_a_csv_study_needs_no_distributions(tmp_path: Path) -> None:
    count = MEMBERS + VALIDATION
    rows = [f"{100 + 7 * m},{200 + m},250,260,270" for m in range(count)]
    table = tmp_path / "p.csv"
    table.write_text("\n".join(["initial,west,east,south,north", *rows]), encoding="utf-8")
    first = first_study(ensemble={"design": {"csv": str(table)}})
    first = first.model_copy(update={"parameters": {}})
    folder = write_record(tmp_path / "whole", first)
    sections = {"design": {"csv": str(table)}, "validation": 2, "members": 3}
    again = second(folder, ensemble=sections)
    design, numbers = design_of(again), recorded_numbers(again)
    for member, recorded in numbers.items():
        assert design.values(member) == design_of(first).values(recorded)


def read(folder: Path, member: int, every: int = 1) -> list[tuple[int, float, np.ndarray]]:
    recorded = RecordedMembers(folder).member(
        member, names=("temperature",), every=every, box=Box((2, 3), (5, 4))
    )
    return [(each.step, each.time, each.fields) for each in recorded.run({}, None)]


# --- reading members back -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "sections"),
    [
        ({}, {}),
        ({"compression": "zstd"}, {"trainer": NEXT}),  # each snapshot stands in two windows
        ({}, {"trainer": {"task": {"kind": "bundle"}}, "stream": {"every": 2}}),
        ({}, {"stream": {"initial_state": True}}),
    ],
)
def test_a_snapshot_comes_once_and_as_it_was_recorded(
    tmp_path: Path, record: dict[str, Any], sections: dict[str, Any]
) -> None:
    study = first_study(record, **sections)
    write_record(tmp_path, study)
    every = study.stream.every
    assert RecordedMembers(tmp_path).members.tolist() == list(RECORDED)
    for member in RECORDED:
        found = read(tmp_path, member)
        first = 0 if study.stream.initial_state else every
        assert [step for step, _, _ in found] == list(range(first, STEPS + 1, every))
        for step, time, fields in found:
            assert time == DT * step
            part = snapshot_of(study, member, step)[:, 2:7, 3:7]
            np.testing.assert_array_equal(fields, part)


def test_only_the_steps_that_are_wanted_are_read(whole: Path) -> None:
    assert [step for step, _, _ in read(whole, 4, every=5)] == [5, 10, 15, 20]


def test_a_missing_chunk_fails_the_member(whole: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(whole, tmp_path / "damaged")
    next((damaged / FOLDER / "rank1" / "temperature").glob("c.0.*")).unlink()
    with pytest.raises(SolverFailed, match=r"step 1 of member 3 cannot be read from .*rank1"):
        read(damaged, 3)


def test_a_member_that_is_not_there_fails(whole: Path) -> None:
    with pytest.raises(SolverFailed, match="member 99 is not in the record"):
        RecordedMembers(whole).steps(99)


def test_a_damaged_index_is_refused(whole: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(whole, tmp_path / "damaged")
    chunk = damaged / FOLDER / "rank0" / "step" / "c.0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    (line,) = refusals(damaged)
    assert "is damaged" in line


# --- which member is which ------------------------------------------------------------------------


def test_what_a_study_leaves_out_is_the_records(whole: Path) -> None:
    study, first = second(whole), first_study()
    for section in ("solver", "parameters"):
        assert getattr(study, section) == getattr(first, section)
    assert study.stream.model_dump() == first.stream.model_dump()
    assert not study.simulates


def test_members_are_taken_once_and_keep_their_parameters(whole: Path) -> None:
    study, first = second(whole), first_study()
    numbers, design = recorded_numbers(study), design_of(study)
    assert sorted(numbers) == list(range(9))  # 2 + 7, all of them
    assert sorted(numbers.values()) == list(RECORDED)
    for member, number in numbers.items():
        assert design.values(member) == design_of(first).values(number)


def test_another_seed_takes_other_members_for_validation(whole: Path) -> None:
    chosen = {tuple(recorded_numbers(second(whole, seed=seed))[m] for m in (0, 1))
              for seed in range(6)}  # fmt: skip
    assert len(chosen) > 1


def test_live_members_are_spread_evenly_and_are_other_points(whole: Path) -> None:
    study = second(whole, source={"live": 4, "validation": "live"}, ensemble={"members": 12})
    numbers, first = recorded_numbers(study), first_study()
    live = [member for member in range(2, 14) if member not in numbers]
    assert live == [4, 7, 10, 13]
    design, before = design_of(study), design_of(first)
    old = {tuple(before.values(number).values()) for number in RECORDED}
    new = {tuple(design.values(member).values()) for member in live}
    assert len(new) == 4
    assert not old & new
    # The same seed: both studies can be judged by the same members.
    assert [design.values(m) for m in (0, 1)] == [before.values(m) for m in (0, 1)]
    assert study.simulates


def test_members_may_be_named(whole: Path) -> None:
    chosen = (10, 3, 5, 4, 2)
    study = second(
        whole, source={"members": list(chosen)}, ensemble={"members": 4, "validation": 1}
    )
    assert tuple(recorded_numbers(study).values()) == chosen


def test_a_resolved_study_reads_back_unchanged(whole: Path) -> None:
    study = second(whole, source={"live": 2})
    assert StudyConfig.model_validate(study.as_json()) == study
    assert parse(study.as_json()) == study


# --- gaps -----------------------------------------------------------------------------------------


def test_a_task_without_neighbours_takes_what_there_is(tmp_path: Path) -> None:
    first = first_study({"fraction": 0.3})
    write_record(tmp_path, first)
    there = {m: RecordedMembers(tmp_path).steps(m).size for m in RECORDED}
    assert len(set(there.values())) > 1
    study = second(tmp_path, reservoir={"watermark": 8})
    numbers = recorded_numbers(study)
    assert study.expected_samples == sum(there[numbers[m]] for m in range(2, 9))


def test_a_task_with_neighbours_takes_members_without_a_gap(tmp_path: Path) -> None:
    write_record(tmp_path, first_study(), lost=lambda member, number: (member, number) == (4, 9))
    study = second(tmp_path, trainer=NEXT, ensemble={"members": 6})
    assert 4 not in recorded_numbers(study).values()
    (line,) = refusals(tmp_path, trainer=NEXT)
    assert "1 of its 9 members have gaps or are too short for 2 consecutive snapshots" in line
    assert "9 whole ones are needed" in line


@pytest.mark.parametrize("record", [{"fraction": 0.5}, {"every": 2}])
def test_a_record_with_gaps_everywhere_is_refused(record: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path, first_study(record))
    (line,) = refusals(tmp_path, trainer=NEXT)
    assert "9 of its 9 members have gaps" in line
    assert "Record with fraction 1, every 1" in line


def test_members_that_end_early_do_not_let_ranks_wait_for_ever(tmp_path: Path) -> None:
    # Even members have one sample, for rank 0, odd ones two: rank 0 gets four more than rank 1.
    write_record(tmp_path, first_study(), lost=lambda member, number: number > member % 2)
    chosen = {"members": [9, 10, 2, 3, 4, 5, 6, 7, 8]}
    few = {"watermark": 2, "max_reuse": 1, "policy": "firo"}
    second(tmp_path, source=chosen, reservoir=few | {"capacity": 40})
    (line,) = refusals(tmp_path, source=chosen, reservoir=few | {"capacity": 9})
    assert line.startswith("reservoir.capacity=9: the recorded members have different numbers")
    needed = int(line.rpartition(" ")[2])
    assert needed >= 2 + 4 + 4
    second(tmp_path, source=chosen, reservoir=few | {"capacity": needed})


# --- what cannot work -----------------------------------------------------------------------------

SHORT = {"kind": "heat", "grid": [10, 14], "steps": 9, "dt": 0.01}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"ensemble": {"members": 8}}, "has 9 members, but 10 are needed"),
        ({"solver": SHORT}, "solver.steps=9: the record was made with 21"),
        ({"solver": {"kind": "burgers"}}, "was made with solver.kind=heat"),
        ({"stream": {"coarsen": 2}}, "its grid has [10, 14] points, that of this study [5, 7]"),
        ({"stream": {"dtype": "float16"}}, "stream.dtype=\"float16\": the record holds float32"),
        ({"stream": {"initial_state": True}}, "the record has no initial states"),
        ({"stream": {"input_fields": ["temperature"]}}, "has no field initial_temperature"),
        ({"parameters": {"west": {"uniform": [300, 310]}}}, "members of the record have"),
        ({"source": {"record": "/nowhere"}}, "there is no record in it"),
        ({"source": {"live": 8}}, "must be at most ensemble.members=7"),
        ({"source": {"live": 7, "validation": "live"}}, "leaves nothing to be taken"),
        ({"source": {"members": [2, 3]}}, "names 2 members, but 9 are needed"),
        ({"source": {"members": [2, 2, 3, 4, 5, 6, 7, 8, 9]}}, "a member is named twice"),
        ({"source": {"members": [50, 2, 3, 4, 5, 6, 7, 8, 9]}}, "not whole (50)"),
        ({"ensemble": {"on_failure": "redraw"}}, "nothing is simulated here. Set it to skip"),
        ({"ensemble": {"mpi_ranks": 2}}, "nothing is simulated here. Set it to 1"),
        ({"ensemble": {"design": "grid"}, "source": {"live": 1}}, "must be drawn"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(whole: Path, sections: dict[str, Any], said: str) -> None:
    lines = refusals(whole, **sections)
    assert any(said in line for line in lines), lines


def test_every_second_step_of_a_record_of_every_second_but_not_of_every_third(
    tmp_path: Path,
) -> None:
    write_record(tmp_path, first_study(stream={"every": 2}))
    assert second(tmp_path).stream.every == 2
    assert second(tmp_path, stream={"every": 4}, reservoir={"watermark": 8}).samples_per_member == 5
    (line,) = refusals(tmp_path, stream={"every": 3}, reservoir={"watermark": 8})
    assert line.startswith("stream.every=3: the record has only every 2. step")


def test_parameters_of_other_names_are_refused(whole: Path, tmp_path: Path) -> None:
    other = shutil.copytree(whole, tmp_path / "other")
    for rank in ("rank0", "rank1"):
        file = other / FOLDER / rank / "zarr.json"
        file.write_text(file.read_text().replace('"name": "west"', '"name": "left"'))
    (line,) = refusals(other)
    assert "its parameters are initial [K], left [K]" in line
