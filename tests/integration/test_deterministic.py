"""The same study twice, and with other numbers of solver processes: the same bits come out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.run import run
from pipeline.study.config import StudyConfig
from tests.small_study import STEPS, VALIDATION, small_study

pytestmark = [pytest.mark.cluster, pytest.mark.petsc, pytest.mark.slow]

MEMBERS = 12


def outcome(concurrent: int, folder: Path, **trainer: Any) -> tuple[Any, ...]:
    """All that the losses have led to: every weight, and every prediction."""
    tree = small_study(
        # Less than a member may be on its way: with two of them, one waits for its turn.
        stream={"credit_bytes": 9000, "batch_bytes": 1500},
        ensemble={"members": MEMBERS, "concurrent": concurrent},
        trainer={"device": "cpu", "lease_batches": 5, "validate_every": 20, "log_every": 1}
        | trainer,
    ).as_json()
    study = StudyConfig.model_validate(tree | {"deterministic": True})
    result = run(study, out=folder)
    summary = result.summary
    assert summary.members_completed == MEMBERS + VALIDATION
    assert summary.samples_inserted == summary.samples_unique == MEMBERS * STEPS
    weights = (folder / "model" / "model.safetensors").read_bytes()
    kept = [np.load(path) for path in sorted((folder / "validation").iterdir())]
    arrays = [each[name].tobytes() for each in kept for name in sorted(each.files)]
    metrics = (folder / "metrics.jsonl").read_text().splitlines()
    losses = {
        (rank["rank"], rank["train_step"]): rank["loss"]
        for line in metrics
        for rank in json.loads(line)["ranks"]
    }
    last = [rank.loss for rank in result.stats.ranks]
    told = (weights, arrays, last, summary.train_steps, summary.validation_error)
    return (*told, losses)


@pytest.mark.parametrize("ranks", [1, 2])
def test_weights_and_losses_do_not_depend_on_timing(ranks: int, tmp_path: Path) -> None:
    *first, losses = outcome(1, tmp_path / "one", ranks=ranks)
    for concurrent in (3, 2) if ranks == 2 else (3, 1):
        *again, others = outcome(concurrent, tmp_path / f"with {concurrent}", ranks=ranks)
        assert again == first
        both = losses.keys() & others.keys()  # they are looked at twice a second
        assert both
        assert [losses[step] for step in both] == [others[step] for step in both]
