"""The promises of tests/conftest.py, in small test runs of their own."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from jaxtyping import TypeCheckError

from trainers.base import Lease

pytestmark = pytest.mark.xdist_group("stale files in /dev/shm")


Run = Callable[..., subprocess.CompletedProcess[str]]
SAY_SO = ("CI", "HEADRACE_REQUIRE_ALL")


@pytest.fixture
def run(project: Path, tmp_path: Path) -> Run:
    """Runs the body of one test under a copy of the conftest, with little patience at the end."""
    text = (project / "tests" / "conftest.py").read_text()
    assert "GRACE_SECONDS = 10.0" in text
    (tmp_path / "conftest.py").write_text(
        text.replace("GRACE_SECONDS = 10.0", "GRACE_SECONDS = 0.3")
    )
    kept = {key: value for key, value in os.environ.items() if key not in SAY_SO}

    def run_body(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
        body = "\n".join(f"    {line}" for line in lines)
        (tmp_path / "test_it.py").write_text(f"def test_it(require_tool):\n{body}\n")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "test_it.py"],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": f"{project}:{project / 'tests'}"} | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_body


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where a test run writes the numbers of the processes that it leaves behind."""
    path = tmp_path / "pids"
    yield path
    for pid in path.read_text().split():
        psutil.Process(int(pid)).kill()


@pytest.fixture
def shared_file() -> Iterator[Path]:
    """A file in shared memory with our prefix, taken away in the end."""
    path = Path(f"/dev/shm/headrace-of-a-test-{os.getpid()}")
    yield path
    path.unlink()


def test_what_is_left_behind_fails_the_run(run: Run, pids: Path, shared_file: Path) -> None:
    done = run(
        "import subprocess",
        f"open({str(shared_file)!r}, 'w').close()",
        "child = subprocess.Popen(['sleep', '59'])",
        f"subprocess.run(['sh', '-c', 'setsid sleep 58 & echo $! {{}} >{pids}'.format(child.pid)])",
    )
    assert done.returncode != 0
    message = next(line for line in done.stdout.splitlines() if "left behind" in line)
    for what in ("sleep 59", "sleep 58", shared_file.name):
        assert what in message


def test_a_clean_run_passes_beside_another_study_and_says_what_it_skips(
    run: Run, shared_file: Path
) -> None:
    with shared_file.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run("require_tool('sh', 'env')", "require_tool('sh', 'squirrelctl')")
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "not installed here: squirrelctl; see .ci/run for the packages" in done.stdout


@pytest.mark.parametrize("variable", SAY_SO)
def test_a_missing_tool_fails_where_everything_must_run(run: Run, variable: str) -> None:
    done = run("require_tool('squirrelctl')", **{variable: "1"})
    assert done.returncode != 0
    assert "not installed here: squirrelctl" in done.stdout


def test_array_shapes_are_checked_during_tests() -> None:
    with pytest.raises(TypeCheckError, match="indices"):
        Lease(id=3, indices=np.zeros(7, np.int64), finished=False)
