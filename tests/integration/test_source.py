"""A record as the source of another study: the losses are those of the study that made it."""

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from pipeline.record.reader import open_record
from pipeline.run import StudyResult, run
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.small_study import MEMBERS, STEPS, VALIDATION
from tests.source_rig import first_study, second_tree

pytestmark = [pytest.mark.cluster, pytest.mark.petsc, pytest.mark.slow]


def in_order(study: StudyConfig) -> StudyConfig:
    trainer = study.trainer.model_copy(update={"device": "cpu"})
    return study.model_copy(update={"deterministic": True, "trainer": trainer})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    folder = tmp_path_factory.mktemp("first") / "run"
    return run(in_order(first_study({})), out=folder)


def outcome(result: StudyResult) -> tuple[Any, ...]:
    weights = (result.out / "model" / "model.safetensors").read_bytes()
    losses = [rank.loss for rank in result.stats.ranks]
    return weights, losses, result.summary.validation_error, result.summary.train_steps


def test_the_same_samples_give_the_same_weights(first: StudyResult, tmp_path: Path) -> None:
    tree = second_tree(
        first.out, source={"validation": "live"}, ensemble={"members": MEMBERS}, name="small"
    )
    again = run(in_order(parse(tree)), out=tmp_path / "again")
    assert outcome(again) == outcome(first)
    assert again.summary.breakeven is None


def test_recorded_and_live_members_together(first: StudyResult, tmp_path: Path) -> None:
    members = MEMBERS - VALIDATION + 3
    tree = second_tree(
        first.out,
        source={"live": 3},
        ensemble={"members": members},
        trainer={"task": {"kind": "next"}},
        record={},
    )
    summary = run(parse(tree), out=tmp_path / "mixed").summary
    assert summary.members_completed == members + VALIDATION
    assert summary.samples_inserted == summary.samples_unique == members * (STEPS - 1)
    # What was recorded twice has not changed on the way.
    once, twice = open_record(first.out), open_record(tmp_path / "mixed")
    before = {tuple(row): field for row, field in _by_parameters(once)}
    same = [(row, field) for row, field in _by_parameters(twice) if tuple(row) in before]
    assert len(same) == (members - 3) * (STEPS - 1)
    for row, field in same:
        assert before[tuple(row)] == field


def _by_parameters(dataset: xr.Dataset) -> list[tuple[list[float], bytes]]:
    """Parameters and time of each sample, and its first snapshot."""
    names = list(dataset.attrs["parameters"])
    columns = [dataset[name].values for name in names] + [dataset["time"].values[:, 0]]
    fields = dataset["temperature"].values[:, 0]
    return [
        ([float(column[row]) for column in columns], fields[row].tobytes())
        for row in range(fields.shape[0])
    ]
