"""A study that is stopped from outside leaves no process and no shared memory behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.control.journal import read
from pipeline.slots.shared_files import remove_stale
from tests.small_study import small_study

pytestmark = pytest.mark.cluster

PROGRAM = Path(sys.executable).with_name("headrace")
START_SECONDS = 90.0
END_SECONDS = 60.0
# A worker that Ray was just starting, idle or not, is still called ``python`` and lives until it
# gives up to reach its raylet: 25 s on two quiet cores.
ORPHAN_SECONDS = 120.0
POLL_SECONDS = 0.1


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study that would run for a long time."""
    tree = small_study(solver={"steps": 500}, ensemble={"members": 5000, "validation": 0}).as_json()
    tree["name"] = f"stopped-{os.getpid()}"
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def running(
    study: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """The program, in a process group of its own as in a terminal, once a member has ``begun``.

    With the parameter ``"completed"`` it is further: the reservoirs are small, so that no member
    can be completed before the ranks train.
    """
    begun = getattr(request, "param", "start")
    process = subprocess.Popen(
        [PROGRAM, "run", study, "--out", tmp_path / "run"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + START_SECONDS
    journal = tmp_path / "run" / "journal.jsonl"
    while not (journal.exists() and any(e["event"] == begun for e in read(journal))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no member reached {begun!r} in time"
        time.sleep(POLL_SECONDS)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()
    remove_stale(prefix=f"headrace-stopped-{os.getpid()}-")  # where a test failed half-way


def shared_memory() -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").glob(f"headrace-stopped-{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("running", "number", "status"),
    [("completed", signal.SIGINT, 130), ("start", signal.SIGTERM, 143)],
    indirect=["running"],
    ids=["Ctrl-C in training", "SIGTERM at the start"],
)
def test_a_stopped_study_leaves_nothing_behind(
    running: subprocess.Popen[str], number: int, status: int
) -> None:
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(shared_memory()) == 2
    assert len(children) > 4
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # a terminal sends it to everybody
    else:
        running.send_signal(number)
    output, _ = running.communicate(timeout=END_SECONDS)
    assert running.returncode == status, output
    assert "Traceback" not in output
    assert shared_memory() == []
    _, alive = psutil.wait_procs(children, timeout=60.0)
    assert alive == []


# Ray's own agents notice a killed raylet only after about a minute; they hold nothing of ours. One
# that still starts is named after its interpreter: its command says what it is.
AGENTS = (
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "dashboard/agent.py",
    "runtime_env/agent/main.py",
)


def is_agent(command: str) -> bool:
    return any(agent in command for agent in AGENTS)


def test_a_killed_driver_takes_everything_with_it(running: subprocess.Popen[str]) -> None:
    commands = {}
    for child in psutil.Process(running.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # gone, or nobody has waited for it
            command = " ".join([child.name(), *child.cmdline()])
            if not is_agent(command):
                commands[child] = command
    children = list(commands)
    for actor in ("ray::_ReservoirHost", "ray::_SolverHost"):
        assert any(child.name().startswith(actor) for child in children)
    running.kill()
    running.communicate(timeout=END_SECONDS)
    _, alive = psutil.wait_procs(children, timeout=ORPHAN_SECONDS)
    assert [commands[child] for child in alive] == []
    # Nobody was left to remove it; the next study does, or `headrace clean`.
    assert len(shared_memory()) == 2
    cleaned = subprocess.run([PROGRAM, "clean"], capture_output=True, text=True, check=True)
    assert cleaned.stdout.count(f"removed headrace-stopped-{os.getpid()}-") == 2
    assert shared_memory() == []
