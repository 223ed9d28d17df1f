"""A whole study with real Ray, real PETSc, real sockets and real torch.distributed."""

import hashlib
import json
import signal
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.control.journal import read
from pipeline.errors import ConfigError, StudyFailed
from pipeline.run import StudyResult, run
from pipeline.stats.members import MemberTable
from pipeline.stats.stats import StudyStats
from tests.small_study import MEMBERS, NAME, STEPS, VALIDATION, small_study
from tests.strict import strict_json
from trainers.durable import json_text

pytestmark = pytest.mark.cluster

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, list[StudyStats]]:
    seen: list[StudyStats] = []
    out = tmp_path_factory.mktemp("study") / "run"
    return run(small_study(), out=out, source_text="name: small\n", observers=[seen.append]), seen


def test_every_sample_is_stored_once_and_drawn_at_least_once(
    finished: tuple[StudyResult, list[StudyStats]],
) -> None:
    summary = finished[0].summary
    assert summary.members_completed == MEMBERS + VALIDATION
    assert summary.members_failed == 0
    assert summary.samples_inserted == MEMBERS * STEPS
    assert summary.samples_unique == summary.samples_inserted
    assert summary.samples_drawn >= summary.samples_inserted
    assert summary.bytes_streamed == (MEMBERS + VALIDATION) * STEPS * 10 * 14 * 4


def test_every_rank_sees_every_member(finished: tuple[StudyResult, list[StudyStats]]) -> None:
    inserted = [reservoir.inserted for reservoir in finished[0].stats.reservoirs]
    assert sum(inserted) == MEMBERS * STEPS
    # 21 samples a member: ten for one rank, eleven for the other, turn about.
    assert abs(inserted[0] - inserted[1]) <= 1
    held = [reservoir.validation_held for reservoir in finished[0].stats.reservoirs]
    assert held == [VALIDATION * STEPS // 2] * 2


def test_the_run_directory_tells_what_happened(
    finished: tuple[StudyResult, list[StudyStats]],
) -> None:
    out = finished[0].out
    assert (out / "study.yaml").read_text() == "name: small\n"
    assert json.loads((out / "resolved.json").read_text())["name"] == NAME
    told = strict_json(json_text(finished[0].summary.as_json()))
    assert strict_json((out / "summary.json").read_text()) == told
    for path in [*out.rglob("*.json"), *out.glob("*.jsonl")]:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        assert all(strict_json(line) for line in lines), path
    events = list(read(out / "journal.jsonl"))
    completed = Counter(e["member"] for e in events if e["event"] == "completed")
    assert completed == Counter(range(MEMBERS + VALIDATION))
    starts = [event for event in events if event["event"] == "start"]
    assert [start["validation"] for start in starts[:VALIDATION]] == [True] * VALIDATION
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(finished[1])
    assert json.loads(lines[-1])["phase"] == "done"


def test_times_are_of_the_whole_study(finished: tuple[StudyResult, list[StudyStats]]) -> None:
    summary = finished[0].summary
    assert summary.first_step_seconds is not None
    # Ray, torch and the ranks take seconds to start; a time of the training loop alone would not.
    assert 2.0 < summary.first_step_seconds < summary.wall_seconds


def test_the_card_knows_its_study_and_what_it_cost(
    finished: tuple[StudyResult, list[StudyStats]],
) -> None:
    result = finished[0]
    card = result.surrogate().card
    study = card["study"]
    resolved = json.loads((result.out / "resolved.json").read_text())
    text = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
    assert study["hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert (study["name"], study["seed"], study["solver"]) == (NAME, 3, "heat")
    assert (study["members"], study["samples"]) == (MEMBERS, MEMBERS * STEPS)
    assert "# Surrogate of small" in (result.out / "model" / "card.md").read_text()
    summary = result.summary
    completed = [e for e in read(result.out / "journal.jsonl") if e["event"] == "completed"]
    assert summary.cost is not None
    assert summary.cost.solver_seconds >= sum(e["wall_seconds"] for e in completed)
    assert summary.cost.trainer_seconds == pytest.approx(2 * summary.wall_seconds, rel=0.1)
    solved = [e["solve_seconds"] for e in completed]
    assert summary.cost.member_seconds == pytest.approx(np.mean(solved), abs=1e-4)
    assert summary.query is not None
    assert card["query"] == asdict(summary.query)
    assert summary.query.snapshots == STEPS
    assert summary.breakeven is not None
    assert card["study"]["breakeven"] == asdict(summary.breakeven)
    costs = [stats.cost.solver_seconds for stats in finished[1]]
    assert costs == sorted(costs)


def test_errors_are_told_by_region(finished: tuple[StudyResult, list[StudyStats]]) -> None:
    summary = finished[0].summary
    assert {one.name for one in summary.errors_by_region} == {
        "initial", "west", "east", "south", "north",
    }  # fmt: skip
    for one in summary.errors_by_region:
        assert sum(each.members for each in one.ranges) == VALIDATION
    assert summary.one_step_spread is not None
    worst = max(each.max or 0.0 for each in summary.errors_by_region[0].ranges)
    assert worst == pytest.approx(summary.one_step_spread.max)
    assert [one.effect for one in summary.errors_by_region] == [None] * 5  # of two members


def test_the_surrogate_predicts_the_validation_members(
    finished: tuple[StudyResult, list[StudyStats]],
) -> None:
    result = finished[0]
    surrogate = result.surrogate()
    starts = [e for e in read(result.out / "journal.jsonl") if e["event"] == "start"]
    parameters = {start["member"]: start["parameters"] for start in starts}
    errors = []
    for rank in range(2):
        kept = np.load(result.out / "validation" / f"rank{rank}.npz")
        for row in range(len(kept["members"])):
            field = surrogate(parameters[int(kept["members"][row])], float(kept["times"][row]))
            np.testing.assert_allclose(field, kept["prediction"][row], atol=0.05)  # K
            errors.append(float(((field - kept["truth"][row]) ** 2).mean()))
    assert len(errors) == VALIDATION * STEPS
    assert result.summary.validation_mse == pytest.approx(np.mean(errors), rel=1e-3)


@pytest.mark.studies
def test_a_study_of_input_fields_on_a_coarse_grid_in_half_precision(tmp_run: Path) -> None:
    study = small_study(
        stream={
            "every": 3, "coarsen": 2, "dtype": "float16", "input_fields": ["temperature"],
        },
        ensemble={"members": 4, "validation": 1},
        reservoir={"capacity": 30, "watermark": 6},
        trainer={"ranks": 1},
    )  # fmt: skip
    result = run(study, out=tmp_run)
    assert result.summary.samples_inserted == 4 * (STEPS // 3)
    assert result.summary.bytes_streamed == 5 * (STEPS // 3) * 2 * 2 * (5 * 7)
    completed = [e for e in read(tmp_run / "journal.jsonl") if e["event"] == "completed"]
    assert all(0 < e["solve_seconds"] <= e["wall_seconds"] for e in completed)
    surrogate = result.surrogate()
    kept = np.load(tmp_run / "validation" / "rank0.npz")
    (start,) = [
        e for e in read(tmp_run / "journal.jsonl") if e["event"] == "start" and not e["member"]
    ]
    initial = np.full((5, 7), start["parameters"]["initial"], np.float16)
    field = surrogate(start["parameters"], kept["times"][2], {"initial_temperature": initial})
    np.testing.assert_allclose(field, kept["prediction"][2], atol=0.05)  # K
    assert kept["truth"].shape == (STEPS // 3, 1, 5, 7)


def test_a_killed_solver_costs_one_attempt_and_no_sample(tmp_run: Path) -> None:
    killed: list[int] = []

    def kill_one(stats: StudyStats) -> None:
        if killed or not sum(reservoir.inserted for reservoir in stats.reservoirs):
            return
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::_SolverHost.run"):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

    # More samples than slots: members are under way until the trainer has started.
    study = small_study(
        solver={"grid": [20, 30], "steps": 100}, ensemble={"members": 6, "validation": 0}
    )
    result = run(study, out=tmp_run, observers=[kill_one])
    assert len(killed) == 1
    lost = [event for event in read(tmp_run / "journal.jsonl") if event["event"] == "lost"]
    assert [event["attempt"] for event in lost] == [1]
    assert result.summary.members_completed == 6
    assert result.summary.samples_inserted == 6 * 100
    assert result.summary.samples_unique == 6 * 100
    assert result.stats.members.retries == 1


@pytest.mark.studies
def test_a_trainer_that_stops_early_ends_the_study_and_its_simulations(tmp_run: Path) -> None:
    # Hours of simulations, if nobody ended them; the error never falls by so much.
    study = small_study(
        solver={"grid": [20, 30], "steps": 100},
        ensemble={"members": 10_000},
        trainer={"early_stop": {"patience": 2, "min_delta": 1e9}, "validate_every": 10},
    )
    result = run(study, out=tmp_run)
    assert result.summary.members_completed < 1000
    assert result.stats.members.running >= 1
    (note,) = result.summary.notes
    assert note.startswith(f"stopped early at train step {result.summary.train_steps}: in 2")
    events = list(read(tmp_run / "journal.jsonl"))
    assert [event["text"] for event in events if event["event"] == "note"] == [note]
    assert events[-1]["event"] == "end"
    assert events[-1]["reason"] is None
    assert result.stats.phase == "done"
    assert result.surrogate().card["train_steps"] == result.summary.train_steps
    assert list(SHARED_MEMORY.glob(f"headrace-{NAME}-*")) == []


def test_a_study_that_cannot_succeed_fails_with_the_reason_and_leaves_nothing(
    tmp_run: Path,
) -> None:
    # One iteration without a preconditioner cannot converge: every member fails.
    study = small_study(
        solver={"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1 -ksp_rtol 1e-12"},
        ensemble={"max_failed_fraction": 0.2},
    )
    with pytest.raises(StudyFailed, match=r"members failed.*DIVERGED_ITS"):
        run(study, out=tmp_run)
    assert list(SHARED_MEMORY.glob(f"headrace-{NAME}-*")) == []
    failed = [event for event in read(tmp_run / "journal.jsonl") if event["event"] == "failed"]
    assert len(failed) >= 3
    assert list(read(tmp_run / "journal.jsonl"))[-1]["event"] == "end"


def test_a_folder_that_holds_another_study_is_refused_before_anything_starts(
    tmp_run: Path,
) -> None:
    tmp_run.mkdir()
    (tmp_run / "resolved.json").write_text("{}")
    with pytest.raises(ConfigError, match="already holds another study"):
        run(small_study(), out=tmp_run)
    assert [path.name for path in tmp_run.iterdir()] == ["resolved.json"]


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("ray::_ReservoirHost", "a reservoir cannot go on"),
        ("ray::_RankHost.train", r"trainer: rank [01]: .*died"),  # and not: connection closed
    ],
)
def test_a_killed_part_ends_the_study_with_a_reason(tmp_run: Path, title: str, reason: str) -> None:
    killed: list[int] = []

    def kill_one(stats: StudyStats) -> None:
        if killed:
            return
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith(title):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

    study = small_study(ensemble={"members": 100})  # there is still much to do
    with pytest.raises(StudyFailed, match=reason):
        run(study, out=tmp_run, observers=[kill_one])
    assert len(killed) == 1
    assert list(SHARED_MEMORY.glob(f"headrace-{NAME}-*")) == []
    assert list(read(tmp_run / "journal.jsonl"))[-1]["event"] == "end"


@pytest.mark.studies
def test_a_surrogate_that_steps_is_measured_by_its_rollouts(tmp_run: Path) -> None:
    study = small_study(
        stream={"initial_state": True},
        trainer={"task": {"kind": "delta", "trajectory": 4, "stride": 2}},
    )
    result = run(study, out=tmp_run)
    samples = (STEPS + 1 - 4) // 2 + 1
    assert result.summary.samples_inserted == MEMBERS * samples
    validation = result.stats.ranks[0].validation
    assert validation is not None
    assert validation.rollout is not None
    table = MemberTable.newest(tmp_run / "validation.jsonl")
    assert set(table.rollout) == set(range(VALIDATION))
    surrogate = result.surrogate()
    for rank in range(2):  # whole members: each on the rank that its number says
        kept = np.load(tmp_run / "validation" / f"rank{rank}.npz")
        assert kept["members"].tolist() == [rank] * (2 * samples + 1)
        start = next(
            event
            for event in read(tmp_run / "journal.jsonl")
            if event["event"] == "start" and event["member"] == rank
        )
        initial = np.full((1, 1, 10, 14), start["parameters"]["initial"])
        rollout = surrogate.rollout(start["parameters"], initial, steps=len(kept["members"]))
        np.testing.assert_allclose(rollout, kept["prediction"], atol=0.05)  # K
        error = float(np.sqrt(np.mean((rollout - kept["truth"]) ** 2, dtype=np.float64)))
        assert error / table.std[0] == pytest.approx(table.rollout[rank][0], rel=1e-3)
