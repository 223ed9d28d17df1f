import json
from pathlib import Path

import pytest

from pipeline.control.rundir import RunDirectory, RunPaths, drop_empty, problems
from pipeline.errors import ConfigError


def test_a_new_or_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert problems(tmp_path / "a" / "b") == []
    RunDirectory(tmp_path / "a" / "b").close()
    assert problems(tmp_path / "a" / "b") == []


def test_a_folder_that_is_made_is_open_to_its_user_alone(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "a" / "run").close()
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o700
    (tmp_path / "shared").mkdir(mode=0o750)
    RunDirectory(tmp_path / "shared").close()
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o750


def test_a_folder_that_holds_another_study_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path / "run")
    first.write_study(source="name: first\n", resolved={"name": "first"})
    first.close()
    with pytest.raises(ConfigError, match=r"--out .*run: the folder already holds another study"):
        RunDirectory(tmp_path / "run")
    assert (tmp_path / "run" / "study.yaml").read_text() == "name: first\n"
    assert json.loads((tmp_path / "run" / "resolved.json").read_text()) == {"name": "first"}


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert "other files" in problems(tmp_path)[0]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert "is a file" in problems(tmp_path / "run")[0]


def test_only_an_empty_folder_is_dropped(tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "full" / "state").write_text("")
    for name in ("empty", "full", "absent"):
        drop_empty(tmp_path / "run" / name)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["full"]


def test_no_other_file_names_what_lies_in_a_run_directory(project: Path) -> None:
    """1. ``RunPaths`` is the one home of the names."""
    # These are names of other things as well.
    shared = {"folder", "study", "report", "card", "model", "validation", "inputs"}
    names = {path.name for name, path in vars(RunPaths(Path("run"))).items() if name not in shared}
    assert {"journal.jsonl", "resolved.json", "summary.json", "checkpoints"} < names
    found = [
        f"{path.relative_to(project)}: {name}"
        for package in ("pipeline", "deploy", "solvers", "trainers")
        for path in (project / package).rglob("*.py")
        for name in names
        if f'"{name}"' in path.read_text("utf-8")
    ]
    homes = {"pipeline/control/rundir.py", "pipeline/record/layout.py", "trainers/trainer.py"}
    assert {line.split(": ")[0] for line in found} <= homes, found


@pytest.mark.parametrize("made", [True, False])
def test_a_study_that_could_not_be_started_leaves_nothing(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "run"
    if not made:
        path.mkdir()
    directory = RunDirectory(path)
    directory.write_study(source="name: a", resolved={})
    (path / "own").mkdir()
    directory.empty()
    directory.close()
    assert path.exists() is not made
    assert problems(path) == []
