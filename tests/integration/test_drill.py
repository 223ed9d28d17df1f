"""A drill with real kills: whatever is hit, nothing is lost, stored twice or left behind."""

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.drill.plan import Kind
from deploy.drill.plan import plan as plan_of
from pipeline.control.journal import read
from tests.small_study import small_study

pytestmark = [pytest.mark.cluster, pytest.mark.petsc, pytest.mark.studies]

VALIDATION, STEPS = 2, 40


def mpi_study(members: int) -> dict[str, Any]:
    """Members of two mpi_ranks, which wait for the trainer so that the study lasts."""
    study = small_study(
        solver={"steps": STEPS},
        ensemble={
            "members": members, "validation": VALIDATION, "mpi_ranks": 2, "concurrent": 1,
            "member_timeout": 15.0,
        },
        reservoir={"capacity": 120, "max_surplus": 400},
    )  # fmt: skip
    return study.as_json() | {"name": "drilled-mpi"}


def program_study(members: int, project: Path) -> dict[str, Any]:
    """Members that are foreign programs; each takes a second to start."""
    tree: dict[str, Any] = yaml.safe_load((project / "examples" / "program.yaml").read_text())
    script = project / "examples" / "program" / "diffusion.py"
    tree["solver"]["command"] = f"{sys.executable} {script} -ts_adapt_type none"
    tree["ensemble"]["members"] = members
    tree["reservoir"]["capacity"] = 70  # most members are simulated while it trains
    tree["name"] = "drilled-program"
    return tree


def drilled(folder: Path, study: dict[str, Any] | None, *options: str) -> Result:
    arguments = ["drill", "--out", str(folder / "out"), *options]
    if study is not None:
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(study))
        arguments.append(str(path))
    return CliRunner().invoke(app, arguments)


def check(folder: Path, result: Result, kinds: tuple[Kind, ...], faults: int, seed: int) -> None:
    """It was passed, and is so when looked at without the drill's own eyes."""
    assert result.exit_code == 0, result.output
    out = folder / "out"
    told = json.loads((out / "drill.json").read_text())
    assert told["passed"]
    kinds_done = [each["kind"] for each in told["outcomes"]]
    assert kinds_done == [fault.kind for fault in plan_of(kinds, faults, seed)]
    for each in told["outcomes"]:
        assert each["missed"] is None
        assert 0.0 <= each["noticed"] <= each["recovered"]
        if each["kind"] in ("solver", "hung", "mpi_rank", "program", "disk"):
            assert each["restarts"] == 0
        if each["kind"] == "driver":
            assert each["restarts"] == 1
    summary = json.loads((out / "run" / "summary.json").read_text())
    study = told["study"]
    members, validation = study["ensemble"]["members"], study["ensemble"]["validation"]
    samples = study["solver"]["steps"]
    assert summary["members_completed"] == members + validation
    assert summary["samples_inserted"] == summary["samples_unique"] == members * samples
    # The kills can be seen in the journal: parts that ended, attempts that were lost or failed.
    events = [each["event"] for each in read(out / "run" / "journal.jsonl")]
    assert events.count("resumed") == sum(each["restarts"] for each in told["outcomes"])
    troubles = ("solver", "hung", "mpi_rank", "program")
    lost = sum(events.count(name) for name in ("lost", "failed"))
    assert lost >= sum(kind in troubles for kind in kinds_done)
    assert not list((out / "run" / "checkpoints").glob(".*"))
    assert not list(Path("/dev/shm").glob(f"headrace-{study['name']}-*"))
    left = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)]
    assert not [each for each in left if "ray" in each]


def test_four_faults_of_a_study_with_mpi_ranks(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("solver", "hung", "mpi_rank", "disk")
    options = ("--faults", "4", "--seed", "2", "--references", "0", "--kinds", ",".join(kinds))
    check(tmp_path, drilled(tmp_path, mpi_study(400), *options), kinds, 4, 2)


def test_four_faults_of_a_study_with_foreign_programs(tmp_path: Path, project: Path) -> None:
    kinds: tuple[Kind, ...] = ("solver", "program")
    options = ("--faults", "4", "--seed", "3", "--references", "0", "--kinds", ",".join(kinds))
    check(tmp_path, drilled(tmp_path, program_study(150, project), *options), kinds, 4, 3)


@pytest.mark.slow
def test_two_faults_on_two_nodes(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("node", "driver")
    options = ("--faults", "2", "--nodes", "2", "--references", "0", "--kinds", ",".join(kinds))
    check(tmp_path, drilled(tmp_path, None, *options), kinds, 2, 0)


def test_ten_faults_of_every_kind_and_an_undisturbed_run(tmp_path: Path) -> None:
    result = drilled(tmp_path, None, "--faults", "10", "--seed", "1")
    kinds: tuple[Kind, ...] = ("solver", "hung", "reservoir", "trainer_rank", "driver", "disk")
    check(tmp_path, result, kinds, 10, 1)
    told = json.loads((tmp_path / "out" / "drill.json").read_text())
    (reference,) = told["references"]
    assert reference["error"] > 0.0
    assert told["account"]["error"] > 0.0
    assert "not in this study: mpi_rank (ensemble.mpi_ranks is 1)" in result.output
