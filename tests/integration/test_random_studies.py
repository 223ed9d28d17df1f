"""What ``check`` accepts runs, whatever it is: every member, every sample, finite errors.

``make test-random N=200`` draws more of them; ``FROM=300`` begins with another seed.
"""

import math
import os
from pathlib import Path

import pytest

from pipeline.run import run
from tests.random_studies import random_study

pytestmark = [pytest.mark.petsc, pytest.mark.studies]

FIRST = int(os.environ.get("HEADRACE_RANDOM_FROM", "0"))
COUNT = int(os.environ.get("HEADRACE_RANDOM_STUDIES", "12"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_study_that_is_accepted_runs_to_a_right_end(seed: int, run_here: Path) -> None:
    study = random_study(seed)
    summary = run(study, out=run_here).summary
    members = study.ensemble.members + study.ensemble.validation
    assert (summary.members_completed, summary.members_failed) == (members, 0)
    assert summary.samples_inserted == summary.samples_unique == study.expected_samples
    assert summary.train_steps > 0
    if study.ensemble.validation:
        assert summary.validation_error is not None
        assert math.isfinite(summary.validation_error)
