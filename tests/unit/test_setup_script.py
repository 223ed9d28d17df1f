"""tools/setup.sh with a stand-in for Python, gcc and pip: what is run when, and what is said."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Answers what setup.sh asks, writes down every pip call, and "installs" by touching a file.
STAND_IN = """#!/bin/bash
here="$(dirname "$0")"
case "$*" in
    *get_path*) echo "$FAKE/include" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"import MPI; from petsc4py"*) [[ -f "$here/petsc4py" ]] ;;
    "-m pip install"*)
        echo "$* | configure: ${PETSC_CONFIGURE_OPTIONS:-} mpicc: ${MPICC:-}" >>"$FAKE/calls"
        [[ -z "${FAIL_ON:-}" || "$*" != *"$FAIL_ON"* ]] || { echo "no such package"; exit 1; }
        [[ "$*" != *petsc4py* ]] || touch "$here/petsc4py"
        [[ "$*" != *" -e "* ]] || { touch "$here/headrace" && chmod +x "$here/headrace"; }
        ;;
esac
"""
STAGES = ["system", "venv", "build_tools", "petsc", "packages", "headrace"]


class Checkout:
    """A copy of what setup.sh reads, and a machine on which everything is pretended."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.root = folder / "checkout"
        shutil.copytree(project / "tools", self.root / "tools")
        shutil.copy(project / "pyproject.toml", self.root)
        self.fake = folder / "fake"
        (self.fake / "include").mkdir(parents=True)
        (self.fake / "include" / "Python.h").touch()
        self.program("python3.11", STAND_IN)
        self.program("gcc", "#!/bin/sh\n")
        self.program("make", "#!/bin/sh\n")
        self.program("nproc", "#!/bin/sh\necho 3\n")

    def program(self, name: str, text: str) -> None:
        path = self.fake / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.fake / "calls").write_text("")
        return subprocess.run(
            [self.root / "tools" / "setup.sh"],
            env={"PATH": f"{self.fake / 'bin'}:/usr/bin:/bin", "FAKE": str(self.fake)}
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installed(self) -> str:
        return (self.fake / "calls").read_text()

    def change(self, name: str, old: str, new: str) -> None:
        path = self.root / "tools" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def checkout(project: Path, tmp_path: Path) -> Checkout:
    return Checkout(project, tmp_path)


@pytest.fixture
def site_petsc(tmp_path: Path) -> Path:
    """A PETSc 3.21 with one architecture, compiled with the site's mpicc."""
    root = tmp_path / "petsc"
    conf = root / "arch-opt" / "lib" / "petsc" / "conf"
    conf.mkdir(parents=True)
    (conf / "petscvariables").write_text("CC_FLAGS = -O\nCC = /opt/mpi/bin/mpicc\n")
    (root / "include").mkdir()
    (root / "include" / "petscversion.h").write_text(
        "#define PETSC_VERSION_MAJOR      3\n#define PETSC_VERSION_MINOR      21\n"
        "#define PETSC_VERSION_SUBMINOR   5\n"
    )
    return root


def finished_stages(done: subprocess.CompletedProcess[str]) -> int:
    return len(re.findall(r": done, \d+ s$", done.stderr, re.MULTILINE))


def test_every_stage_has_a_line_and_a_log_and_standard_output_stays_empty(
    checkout: Checkout,
) -> None:
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert finished_stages(done) == len(STAGES)
    logs = {path.stem for path in (checkout.root / ".venv" / ".setup" / "logs").iterdir()}
    assert logs == set(STAGES)
    assert re.search(r"ready after \d+ s", done.stderr)


def test_a_second_call_does_nothing(checkout: Checkout) -> None:
    checkout.setup()
    done = checkout.setup()
    assert (done.returncode, done.stderr, checkout.installed()) == (0, "", "")


def test_a_changed_pin_runs_pip_again_and_leaves_petsc_alone(checkout: Checkout) -> None:
    checkout.setup()
    checkout.change("constraints.txt", "rich==", "rich==9")
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert "requirements.txt" in checkout.installed()
    assert "petsc4py" not in checkout.installed()


def test_a_changed_pin_of_petsc_builds_it_again(checkout: Checkout) -> None:
    checkout.setup()
    checkout.change("constraints.txt", "petsc==", "petsc==9")
    checkout.setup()
    assert "--force-reinstall petsc4py" in checkout.installed()


def test_petsc_is_built_here_without_wheels_of_other_environments(checkout: Checkout) -> None:
    checkout.setup()
    builds = [line for line in checkout.installed().splitlines() if "force-reinstall" in line]
    assert len(builds) == 2
    assert all("--no-cache-dir" in line for line in builds)
    assert "--with-fc=0 --with-cxx=0 --with-x=0 --with-make-load=12" in builds[0]


@pytest.mark.parametrize(
    ("word", "stage", "left_to_do"),
    [("cython", "build_tools", 4), ("requirements.txt", "packages", 2), (" -e ", "headrace", 1)],
)
def test_a_failed_stage_names_its_log_and_the_next_call_goes_on_there(
    checkout: Checkout, word: str, stage: str, left_to_do: int
) -> None:
    failed = checkout.setup(FAIL_ON=word)
    log = checkout.root / ".venv" / ".setup" / "logs" / f"{stage}.log"
    assert failed.returncode != 0
    assert re.search(
        rf"FAILED after \d+ s; the end of {log}:\n    \| no such package", failed.stderr
    )
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    # Of two stages side by side, the other one may have been stopped before its end.
    assert finished_stages(done) in {left_to_do, left_to_do + (stage == "packages")}


def test_a_machine_without_nvidia_gpu_gets_the_pinned_torch(checkout: Checkout) -> None:
    checkout.setup()
    assert "\ntorch==" in (checkout.root / ".venv" / ".setup" / "constraints.txt").read_text()


def test_a_machine_with_nvidia_gpu_gets_the_torch_that_pip_chooses(checkout: Checkout) -> None:
    checkout.program("nvidia-smi", "#!/bin/sh\necho 'GPU 0: some'\n")
    checkout.setup()
    constraints = (checkout.root / ".venv" / ".setup" / "constraints.txt").read_text()
    assert "\ntorch==" not in constraints
    assert "\nray==" in constraints


def test_a_site_petsc_is_used_with_its_own_mpi_and_a_matching_petsc4py(
    checkout: Checkout, site_petsc: Path
) -> None:
    done = checkout.setup(PETSC_DIR=str(site_petsc), PETSC_ARCH="arch-opt")
    assert done.returncode == 0, done.stderr
    calls = checkout.installed()
    assert "petsc4py==3.21.*" in calls
    assert re.search(r"--no-binary mpi4py mpi4py .* mpicc: /opt/mpi/bin/mpicc", calls)
    assert "mpich" not in calls
    assert "force-reinstall petsc " not in calls


def test_the_site_petsc_is_remembered(checkout: Checkout, site_petsc: Path) -> None:
    checkout.setup(PETSC_DIR=str(site_petsc), PETSC_ARCH="arch-opt")
    done = checkout.setup()
    assert (done.returncode, done.stderr, checkout.installed()) == (0, "", "")


def test_another_petsc_for_the_same_environment_is_refused(
    checkout: Checkout, site_petsc: Path
) -> None:
    checkout.setup()
    done = checkout.setup(PETSC_DIR=str(site_petsc), PETSC_ARCH="arch-opt")
    assert done.returncode != 0
    assert f"they are now {site_petsc}|arch-opt|" in done.stderr
    assert "make distclean" in done.stderr


def test_a_petsc_dir_without_petsc_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.setup(PETSC_DIR=str(tmp_path), PETSC_ARCH="arch-opt")
    assert done.returncode != 0
    assert f"PETSC_DIR={tmp_path} PETSC_ARCH=arch-opt is no configured PETSc" in done.stderr


def test_without_root_a_missing_compiler_is_named_with_the_command_to_type(
    checkout: Checkout,
) -> None:
    checkout.program("gcc", "#!/bin/sh\nexit 1\n")
    checkout.program("id", "#!/bin/sh\necho 1000\n")
    done = checkout.setup()
    assert done.returncode != 0
    assert "lacks: gcc BLAS/LAPACK" in done.stderr
    assert re.search(r"sudo apt-get install -y gcc .* libopenblas-dev", done.stderr)


def test_as_root_the_packages_are_installed(checkout: Checkout) -> None:
    checkout.program("gcc", '#!/bin/sh\n[ -f "$FAKE/gcc-is-there" ]\n')
    checkout.program("id", "#!/bin/sh\necho 0\n")
    checkout.program(
        "apt-get",
        '#!/bin/sh\necho "$@" >>"$FAKE/apt"\n[ "$1" = update ] || touch "$FAKE/gcc-is-there"\n',
    )
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    update, install = (checkout.fake / "apt").read_text().splitlines()
    assert update == "update"
    assert "gcc" in install.split()


def test_an_old_python_is_refused(checkout: Checkout) -> None:
    checkout.program("python3.10", "#!/bin/sh\nexit 1\n")
    done = checkout.setup(PYTHON="python3.10")
    assert done.returncode != 0
    assert "no Python 3.11 or newer found (looked for: python3.10)" in done.stderr


def test_a_moved_environment_is_made_again(checkout: Checkout) -> None:
    checkout.setup()
    moved = checkout.root.parent / "elsewhere"
    checkout.root.rename(moved)
    checkout.root = moved
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert finished_stages(done) == len(STAGES)


@pytest.fixture
def names() -> Callable[[Path], set[str]]:
    """Distribution names in a requirements file."""

    def read(path: Path) -> set[str]:
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        found = [re.split(r"[\[=<>~!; ]", line)[0] for line in lines if line]
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found}

    return read


def test_every_requirement_is_pinned(project: Path, names: Callable[[Path], set[str]]) -> None:
    pinned = names(project / "tools" / "constraints.txt")
    for path in (project / "tools").glob("requirements*.txt"):
        assert names(path) <= pinned, path.name


def test_it_can_be_run(project: Path) -> None:
    assert os.access(project / "tools" / "setup.sh", os.X_OK)
    assert os.access(project / ".ci" / "run", os.X_OK)
