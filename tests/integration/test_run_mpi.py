"""A whole study whose members have two mpi_ranks each, with real kills in the middle."""

import re
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from pipeline.control.journal import read
from pipeline.run import run
from pipeline.stats.stats import StudyStats
from tests.small_study import VALIDATION, small_study

pytestmark = [pytest.mark.cluster, pytest.mark.petsc]

MEMBERS, STEPS = 5, 100


def ranks_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if (
                process.cmdline()[-2:] == ["-m", "pipeline.members.mpi_rank"]
                and len(process.cmdline()) == 5
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.studies
def test_killed_mpi_ranks_and_actors_cost_attempts_and_no_sample(tmp_run: Path) -> None:
    """Every sample is stored once, whatever was killed, and nothing of a group is left."""
    killed: list[str] = []
    groups: dict[int, psutil.Process] = {}
    files: set[Path] = set()

    def kill(stats: StudyStats) -> None:
        children = psutil.Process().children(recursive=True)
        ranks = ranks_of(children)
        for process in ranks:
            groups[process.pid] = process
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            files.update(map(Path, re.findall(r"/dev/shm/mpich_shm_\w+", maps)))
            files.add(Path(process.environ()["HEADRACE_ACTOR"]).parent)
        if len(killed) == 2 or not sum(each.inserted for each in stats.reservoirs) or not ranks:
            return
        if not killed:
            ranks[-1].send_signal(signal.SIGKILL)
            killed.append("mpi_rank")
            return
        if not any(event["event"] == "failed" for event in read(tmp_run / "journal.jsonl")):
            return  # or the actor to be killed might be the one that has lost its mpi_rank
        for process in children:
            if process.name().startswith("ray::_SolverHost.run"):
                process.send_signal(signal.SIGKILL)
                killed.append("actor")
                return

    # More samples than slots: members are under way until the trainer has started.
    study = small_study(
        solver={"grid": [20, 30], "steps": STEPS},
        ensemble={"members": MEMBERS, "mpi_ranks": 2},
        reservoir={"capacity": 100},
    )
    result = run(study, out=tmp_run, observers=[kill])
    assert killed == ["mpi_rank", "actor"]
    events = list(read(tmp_run / "journal.jsonl"))
    failed = [event for event in events if event["event"] == "failed"]
    assert [len(failed), sum(event["event"] == "lost" for event in events)] == [1, 1]
    assert re.search(r"(mpi_rank . is gone|mpiexec has ended).*last output: ", failed[0]["reason"])
    completed = Counter(e["member"] for e in events if e["event"] == "completed")
    assert completed == Counter(range(MEMBERS + VALIDATION))
    assert {e["samples"] for e in events if e["event"] == "completed"} == {STEPS}
    summary = result.summary
    assert summary.samples_inserted == summary.samples_unique == MEMBERS * STEPS
    held = [reservoir.validation_held for reservoir in result.stats.reservoirs]
    assert sum(held) == VALIDATION * STEPS
    assert len(groups) >= 2 * 3  # the last group is replaced only if a member is left for it
    _, alive = psutil.wait_procs(list(groups.values()), timeout=60.0)
    assert alive == []
    assert not [path for path in files if path.exists()]
