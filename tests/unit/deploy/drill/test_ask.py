"""What a drill is asked for is checked before anything starts."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.drill.ask import asked_for
from deploy.drill.run import Drill
from pipeline.errors import ConfigError
from tests.small_study import small_study

NOTHING: dict[str, Any] = {
    "path": None, "overrides": [], "faults": 5, "seed": 0, "kinds": None, "references": 1,
    "nodes": 1, "out": None, "now": datetime(2026, 3, 4, 5, 6, 7),
}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)


def asked(**changes: Any) -> Drill:
    return asked_for(**(NOTHING | changes))


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        asked(**changes)
    return error.value.problems


def test_without_a_study_the_built_in_one_is_drilled(tmp_path: Path) -> None:
    made = asked()
    assert made.out == tmp_path / "drills" / "drill-20260304-050607"
    assert made.text is not None
    assert made.path == made.out / "study.yaml"
    assert not made.out.exists()
    assert len(made.plan) == 5
    assert "ensemble.max_attempts=6" in made.overrides
    assert made.study.ensemble.max_attempts == 6


def test_a_study_is_run_where_it_lies_with_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(small_study().as_json()))
    made = asked(path=path, overrides=["seed=11"], references=3, out=tmp_path / "out")
    assert (made.path, made.text) == (path, None)
    assert made.references == (11, 12, 13)
    words = made.arguments("run", "seed=12")
    assert words[:5] == ["run", str(path), "--out", str(tmp_path / "out" / "run"), "--resume"]
    assert words.index("seed=11") < words.index("seed=12")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (line,) = problems(out=tmp_path)
    assert "already holds other files" in line


def test_wrong_keys_are_refused() -> None:
    assert any("no_such" in line for line in problems(overrides=["no_such.key=1"]))
    assert any(line.startswith("--set x:") for line in problems(overrides=["x"]))


def test_nodes_cannot_be_made_within_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    (line,) = problems(nodes=2)
    assert "RAY_ADDRESS names a cluster" in line
