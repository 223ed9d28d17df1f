"""What follows the training: each step of it may fail alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import run
from pipeline.control.rundir import RunDirectory
from tests.fake_study import WALL_SECONDS, stats_at
from tests.small_study import small_study


def conclude(out: Path) -> dict[str, Any]:
    directory = RunDirectory(out)
    directory.paths.journal.write_text("", encoding="utf-8")
    directory.paths.model.mkdir()
    (directory.paths.model / "card.json").write_text('{"query": {}, "format": 2}', encoding="utf-8")
    try:
        run._conclude(small_study(), directory, stats_at(WALL_SECONDS, phase="done"))
    finally:
        directory.close()
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


def broken(*given: object) -> None:
    raise KeyError("viscosity")


@pytest.mark.parametrize("step", ["errors_by_region", "parameters_of", "study_facts"])
def test_a_step_after_training_that_fails_costs_no_summary(
    tmp_path: Path,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(run, step, broken)
    assert conclude(tmp_path / "out")["validation_mse"] > 0
    assert "KeyError: 'viscosity'" in caplog.text


def test_a_damaged_card_costs_no_summary_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert conclude(tmp_path / "out")["train_steps"] > 0
    assert "there is no time of a query in the summary, because of this error" in caplog.text
