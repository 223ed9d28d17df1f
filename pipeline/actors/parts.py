"""From a study to the parts of a reservoir: bookkeeping, order, bounds and record."""

from typing import Any

from pipeline.record.layout import MADE_FROM, RecordLayout
from pipeline.study.config import StudyConfig


def record_layout(study: StudyConfig) -> RecordLayout:
    """The arrays of a study's record."""
    return RecordLayout(
        sample=study.sample_layout(), spec=study.spec, parameters=study.solver.parameters()
    )


def record_attributes(study: StudyConfig, rank: int) -> dict[str, Any]:
    """What else one rank's group says of itself."""
    assert study.record is not None
    return {
        "study": study.name,
        "seed": study.seed,
        "rank": rank,
        "ranks": study.trainer.ranks,
        "solver": study.solver.kind,
        "validation": study.ensemble.validation,
        "samples_per_member": study.samples_per_member,
        "stride": study.trainer.task.stride,
        "record": study.record.model_dump(mode="json"),
        MADE_FROM: study.model_dump(mode="json", include={"solver", "parameters", "stream"}),
    }
