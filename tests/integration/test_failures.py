"""Real kills, stops and diverging members in the middle of a study, and a lost node."""

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from pipeline.control.journal import read
from pipeline.run import run
from pipeline.stats.stats import StudyStats
from tests.integration.test_run_mpi import ranks_of
from tests.small_study import VALIDATION, small_study

pytestmark = [pytest.mark.cluster, pytest.mark.petsc, pytest.mark.slow]

MEMBERS, STEPS = 6, 100
# More samples than slots: members are under way until the trainer has started.
STUDY: dict[str, dict[str, Any]] = {
    "solver": {"grid": [20, 30], "steps": STEPS},
    "reservoir": {"capacity": 100},
}


def solvers() -> list[psutil.Process]:
    """Processes of SolverActors that run a member."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if each.name().startswith("ray::_SolverHost.run")]


def mpi_ranks() -> list[psutil.Process]:
    return ranks_of(psutil.Process().children(recursive=True))


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read(folder / "journal.jsonl") if event["event"] == name]


@pytest.mark.parametrize(
    ("find", "mpi", "concurrent", "seconds"),
    [(solvers, 1, 2, 8), (mpi_ranks, 2, 1, 40)],  # mpi_ranks spin while they wait for each other
    ids=["actor", "mpi_rank"],
)
def test_what_hangs_is_ended_and_tried_again(
    find: Callable[[], list[psutil.Process]], mpi: int, concurrent: int, seconds: int, tmp_run: Path
) -> None:
    stopped: list[psutil.Process] = []

    def stop_one(stats: StudyStats) -> None:
        if stopped or stats.members.completed < VALIDATION + 1:
            return
        found = find()
        if found:
            found[-1].send_signal(signal.SIGSTOP)
            stopped.append(found[-1])

    # Until the trainer has started the solvers wait for it, for longer than the limit: if that was
    # held against them, members would fail for good.
    study = small_study(
        **STUDY,
        ensemble={
            "members": MEMBERS, "mpi_ranks": mpi, "concurrent": concurrent,
            "member_timeout": float(seconds), "max_attempts": 2, "max_failed_fraction": 0,
        },
    )  # fmt: skip
    result = run(study, out=tmp_run, observers=[stop_one])
    assert len(stopped) == 1
    _, alive = psutil.wait_procs(stopped, timeout=60.0)
    assert alive == []
    replaced, lost = events(tmp_run, "replace"), events(tmp_run, "lost")
    assert len(replaced) == len(lost) >= 1
    assert f"member_timeout={seconds} s" in str(replaced[0]["reason"])
    assert result.summary.samples_inserted == result.summary.samples_unique == MEMBERS * STEPS


def test_a_failed_member_is_followed_by_another_with_other_parameters(tmp_run: Path) -> None:
    # One iteration is enough where everything has the same temperature, and nowhere else.
    study = small_study(
        solver={"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1 -ksp_rtol 1e-9"},
        parameters={
            "initial": {"constant": 300},
            **{side: {"constant": 300} for side in ("west", "east", "south")},
            "north": {"values": [300, 400]},
        },
        ensemble={"members": 5, "validation": 0, "on_failure": "redraw", "max_failed_fraction": 1},
        reservoir={"capacity": 40, "watermark": 4},
        trainer={"ranks": 1},
    )
    result = run(study, out=tmp_run)
    assert result.summary.members_completed == 5
    failed = events(tmp_run, "failed")
    assert failed
    assert {event["attempt"] for event in failed} == {1}  # the same parameters would fail again
    assert all("DIVERGED_ITS" in str(event["reason"]) for event in failed)
    again = [event for event in events(tmp_run, "start") if "instead_of" in event]
    assert [event["instead_of"] for event in again] == [event["member"] for event in failed]
    completed = {event["member"] for event in events(tmp_run, "completed")}
    for event in events(tmp_run, "start"):
        north = event["parameters"]["north"]
        assert north == (300 if event["member"] in completed else 400)
    assert result.stats.members.redrawn == result.summary.members_failed == len(failed)


@pytest.mark.parametrize("room", [True, False], ids=["room elsewhere", "no room elsewhere"])
def test_a_lost_node_costs_attempts_and_no_sample(
    room: bool, tmp_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second node runs solvers alone; they, or those that are left, go on beside the ranks."""
    monkeypatch.setattr("pipeline.actors.driver.RESTART_SECONDS", 60.0 if room else 1.0)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    head = {"num_cpus": 5 if room else 4, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": 10**8})
    lost: list[str] = []
    try:
        second = cluster.add_node(num_cpus=2 if room else 1, object_store_memory=10**8)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

        def remove(stats: StudyStats) -> None:
            waiting = {member for each in stats.reservoirs for member in each.waiting_members}
            # All three run; and the ranks have their CPUs, which nobody else may take then.
            if not lost and len(waiting) == 3 and (room or stats.ranks):
                lost.append(second.node_id)
                cluster.remove_node(second, allow_graceful=False)

        study = small_study(**STUDY, ensemble={"members": 4 * MEMBERS, "concurrent": 3})
        result = run(study, out=tmp_run, observers=[remove])
    finally:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert len(lost) == 1
    assert events(tmp_run, "lost")
    completed = Counter(event["member"] for event in events(tmp_run, "completed"))
    assert completed == Counter(range(4 * MEMBERS + VALIDATION))
    assert result.summary.samples_inserted == result.summary.samples_unique == 4 * MEMBERS * STEPS
