"""Programs that simulate a member are looked up before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deploy import cli
from deploy.cluster import machine
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.small_study import small_study


def tree(**solver: Any) -> dict[str, Any]:
    return {
        "name": "flow",
        "solver": {
            "kind": "program", "command": "./flow -ts_type bdf", "components": {"u": "m/s"},
            "grid": [6, 10], "steps": 5, "options": {"nu": "-nu {value}"},
        } | solver,
        "parameters": {"nu": {"uniform": [0.1, 0.4]}},
        "ensemble": {"members": 3, "validation": 1},
        "reservoir": {"capacity": 60, "watermark": 3},
        "trainer": {"ranks": 1, "batch": 4},
    }  # fmt: skip


def study(folder: Path, **solver: Any) -> StudyConfig:
    return parse(tree(**solver), folder=folder)


def program(folder: Path, name: str = "flow", mode: int = 0o755) -> None:
    (folder / name).write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / name).chmod(mode)


def test_a_program_is_looked_for_where_the_study_says(tmp_path: Path) -> None:
    (line,) = machine.program_problems(study(tmp_path))
    assert line.startswith(f"solver.command: no program '{tmp_path / 'flow'}' that can be run")
    program(tmp_path, mode=0o644)
    (line,) = machine.program_problems(study(tmp_path))
    assert line == (f"solver.command: {tmp_path / 'flow'} is not executable. Run 'chmod +x' on it")
    program(tmp_path)
    assert machine.program_problems(study(tmp_path)) == []


def test_a_launcher_is_looked_for_where_it_is_used(tmp_path: Path) -> None:
    program(tmp_path)
    launcher = {"launcher": "nompi -n {mpi_ranks}"}
    assert machine.program_problems(study(tmp_path, **launcher)) == []
    (line,) = machine.program_problems(study(tmp_path, mpi_ranks=2, **launcher))
    assert line.startswith("solver.launcher: no program 'nompi' that can be run")


def test_mpi_ranks_need_an_mpiexec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_ranks = small_study(ensemble={"mpi_ranks": 2}, reservoir={"capacity": 90})
    assert machine.program_problems(on_ranks) == []
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = machine.program_problems(on_ranks)
    assert "needs mpiexec, but there is none" in line
    assert machine.program_problems(small_study()) == []


def test_check_and_simulate_refuse_a_study_without_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(tree()), encoding="utf-8")
    for command in ("check", "simulate"):
        result = CliRunner().invoke(cli.app, [command, "study.yaml"])
        assert result.exit_code == 2
        assert "solver.command: no program" in result.stderr
        assert "Traceback" not in result.stderr
    assert CliRunner().invoke(cli.app, ["check", "study.yaml", "--elsewhere"]).exit_code == 0
