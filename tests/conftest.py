"""What every test relies on: checked array types, tools that may be missing, nothing left behind.

1. Shapes and types of annotated functions are checked during tests, and only there.
2. A missing tool skips the tests that need it, with a line that says how to get it; where all must
   run (``HEADRACE_REQUIRE_ALL=1`` or ``CI=true``) it fails them instead.
3. Files are tested in two processes, but for tests that start Ray or Slurm: these run alone.
4. At the end of a test run no process of it is left, and no ``/dev/shm/headrace-*`` file.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import psutil
import pytest
from jaxtyping import install_import_hook

# Before the first import of a checked package, or that module stays unchecked.
install_import_hook(["solvers", "pipeline", "trainers"], "checked_types.checked")

# No deadline for one example: how long it takes says more about the machine than about the code.
hypothesis.settings.register_profile("headrace", deadline=None, print_blob=True)
hypothesis.settings.load_profile("headrace")

# Programs of the environment, activated or not; daemons, where Debian keeps them.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
)

SHARED_MEMORY = Path("/dev/shm")
GRACE_SECONDS = 10.0
MARK = "HEADRACE_TEST_SESSION"  # in the environment of everything that a test starts
PROJECT = Path(__file__).resolve().parent.parent


def _everything_must_run() -> bool:
    said = [os.environ.get(name, "").lower() for name in ("HEADRACE_REQUIRE_ALL", "CI")]
    return any(value not in ("", "0", "false") for value in said)


def _unavailable(reason: str) -> NoReturn:
    if _everything_must_run():
        pytest.fail(f"{reason} (HEADRACE_REQUIRE_ALL or CI is set: no skipping)", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone; of two processes each takes whole files (``--dist loadgroup``)."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ("cluster", "slurm", "studies")):
            item.add_marker(pytest.mark.alone)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """Call it with a reason where a test cannot run here: skips, or fails where all must run."""
    return _unavailable


@pytest.fixture(scope="session")
def require_tool() -> Callable[..., None]:
    """``require_tool("sbatch", "munged")`` at the top of a test or fixture that runs programs."""

    def require(*names: str) -> None:
        missing = [name for name in names if shutil.which(name) is None]
        if missing:
            _unavailable(f"not installed here: {', '.join(missing)}; see .ci/run for the packages")

    return require


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture
def tmp_run(tmp_path: Path) -> Path:
    """A run directory that does not exist yet, as ``--out`` wants it."""
    return tmp_path / "run"


def _processes() -> dict[int, str]:
    """Children of this process, dead ones that nobody waited for included, and every process that
    has inherited this session's mark, whoever its parent is by now."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marked = process.pid in ours or process.environ().get(MARK) == os.environ[MARK]
            command = " ".join(process.cmdline())
            if marked and "multiprocessing.resource_tracker" not in command:
                found[process.pid] = f"{process.pid} {process.status()} {command}"
    found.pop(os.getpid(), None)
    return found


def _free_files() -> set[str]:
    """Shared-memory files that no living process has locked: a study beside us keeps its own."""
    found = set()
    for path in SHARED_MEMORY.glob("headrace-*"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found.add(path.name)
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the run when a test left a process or a shared-memory file of ours."""
    os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
    processes, files = set(_processes()), _free_files()
    yield
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        running = [text for pid, text in _processes().items() if pid not in processes]
        names = sorted(_free_files() - files)
        if not running and not names:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    pytest.fail(
        f"left behind {GRACE_SECONDS:.0f} s after the last test: processes={running}, "
        f"/dev/shm files={names}",
        pytrace=False,
    )
