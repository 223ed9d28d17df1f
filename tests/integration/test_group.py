"""Members on a real mpiexec group, real sockets, real kills; without Ray."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.store_rig import turning
from pipeline.errors import GroupFailed
from pipeline.members import mpiexec
from pipeline.members.attempt import Assignment
from pipeline.members.group import Group
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from solvers.base import SolverFailed
from tests.integration.test_stream import KEYS, Node, Nodes, wait_until
from tests.small_study import STEPS, small_study

pytestmark = pytest.mark.petsc

SLOTS = 100
MANY = 150  # solver steps
END_SECONDS = 10.0
RANK = ["-X", "faulthandler", "-m", "pipeline.members.mpi_rank"]


def study(**sections: dict[str, object]) -> StudyConfig:
    ensemble = {"mpi_ranks": 2} | sections.pop("ensemble", {})
    return small_study(reservoir={"capacity": SLOTS}, ensemble=ensemble, **sections)


def values(of: StudyConfig, member: int) -> dict[str, float]:
    return dict(design_of(of).values(member))


def attempt(member: int, number: int = 1) -> Assignment:
    return Assignment(member=member, attempt=number, validation=False)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    nodes = Nodes(tmp_path)
    with nodes.stack:
        yield nodes.start(layout=study().sample_layout(), capacity=SLOTS)


@pytest.fixture
def group(node: Node) -> Iterator[Callable[..., Group]]:
    with contextlib.ExitStack() as stack:

        def start(of: StudyConfig | None = None, **settings: float) -> Group:
            made = Group(study() if of is None else of, [node.endpoint], KEYS, **settings)
            stack.callback(made.close)
            made.start()
            return made

        yield start


@dataclass
class Traces:
    """The processes of all groups of a process, and the files that these could leave."""

    processes: list[psutil.Process]
    ranks: list[psutil.Process]
    files: set[Path]

    @classmethod
    def of(cls, process: psutil.Process) -> "Traces":
        processes = process.children(recursive=True)
        ranks = [p for p in processes if p.cmdline()[1:] == RANK]
        sockets = {Path(p.environ()["HEADRACE_ACTOR"]).parent for p in ranks}
        maps = "".join(Path(f"/proc/{p.pid}/maps").read_text() for p in ranks)
        shared = {Path(path) for path in re.findall(r"/dev/shm/mpich_shm_\w+", maps)}
        assert shared
        topology = {p.environ().get("HYDRA_TOPOLIB") for p in ranks}
        assert topology == {"none"}  # or each killed group leaves /tmp/hydra_hwloc_xmlfile_XXXXXX
        return cls(processes, ranks, sockets | shared)

    def victim(self, who: str) -> psutil.Process:
        proxy = self.ranks[0].parent()
        assert proxy is not None
        launcher = proxy.parent()
        assert launcher is not None
        leash = launcher.parent()
        assert leash is not None
        assert "leash" in " ".join(leash.cmdline())
        return {"mpi_rank": self.ranks[1], "mpiexec": launcher, "leash": leash}[who]

    def assert_gone(self) -> None:
        _, alive = psutil.wait_procs(self.processes, timeout=END_SECONDS)
        assert alive == []
        assert not [path for path in self.files if path.exists()]


def trainer(node: Node) -> contextlib.AbstractContextManager[None]:
    """Draws, so that slots can be used again."""

    def draw() -> None:
        with node.lock:
            node.book.give_back(node.book.lease(2, 5).id)

    return turning(draw, node.receiver.wake)


def check_whole(node: Node, of: StudyConfig, member: int) -> None:
    """Every sample of the member lies in a slot once and is what one process computes."""
    from solvers import petsc, registry

    solver = registry.build(of.solver)
    stored = node.stored()
    for snapshot in solver.run(values(of, member), petsc.self_communicator()):
        if snapshot.step > 0:
            slot = stored[member, snapshot.step]
            np.testing.assert_allclose(node.slots.fields[slot, 0], snapshot.fields, rtol=2e-6)
    solver.close()
    assert sum(key[0] == member for key in stored) == STEPS


def test_parts_of_all_mpi_ranks_become_whole_samples(
    node: Node, group: Callable[..., Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Inside a Slurm job mpiexec would start the ranks with srun, on any of its nodes.
    for name, value in {"JOB_ID": "7", "NNODES": "1", "NODELIST": "elsewhere"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    of = study()
    running, traces = group(of), Traces.of(psutil.Process())
    for member in (0, 4):
        report = running.run(attempt(member), values(of, member))
        assert (report.member, report.samples) == (member, STEPS)
        assert report.bytes_sent == STEPS * of.sample_bytes
        check_whole(node, of, member)
    assert node.book.inserted == 2 * STEPS
    ranks = traces.ranks
    assert len(ranks) == 2
    said = " ".join(" ".join([*p.cmdline(), *p.environ().values()]) for p in ranks)
    assert KEYS.client_secret.decode() not in said
    assert {p.environ()["OMP_NUM_THREADS"] for p in ranks} == {"1"}
    assert {p.nice() for p in ranks} == {psutil.Process().nice()}
    running.close()
    traces.assert_gone()


def test_mpi_ranks_that_have_nothing_to_do_sleep(group: Callable[..., Group]) -> None:
    running = group()
    of = study()
    running.run(attempt(0), values(of, 0))
    ranks = Traces.of(psutil.Process()).ranks
    before = [p.cpu_times().user + p.cpu_times().system for p in ranks]
    time.sleep(1.0)
    after = [p.cpu_times().user + p.cpu_times().system for p in ranks]
    assert all(b - a < 0.5 for a, b in zip(before, after, strict=True)), (before, after)
    # One that waits for a core to go back to sleep on does not count: one that spins never sleeps.
    for _ in range(100):
        states = {p.status() for p in ranks}
        if states == {psutil.STATUS_SLEEPING}:
            return
        time.sleep(0.02)
    raise AssertionError(states)


def test_a_diverging_member_fails_alone_and_its_group_goes_on(
    node: Node, group: Callable[..., Group]
) -> None:
    of = study()
    running = group(of)
    ranks = Traces.of(psutil.Process()).ranks
    with pytest.raises(SolverFailed, match="west=1e\\+33 K: not a finite number"):
        running.run(attempt(1), values(of, 1) | {"west": 1e33})
    running.run(attempt(2), values(of, 2))
    assert Traces.of(psutil.Process()).ranks == ranks
    check_whole(node, of, 2)
    assert node.book.inserted == STEPS


def test_a_solve_that_diverges_is_told_by_all_mpi_ranks(group: Callable[..., Group]) -> None:
    of = study(solver={"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1 -ksp_rtol 1e-12"})
    running = group(of)
    ranks = Traces.of(psutil.Process()).ranks
    for member in (1, 2):
        with pytest.raises(SolverFailed, match="DIVERGED_ITS"):
            running.run(attempt(member), values(of, member))
    assert Traces.of(psutil.Process()).ranks == ranks


def test_mpi_ranks_that_hang_after_a_failure_are_killed_and_the_failure_is_told(
    node: Node, group: Callable[..., Group]
) -> None:
    of = study()
    running = group(of, grace_seconds=0.5)
    traces = Traces.of(psutil.Process())
    traces.ranks[1].suspend()  # as if it hung in PETSc
    with pytest.raises(SolverFailed, match="west"):
        running.run(attempt(1), values(of, 1) | {"west": 1e33})
    traces.assert_gone()
    running.run(attempt(2), values(of, 2))
    check_whole(node, of, 2)


@pytest.mark.parametrize("who", ["mpi_rank", "mpiexec", "leash"])
def test_a_group_that_loses_a_process_is_replaced_and_no_sample_is_lost_or_doubled(
    node: Node, group: Callable[..., Group], who: str
) -> None:
    of = study(solver={"steps": MANY})  # more than slots: it cannot end before the trainer starts
    running = group(of)
    traces = Traces.of(psutil.Process())

    def kill() -> None:
        wait_until(lambda: node.intake.samples >= 30)
        traces.victim(who).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    reason = "(mpi_rank . is gone|mpiexec has ended).*; last output: "
    with pytest.raises(GroupFailed, match=reason) as caught:
        running.run(attempt(3), values(of, 3))
    killer.join()
    assert "\n" not in str(caught.value)
    traces.assert_gone()
    with node.lock:
        node.intake.forget_incomplete(3, attempt=1)
    with trainer(node):
        assert running.run(attempt(3, 2), values(of, 3)).samples == MANY
    assert node.book.inserted == MANY
    assert node.intake.stats(0.0).duplicates >= 30


def test_nothing_is_left_when_the_actors_process_is_killed(node: Node, project: Path) -> None:
    code = (
        "import pickle, sys; from dataclasses import replace;"
        "from tests.integration.test_group import *;"
        "of = study(solver={'steps': MANY});"
        "endpoint = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "made = Group(of, [endpoint], replace(KEYS, study=int(sys.argv[2])));"
        "print('started', flush=True); made.run(attempt(0), values(of, 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, pickle.dumps(node.endpoint).hex(), str(KEYS.study)],
        cwd=project, stdout=subprocess.PIPE, text=True,
        env=dict(os.environ) | {"PYTHONPATH": f"{project}:{project}/tests"},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            wait_until(lambda: node.intake.samples >= 30)
            traces = Traces.of(psutil.Process(process.pid))
            assert len(traces.ranks) == 2
        finally:
            process.send_signal(signal.SIGKILL)
    traces.assert_gone()


def test_what_keeps_a_group_from_starting_is_told(
    group: Callable[..., Group], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(GroupFailed, match=r"ValueError: petsc_options='-ksp_tipe cg'"):
        group(study(solver={"petsc_options": "-ksp_tipe cg"}))
    with pytest.raises(GroupFailed, match="0 of 2 mpi_ranks have started in time"):
        group(start_seconds=0.05)
    launcher = tmp_path / "mpiexec"
    launcher.touch(mode=0o755)
    monkeypatch.setattr(mpiexec, "find_mpiexec", lambda path: str(launcher))
    launcher.write_text('#!/bin/sh\nshift 2; "$@" & "$@" & wait\n')
    with pytest.raises(GroupFailed, match="started processes that know of 1"):
        group()
    launcher.write_text("#!/bin/sh\necho no licence; exit 3\n")
    with pytest.raises(GroupFailed, match="mpiexec has ended, status 3; last output: no licence"):
        group()
    assert list(folder.iterdir()) == []
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(GroupFailed, match="last output: no licence"):
        group()  # its socket lay in a shorter folder
    assert list(long.iterdir()) == []


def test_a_missing_mpiexec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(GroupFailed, match="none beside /nowhere/python or on PATH"):
        mpiexec.find_mpiexec("/nowhere")
