"""Members of an earlier study's record in the place of simulated ones: which, and whether they fit.

They are members like all others, under the numbers of this study: the stream, the reservoirs, the
accounting and the validation see no difference.

1. What this study does not say itself of solver, parameters and stream is that of the record.
2. A member of the record is used once, for validation or for training.
3. Members that are still simulated are spread evenly among those of the record.
4. A task that needs consecutive snapshots gets members without a gap only.
5. What cannot work is refused when the study is read, with every reason: solver, fields, grid, type
   and steps of the record must be those of the study, or contain them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from pipeline import flow
from pipeline.errors import ConfigError
from pipeline.record.layout import MADE_FROM
from pipeline.record.reader import parts_of
from pipeline.record.replay import RecordedMembers, Steps
from pipeline.study.config import StudyConfig
from pipeline.study.problems import problem
from pipeline.study.sections import SourceConfig

_CHOICE = 0x5023  # of the root seed: which members are for validation
# Of the section ``stream``: they decide what a snapshot looks like.
_CONTENT = ("initial_state", "every", "fields", "input_fields", "coarsen", "dtype")
Counts = Int64[np.ndarray, " _member"]
_ELSEWHERE = ("path", "root")  # of a solver: where it lies, not what it computes
_NAMED = 3  # members that a message names at most


def with_sections(tree: Mapping[str, Any], record: Path) -> dict[str, Any]:
    """The study with all that it leaves to the record.

    Raises:
        ConfigError: There is no record, or one of another solver.
    """
    made_from = parts_of(record)[0].attributes[MADE_FROM]
    solver, then = tree.get("solver"), made_from["solver"]["kind"]
    if isinstance(solver, dict) and solver.get("kind", then) != then:
        line = f"{record}: was made with solver.kind={then}, but solver.kind={solver['kind']} here"
        raise ConfigError([f"{line}. Leave solver out, or take another record"])
    given = {name: tree.get(name) or {} for name in ("parameters", "stream")}
    if not all(isinstance(each, dict) for each in given.values()):
        return dict(tree)
    content = {key: made_from["stream"][key] for key in _CONTENT}
    return {
        **tree,
        "solver": tree.get("solver", made_from["solver"]),
        "parameters": made_from["parameters"] | given["parameters"],
        "stream": content | given["stream"],
    }


def recorded_numbers(study: StudyConfig) -> dict[int, int]:
    """Which members of the study are which of the record; the others are simulated."""
    source, ensemble = study.source, study.ensemble
    if source is None:
        return {}
    assert source.members is not None, "filled in when the study was read"
    held_out = range(ensemble.validation) if source.validation == "recorded" else range(0)
    training = [
        ensemble.validation + place
        for place in range(ensemble.members)
        if not _is_live(place, source.live, ensemble.members)
    ]
    return dict(zip([*held_out, *training], source.members, strict=True))


def _is_live(place: int, live: int, members: int) -> bool:
    return (place + 1) * live // members > place * live // members


def take_members(study: StudyConfig) -> tuple[SourceConfig, list[str]]:
    """The section with the members that are taken from the record, and what speaks against it.

    Args:
        study: Valid but for what its record may not have.
    """
    source = study.source
    assert source is not None
    record = RecordedMembers(source.record)
    found = _content_problems(study, record)
    if found:
        return source, found
    steps = {each: _wanted(record.steps(each), study) for each in record.members.tolist()}
    usable = {member: each for member, each in steps.items() if _suffices(each, study)}
    chosen, found = _chosen(study, source, steps, usable)
    if found:
        return source, found
    found = _range_problems(study, record, chosen)
    source = source.model_copy(update={"members": chosen})
    study = study.model_copy(update={"source": source})
    counts = _samples(study, {member: _count(usable[member], study) for member in chosen})
    source = source.model_copy(update={"samples": int(counts.sum())})
    return source, found + _capacity_problems(study, counts)


def _wanted(steps: Steps, study: StudyConfig) -> Steps:
    """The steps of which samples are made."""
    steps = steps[steps % study.stream.every == 0]
    return steps if study.stream.initial_state else steps[steps > 0]


def _suffices(steps: Steps, study: StudyConfig) -> bool:
    whole = study.window == 1 or bool((np.diff(steps) == study.stream.every).all())
    return whole and steps.size >= study.window


def _count(steps: Steps, study: StudyConfig) -> int:
    """Samples that are made of snapshots at these steps."""
    return (steps.size - study.window) // study.trainer.task.stride + 1


def _chosen(
    study: StudyConfig,
    source: SourceConfig,
    steps: Mapping[int, Steps],
    usable: Mapping[int, Steps],
) -> tuple[tuple[int, ...], list[str]]:
    """Members of the record, those for validation first."""
    ensemble = study.ensemble
    needed = study.recorded_members
    if source.members is not None:
        wrong = [member for member in source.members if member not in usable]
        if not wrong:
            return source.members, []
        named = ", ".join(map(str, wrong[:_NAMED]))
        text = f"{len(wrong)} of them are not in the record, or not whole ({named}). Remove them"
        return (), [problem("source.members", list(source.members), text)]
    if len(usable) < needed:
        return (), [_too_few(study, needed, steps, usable)]
    held_out = needed - (ensemble.members - source.live)
    members = np.array(sorted(usable), np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(study.seed, spawn_key=(_CHOICE,)))
    validation = np.sort(rng.choice(members, held_out, replace=False))
    training = np.setdiff1d(members, validation)[: needed - held_out]
    return (*validation.tolist(), *training.tolist()), []


def _too_few(
    study: StudyConfig, needed: int, steps: Mapping[int, Steps], usable: Mapping[int, Steps]
) -> str:
    ensemble = study.ensemble
    wanted = f"ensemble.members={ensemble.members}, ensemble.validation={ensemble.validation}"
    if len(usable) == len(steps):
        text = f"has {len(steps)} members, but {needed} are needed ({wanted})"
    else:
        text = (
            f"{len(steps) - len(usable)} of its {len(steps)} members have gaps or are too short "
            f"for {study.window} consecutive snapshots (trainer.task.kind="
            f"{study.trainer.task.kind}); {needed} whole ones are needed ({wanted})"
        )
    remedy = (
        "Lower these, raise source.live, or set source.validation to live"
        if len(usable)
        else "Record with fraction 1, every 1 and what: inserted, or take trainer.task.kind=direct"
    )
    return _record_problem(study, f"{text}. {remedy}")


def _range_problems(
    study: StudyConfig, record: RecordedMembers, chosen: Sequence[int]
) -> list[str]:
    """A network is scaled to the ranges that the study states."""
    values = record.parameters(chosen, study.parameter_names)
    found = []
    for column, name in enumerate(study.parameter_names):
        given = study.parameters.get(name)
        low, high = float(values[:, column].min()), float(values[:, column].max())
        if given is None or (given.lowest <= low and high <= given.highest):
            continue
        text = f"members of the record have {low:g} to {high:g}. Widen it, or leave it out"
        found.append(problem(f"parameters.{name}", given.model_dump(), text))
    return found


def _samples(study: StudyConfig, recorded: Mapping[int, int]) -> Counts:
    """Samples that each training member has, in their order."""
    ensemble, numbers = study.ensemble, recorded_numbers(study)
    training = range(ensemble.validation, ensemble.validation + ensemble.members)
    most = study.samples_per_member
    return np.array([recorded[numbers[m]] if m in numbers else most for m in training], np.int64)


def _capacity_problems(study: StudyConfig, counts: Counts) -> list[str]:
    """Members of different length leave the ranks with different numbers of samples."""
    ranks, reservoir = study.trainer.ranks, study.reservoir
    if ranks == 1 or (counts == study.samples_per_member).all():
        return []
    first = study.ensemble.validation + np.arange(counts.size)
    whole, rest = np.divmod(counts, ranks)
    place = (np.arange(ranks)[None, :] - first[:, None]) % ranks
    held = np.cumsum(whole[:, None] + (place < rest[:, None]), axis=0)
    uneven = int((held.max(axis=1) - held.min(axis=1)).max())
    uneven += study.ensemble.concurrent * flow.in_progress(study.ensemble.mpi_ranks)
    needed = reservoir.watermark + study.trainer.batch + uneven
    if reservoir.capacity >= needed:
        return []
    text = (
        f"the recorded members have different numbers of samples, so one rank may get {uneven} "
        f"more than another, and both would come to wait for ever. Raise it to {needed}"
    )
    return [problem("reservoir.capacity", reservoir.capacity, text)]


def _content_problems(study: StudyConfig, record: RecordedMembers) -> list[str]:
    """What of the record is not what this study wants."""
    return (
        _solver_problems(study, record)
        + _parameter_problems(study, record)
        + _field_problems(study, record)
        + _step_problems(study, record)
    )


def _solver_problems(study: StudyConfig, record: RecordedMembers) -> list[str]:
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


def _parameter_problems(study: StudyConfig, record: RecordedMembers) -> list[str]:
    wanted = {each.name: each.unit for each in study.solver.parameters()}
    if wanted == record.units:
        return []
    text = (
        f"its parameters are {_listed(record.units)}, those of the solver {_listed(wanted)}. Take "
        "a record of the same solver"
    )
    return [_record_problem(study, text)]


def _listed(units: Mapping[str, str]) -> str:
    return ", ".join(f"{name} [{unit}]" for name, unit in units.items()) or "none"


def _field_problems(study: StudyConfig, record: RecordedMembers) -> list[str]:
    there, wanted = record.spec, study.spec
    found = []
    missing = [name for name in wanted.names if name not in there.names]
    if missing:
        text = (
            f"has no field {', '.join(missing)}, only {', '.join(there.names)}. Set stream.fields "
            "and stream.input_fields to some of them, or leave them out"
        )
        found.append(_record_problem(study, text))
    if (there.shape, there.spacing) != (wanted.shape, wanted.spacing):
        text = (
            f"its grid has {list(there.shape)} points, that of this study {list(wanted.shape)}. "
            "Leave solver and stream.coarsen out to take the record's"
        )
        found.append(_record_problem(study, text))
    if record.dtype != study.stream.dtype:
        text = f"the record holds {record.dtype}. Set it to that, or leave it out"
        found.append(problem("stream.dtype", study.stream.dtype, text))
    return found


def _step_problems(study: StudyConfig, record: RecordedMembers) -> list[str]:
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


def _record_problem(study: StudyConfig, text: str) -> str:
    """A line about the record as a whole."""
    assert study.source is not None
    return problem("source.record", str(study.source.record), text)
