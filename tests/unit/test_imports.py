"""Which part may import what: the contract of pyproject.toml, and what really gets loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("solvers", "pipeline", "trainers", "deploy")
HEAVY = ("ray", "zmq", "petsc4py", "mpi4py", "torch", "neuralop", "torch_geometric")
LIGHT_ENOUGH_FOR_A_LOGIN_NODE = [
    "solvers.base",
    "solvers.config",
    "solvers.registry",
    "trainers.base",
    "trainers.config",
    "trainers.configs.models",
    "trainers.configs.model_checks",
    "pipeline.study.config",
    "pipeline.study.design",
    "pipeline.guards",
    "pipeline.errors",
    "deploy.cli",
]


def loaded_by(statement: str, project: Path) -> set[str]:
    """Top-level packages among HEAVY that a fresh interpreter has loaded after ``statement``."""
    program = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_import_contract_holds(project: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_import_circle(project: Path) -> None:
    """Lazy and type-checking imports count: modules of a circle are one module in several files."""
    imports = imports_of(project)
    left = set(imports)
    while leaves := {module for module in left if not imports[module] & left}:
        left -= leaves
    assert not left, f"in circles, or above one: {sorted(left)}"


def imports_of(project: Path) -> dict[str, set[str]]:
    """Of every module of the four packages, which others of them it names in an import."""
    paths = [path for name in PACKAGES for path in (project / name).rglob("*.py")]
    names = {
        ".".join(path.relative_to(project).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }
    found = {}
    for module, path in names.items():
        said: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                said |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                said |= (inner & names.keys()) or {node.module}
        found[module] = (said & names.keys()) - {module}
    return found


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("solvers", "import pipeline.errors"),
        ("solvers", "import trainers.base"),
        ("trainers", "import solvers.base"),
        ("trainers", "import petsc4py"),
        ("trainers", "import ray"),
        ("solvers", "import torch"),
        ("pipeline/actors", "import torch.distributed"),
        ("pipeline/study", "import neuralop.models"),
        ("deploy", "import torch_geometric"),
        ("pipeline/members", "import mpi4py.MPI"),
        ("pipeline/stats", "import deploy"),
        ("deploy", "import zmq"),
        ("pipeline/control", "import ray"),
        ("pipeline/actors", "import zmq"),
        ("pipeline/study", "import zarr"),
        ("pipeline/stream", "import pipeline.reservoir.book"),
        ("pipeline/reservoir", "import pipeline.stream.wire"),
        ("pipeline/slots", "import pipeline.record.rows"),
        ("pipeline/stats", "import pipeline.members.solving"),
        ("pipeline", "import json"),  # a room that nobody has placed
    ],
)
def test_the_import_contract_refuses(
    folder: str, line: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PACKAGES:
        for path in (project / name).rglob("*.py"):
            copy = tmp_path / path.relative_to(project)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
    (tmp_path / "pipeline" / "actors" / "trainer.py").write_text("import torch\n")
    (tmp_path / "pyproject.toml").write_text((project / "pyproject.toml").read_text())
    (tmp_path / folder / "added.py").write_text(line + "\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{folder}.added".replace("/", ".") in done.stdout


@pytest.mark.parametrize("module", LIGHT_ENOUGH_FOR_A_LOGIN_NODE)
def test_configuration_loads_nothing_heavy(module: str, project: Path) -> None:
    assert loaded_by(f"import {module}", project) == set()


@pytest.mark.petsc
def test_a_solver_process_never_imports_torch(project: Path) -> None:
    assert "torch" not in loaded_by("import pipeline.actors.solver, solvers.pdes.heat", project)


def test_a_trainer_process_never_imports_petsc(project: Path) -> None:
    loaded = loaded_by("import pipeline.actors.trainer, trainers.trainer", project)
    assert "torch" in loaded
    assert loaded.isdisjoint({"petsc4py", "mpi4py"})
