"""Who may be hit by a fault, and that nothing else is."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.drill.plan import Kind
from deploy.drill.victims import Running as Process
from deploy.drill.victims import descendants, hit, no_room, running, victims


def process(pid: int, *command: str, parent: int = 1) -> Process:
    return Process(pid=pid, parent=parent, command=command)


# As they were seen in a study, with one thread of each thing that may be confused with another.
STUDY = [
    process(10, "python", "-P", "-c", "from deploy.cli import main; main()"),
    process(11, "/ray/raylet", "--x=1"),
    process(12, "ray::_SolverHost.run"),
    process(13, "ray::_SolverHost"),
    process(14, "ray::_ReservoirHost.lease"),
    process(15, "ray::_RankHost.train"),
    process(20, "python", "-I", "-S", "/h/solvers/leash.py", "/tmp/a", "mpiexec", "-n", "2"),
    process(
        21, "mpiexec", "-n", "2", "python", "-X", "faulthandler", "-m", "pipeline.members.mpi_rank",
        parent=20,
    ),
    process(22, "/usr/bin/hydra_pmi_proxy", "--rmk", "user", parent=21),
    process(24, "python", "-X", "faulthandler", "-m", "pipeline.members.mpi_rank", parent=22),
    process(23, "python", "-X", "faulthandler", "-m", "pipeline.members.mpi_rank", parent=22),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "pids"),
    [
        ("solver", [12]),
        ("hung", [12]),
        ("reservoir", [14]),
        ("trainer_rank", [15]),
        ("mpi_rank", [23, 24]),
        ("program", [21]),
        ("disk", [14, 15]),
    ],
)
def test_a_victim_is_known_by_its_command(kind: Kind, pids: list[int]) -> None:
    assert victims(kind, STUDY) == pids


@pytest.fixture
def sleeping() -> Iterator[psutil.Process]:
    """A child of ours whose own child has a title of Ray's."""
    program = (
        "import subprocess, sys, time;"
        "subprocess.Popen(['ray::_SolverHost.run', '-c', 'import time; time.sleep(60)'],"
        " executable=sys.executable);"
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    yield psutil.Process(child.pid)
    for each in descendants(child.pid):
        each.kill()
    child.kill()
    child.wait()


def test_descendants_of_the_study_alone_are_looked_at_and_hit(sleeping: psutil.Process) -> None:
    deadline = time.monotonic() + 50.0
    while not victims("solver", running(descendants(sleeping.pid))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (target,) = descendants(sleeping.pid)
    assert victims("solver", running([sleeping])) == []
    hit("hung", target)
    while target.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    hit("solver", target)
    gone = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    while target.is_running() and target.status() not in gone:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_gone_has_no_descendants_and_is_not_hit(sleeping: psutil.Process) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = psutil.Process(child.pid)
    child.communicate()
    assert descendants(gone.pid) == []
    assert running([gone]) == []
    hit("solver", gone)
    with no_room([gone]):
        pass
    assert sleeping.is_running()


def test_what_has_ended_and_was_not_waited_for_is_no_victim() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    try:
        process = psutil.Process(ended.pid)
        deadline = time.monotonic() + 10.0
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert running([process]) == []
    finally:
        ended.wait(timeout=10.0)


def test_without_room_files_stay_short_and_afterwards_grow_again(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        with open(sys.argv[1], 'wb', buffering=0) as file:\n"
        "            while file.tell() < 5000: file.write(bytes(500))\n"
        "        print('written', flush=True)\n"
        "    except OSError as error:\n"
        "        print(error.strerror, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def answer() -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    assert answer() == "written"
    with no_room([psutil.Process(child.pid)]):
        assert answer() == "File too large"
        assert (tmp_path / "file").stat().st_size == 1024
    assert answer() == "written"
    child.communicate()
