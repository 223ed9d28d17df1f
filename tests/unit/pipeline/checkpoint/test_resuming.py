import json
from pathlib import Path

import pytest

from pipeline.checkpoint.resuming import (
    changed,
    check_changes,
    complete,
    given_up,
    progress_of,
    read_study,
)
from pipeline.control.controller import Controller
from pipeline.control.events import (
    BeginTraining,
    EndProduction,
    EndValidation,
    FailedMember,
    Start,
    Stop,
    TimePassed,
    TrainingEnded,
    WorkerReady,
)
from pipeline.control.journal import Journal, read
from pipeline.control.rundir import RunDirectory
from pipeline.control.stopping import StopRequest
from pipeline.errors import ConfigError, StudyStopped
from tests.small_study import small_study

# --- the run directory ----------------------------------------------------------------------------


def directory(out: Path) -> RunDirectory:
    made = RunDirectory(out)
    made.write_study(source="name: small\n", resolved=small_study().as_json())
    return made


def test_the_study_is_read_back_as_it_was(tmp_run: Path) -> None:
    directory(tmp_run).close()
    assert read_study(tmp_run) == small_study()


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no study"):
        read_study(tmp_path)


def test_a_study_that_has_ended_is_refused(tmp_run: Path) -> None:
    directory(tmp_run).close()
    (tmp_run / "summary.json").write_text("{}")
    with pytest.raises(ConfigError, match="the study has ended"):
        read_study(tmp_run)


def test_what_another_version_wrote_is_refused(tmp_run: Path) -> None:
    directory(tmp_run).close()
    (tmp_run / "resolved.json").write_text(json.dumps({"name": "small", "colour": "red"}))
    with pytest.raises(ConfigError, match="is not what this version writes"):
        read_study(tmp_run)


def test_two_drivers_never_work_in_one_folder(tmp_run: Path) -> None:
    first = directory(tmp_run)
    with pytest.raises(ConfigError, match="a study is running in this folder"):
        RunDirectory(tmp_run, again=True)
    first.close()
    RunDirectory(tmp_run, again=True).close()


def test_without_a_checkpoint_all_members_are_run_again(tmp_run: Path) -> None:
    directory(tmp_run).close()
    journal = Journal(tmp_run / "journal.jsonl")
    journal.write("completed", at=7.5, member=1, samples=21)
    journal.write("failed", at=9.25, member=3, attempt=3, reason="DIVERGED_NANORINF")
    journal.close()
    progress = progress_of(tmp_run, small_study())
    assert progress.checkpoint is None
    assert progress.completed == frozenset()
    assert progress.failed == (FailedMember(3, 3, "DIVERGED_NANORINF"),)
    assert progress.elapsed == 9.25


def test_what_is_appended_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for whole in ("", '{"event": "start", "at": 1.0}\n'):
        path.write_text(whole + '{"event": "comple')
        journal = Journal(path)
        journal.write("resumed", at=2.0)
        journal.close()
        assert [event["event"] for event in read(path)] == ["start"] * bool(whole) + ["resumed"]


# --- settings -------------------------------------------------------------------------------------


def test_ranks_simulations_slots_and_checkpoints_may_change() -> None:
    before = small_study()
    after = changed(
        before,
        [
            "trainer.ranks=1", "ensemble.concurrent=3", "reservoir.capacity=70",
            "checkpoint.every_seconds=null",
        ],
    )  # fmt: skip
    check_changes(before, after)
    assert (after.trainer.ranks, after.reservoir.capacity) == (1, 70)


def test_a_number_is_read_as_in_a_study() -> None:
    with pytest.raises(ConfigError, match=r'trainer\.ranks="1_0": wrong type, must be a'):
        changed(small_study(), ["trainer.ranks=1_0"])


def test_nothing_else_may_change_and_both_values_are_told() -> None:
    before = small_study()
    after = changed(before, ["trainer.batch=5", "solver.dt=0.005", "trainer.ranks=1"])
    with pytest.raises(ConfigError) as refused:
        check_changes(before, after)
    first, second = refused.value.problems
    assert first.startswith("solver.dt=0.005: the study has begun with 0.01")
    assert second.startswith("trainer.batch=5: the study has begun with 4")


def test_a_wrong_change_is_refused_as_in_a_study() -> None:
    with pytest.raises(ConfigError, match=r"trainer.ranks=0"):
        changed(small_study(), ["trainer.ranks=0"])
    with pytest.raises(ConfigError, match="--set"):
        changed(small_study(), ["trainer"])


# --- members --------------------------------------------------------------------------------------


def test_a_member_has_completed_when_all_its_samples_are_stored() -> None:
    events = [
        {"event": "completed", "member": 4, "samples": 15},
        {"event": "completed", "member": 5, "samples": 21},
    ]
    stored = {2: 21, 3: 20, 4: 15, 5: 20}
    assert complete(stored, events, 21) == {2, 4}


def test_a_member_is_given_up_after_its_last_attempt_or_a_final_failure() -> None:
    events = [
        {"event": "failed", "member": 1, "attempt": 1, "reason": "a"},
        {"event": "lost", "member": 2, "attempt": 3, "reason": "b"},
        {"event": "failed", "member": 3, "attempt": 1, "reason": "c", "final": True},
        {"event": "failed", "member": 4, "attempt": 3, "reason": "d"},
        {"event": "completed", "member": 4, "samples": 21},
    ]
    assert given_up(events, 3) == (FailedMember(2, 3, "b"), FailedMember(3, 1, "c"))


def controller(completed: set[int], failed: list[FailedMember]) -> Controller:
    return Controller(
        validation=2,
        members=4,
        max_attempts=3,
        max_failed_fraction=0.5,
        completed=frozenset(completed),
        failures=failed,
    )


def test_members_that_were_completed_or_given_up_are_not_run_again() -> None:
    control = controller({0, 3}, [FailedMember(4, 3, "DIVERGED")])
    started = []
    for worker in range(6):
        decisions = control.handle(WorkerReady(worker), 0.0)
        started += [d.assignment.member for d in decisions if isinstance(d, Start)]
    assert started == [1, 2, 5]
    assert (control.counts.completed, control.counts.failed, control.counts.waiting) == (2, 1, 0)
    assert EndValidation() not in control.handle(TimePassed(), 0.0)


def test_a_study_of_which_all_members_are_over_ends_production_at_once() -> None:
    control = controller(set(range(5)), [FailedMember(5, 3, "DIVERGED")])
    assert control.handle(TimePassed(), 0.0) == [EndValidation(), BeginTraining(), EndProduction()]
    assert control.handle(TrainingEnded(), 1.0) == [Stop(None)]


# --- stopping -------------------------------------------------------------------------------------


def test_a_request_is_heard_once_and_only_when_somebody_listens() -> None:
    request = StopRequest()
    assert not request.refused
    heard = [(request.ask(), request.asked, request.refused)]
    request.listen()
    heard += [(request.ask(), request.asked, request.refused) for _ in range(2)]
    assert heard == [(False, False, True), (True, True, False), (False, True, True)]


def test_who_was_stopped_says_what_there_is_to_go_on_from() -> None:
    assert str(StudyStopped(40)).endswith("of train step 40")
    assert "no checkpoint" in str(StudyStopped(None))
