"""Whether the samples of a record are what a later study would have streamed itself.

1. Solver, fields, grid, type and steps must be those of the study, or contain them.
2. Everything that differs is told at once, each with what the record has.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.problems import problem
from pipeline.record.replay import RecordedMembers

if TYPE_CHECKING:
    from pipeline.config import StudyConfig

_ELSEWHERE = ("path", "root")  # of a solver: where it lies, not what it computes


def content_problems(study: "StudyConfig", record: RecordedMembers) -> list[str]:
    """What of the record is not what this study wants."""
    return (
        _solver_problems(study, record)
        + _parameter_problems(study, record)
        + _field_problems(study, record)
        + _step_problems(study, record)
    )


def _solver_problems(study: "StudyConfig", record: RecordedMembers) -> list[str]:
    now, then = study.solver.model_dump(mode="json"), record.made_from["solver"]
    other = [key for key in now | then if key not in _ELSEWHERE and now.get(key) != then.get(key)]
    return [
        problem(
            f"solver.{key}",
            now.get(key),
            f"the record was made with {then.get(key)!r}. Leave the section out to take the "
            "record's, or remove source",
        )
        for key in other
    ]


def _parameter_problems(study: "StudyConfig", record: RecordedMembers) -> list[str]:
    wanted = {each.name: each.unit for each in study.solver.parameters()}
    if wanted == record.units:
        return []
    text = (
        f"its parameters are {_listed(record.units)}, those of the solver {_listed(wanted)}. Take "
        "a record of the same solver"
    )
    return [record_problem(study, text)]


def _listed(units: Mapping[str, str]) -> str:
    return ", ".join(f"{name} [{unit}]" for name, unit in units.items()) or "none"


def _field_problems(study: "StudyConfig", record: RecordedMembers) -> list[str]:
    there, wanted = record.spec, study.spec
    found = []
    missing = [name for name in wanted.names if name not in there.names]
    if missing:
        text = (
            f"has no field {', '.join(missing)}, only {', '.join(there.names)}. Set stream.fields "
            "and stream.input_fields to some of them, or leave them out"
        )
        found.append(record_problem(study, text))
    if (there.shape, there.spacing) != (wanted.shape, wanted.spacing):
        text = (
            f"its grid has {list(there.shape)} points, that of this study {list(wanted.shape)}. "
            "Leave solver and stream.coarsen out to take the record's"
        )
        found.append(record_problem(study, text))
    if record.dtype != study.stream.dtype:
        text = f"the record holds {record.dtype}. Set it to that, or leave it out"
        found.append(problem("stream.dtype", study.stream.dtype, text))
    return found


def _step_problems(study: "StudyConfig", record: RecordedMembers) -> list[str]:
    then, now = record.made_from["stream"], study.stream
    found = []
    if now.every % then["every"]:
        text = (
            f"the record has only every {then['every']}. step. Set it to a multiple of that, or "
            "leave it out"
        )
        found.append(problem("stream.every", now.every, text))
    if now.initial_state and not then["initial_state"]:
        text = "the record has no initial states. Set it to false, or leave it out"
        found.append(problem("stream.initial_state", True, text))
    return found


def record_problem(study: "StudyConfig", text: str) -> str:
    """A line about the record as a whole."""
    assert study.source is not None
    return problem("source.record", str(study.source.record), text)
