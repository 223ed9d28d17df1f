"""Every example in ``examples/`` trains end to end, and a member that diverges fails alone."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.control.journal import read
from pipeline.run import StudyResult, run
from pipeline.study.config import StudyConfig
from pipeline.study.load import load

pytestmark = [pytest.mark.petsc, pytest.mark.studies]

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (PROJECT / "examples").glob("*.yaml"))
# The demo alone is too long to be run as it is: `make demo` does.
SHORTER = {
    "heat": ["ensemble.members=8", "ensemble.validation=2", "reservoir.max_surplus=null",
             "reservoir.capacity=250", "reservoir.watermark=100"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_end_to_end(name: str, run_here: Path) -> None:
    study = load(PROJECT / "examples" / f"{name}.yaml", SHORTER.get(name, []))
    result = run(study, out=run_here)
    everything_was_trained_on(study, result)
    assert study.warnings() == []


def everything_was_trained_on(study: StudyConfig, result: StudyResult) -> None:
    summary = result.summary
    assert (summary.members_completed, summary.members_failed) == (
        study.ensemble.members + study.ensemble.validation,
        0,
    )
    assert summary.samples_inserted == summary.samples_unique == study.expected_samples
    assert summary.train_steps > 0
    assert summary.validation_error is not None
    assert np.isfinite(summary.validation_error)
    surrogate = result.surrogate()
    assert surrogate.problem.field_names == study.spec.names


class Diverging(NamedTuple):
    """A small study of which the second member cannot be computed."""

    changes: list[str]
    names: list[str]
    rows: list[list[float]]
    reason: str


DIVERGING = {
    "cavity": Diverging(
        ["solver.mode=steady", "solver.steps=8", "solver.grid=[31,31]"],
        ["reynolds", "lid_speed"],
        [[50, 1], [1e5, 2], [80, 1.5], [60, 0.7]],
        r"nonlinear solve failed at solver step \d+, time .*DIVERGED",
    ),
    # The step that is stable for waves this fast is far below dt.
    "shallow_water": Diverging(
        ["solver.steps=8", "solver.max_substeps=20", "solver.bottom=flat"],
        ["level", "height", "x", "y", "width"],
        [[1, 0.2, 20, 30, 5], [1e5, 0.2, 20, 30, 5], [1.2, 0.3, 40, 30, 5], [1, 0.5, 30, 15, 5]],
        r"dt=0.4",
    ),
}


@pytest.mark.parametrize("name", DIVERGING)
def test_a_member_that_diverges_fails_alone(name: str, run_here: Path, tmp_path: Path) -> None:
    changes, names, rows, reason = DIVERGING[name]
    design = tmp_path / "design.csv"
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    design.write_text("\n".join(lines) + "\n")
    small = [
        "ensemble.members=4", "ensemble.validation=0", f"ensemble.design={{csv: {design}}}",
        "reservoir.watermark=8", "reservoir.max_surplus=null", "parameters={}",
    ]  # fmt: skip
    study = load(PROJECT / "examples" / f"{name}.yaml", changes + small)
    result = run(study, out=run_here)
    assert (result.summary.members_completed, result.summary.members_failed) == (3, 1)
    (failed,) = [e for e in read(run_here / "journal.jsonl") if e["event"] == "failed"]
    assert failed["member"] == 1
    assert failed["attempt"] == 1  # the solver's own verdict: it would say the same again
    assert re.search(reason, failed["reason"]), failed["reason"]
    assert result.summary.samples_inserted >= 3 * study.samples_per_member
