"""A study may be started in a folder that has packages of our names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FROM_THE_PROJECT_ROOT = """
import ray
from pipeline.actors.cluster import cluster
from pipeline.guards import check_packages, project_root

with cluster(cpus=1, project_root=project_root()):
    ray.get(ray.remote(check_packages).remote())
print("accepted")
"""

FROM_HERE = """
import os, secrets
import ray
from pipeline.guards import check_packages

check_packages()  # the driver has the right ones
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
ray.get(ray.remote(check_packages).remote())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with a package of theirs that happens to be called ``solvers``."""
    theirs = tmp_path / "work" / "solvers"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("raise RuntimeError('the wrong package was imported')\n")
    return theirs.parent


def clean_environment() -> dict[str, str]:
    """Without what a test run adds to the import path."""
    hidden = ("PYTHONPATH", "RAY_ADDRESS")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def start(folder: Path, program: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )


def script(folder: Path, text: str) -> Path:
    """In a folder of its own, as the console script is: a script's folder is on its import path."""
    path = folder.parent / "bin" / "study.py"
    path.parent.mkdir()
    path.write_text(text)
    return path


@pytest.mark.cluster
def test_workers_of_a_study_import_ours(folder: Path) -> None:
    done = start(folder, script(folder, FROM_THE_PROJECT_ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["accepted"]


@pytest.mark.cluster
def test_the_guard_in_a_worker_refuses_the_package_of_the_folder(folder: Path) -> None:
    done = start(folder, script(folder, FROM_HERE))
    assert done.returncode != 0
    assert f"package 'solvers' comes from {folder / 'solvers' / '__init__.py'}" in done.stderr


def test_the_command_line_starts_in_such_a_folder(folder: Path) -> None:
    done = start(folder, Path(sys.executable).with_name("headrace"), "--version")
    assert done.returncode == 0, done.stderr
    assert "0.1.0" in done.stdout
