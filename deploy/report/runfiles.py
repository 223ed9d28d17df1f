"""Reads a run directory back for the report: whatever is there, in arrays that can be plotted.

1. A missing, empty or cut-off file leaves its part out; it is never an error.
2. Nothing in a run directory is executed: JSON and plain NumPy arrays only.
3. Reading is bounded by one line of ``metrics.jsonl`` at a time and a few numbers kept of each.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Float64
from pydantic import ValidationError

from pipeline.control.rundir import RunPaths
from pipeline.errors import ConfigError, carry_on
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.members import Members, MemberTable, mean_errors
from pipeline.stats.regions import ErrorsOf, errors_by_region, parameters_of
from pipeline.stats.stats import Phase
from pipeline.study.config import StudyConfig
from trainers.results import ValidationResult

Curve = Float64[np.ndarray, " time"]
ARRAYS = ("members", "steps", "times", "truth", "prediction")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The course of a study; every array has one value per line of ``metrics.jsonl``.

    Attributes:
        elapsed: Seconds since the start.
        phase: What the study was doing.
        train_step: Furthest of any rank; 0 before the first.
        loss: Mean over ranks; nan before the first train step.
        validated_step: Train step of the newest validation; 0 before the first.
        validation_error: Mean of the fields' errors, in standard deviations; nan before the first.
        capacity: Slots of all ranks.
        held: Samples of all ranks that may be drawn from.
        unseen: Of those, never drawn.
        inserted_rate: Samples stored per second.
        drawn_rate: Draws per second.
        solver_blocked: Seconds so far, mean over ranks.
        trainer_blocked: Seconds so far, mean over ranks.
    """

    elapsed: Curve
    phase: tuple[Phase, ...]
    train_step: Curve
    loss: Curve
    validated_step: Curve
    validation_error: Curve
    capacity: Curve
    held: Curve
    unseen: Curve
    inserted_rate: Curve
    drawn_rate: Curve
    solver_blocked: Curve
    trainer_blocked: Curve


@dataclass(frozen=True, kw_only=True, slots=True)
class Channels:
    """Names, units and spacing of the fields, as far as they are known.

    Attributes:
        names: One per channel.
        units: One per channel, empty where unknown.
        spacing: Metres between grid points, one per axis; empty where unknown.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    spacing: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One validation sample, in physical units.

    Attributes:
        place: ``"best"``, ``"median"`` or ``"worst"`` among the validation members; empty where
            their errors are unknown.
        member: Its number.
        time: In seconds.
        error: Error of the whole member, mean over its fields; None where it is unknown.
    """

    place: str
    member: int
    time: float
    error: float | None
    truth: Float[np.ndarray, " channel *grid"]
    prediction: Float[np.ndarray, " channel *grid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """What a run directory holds.

    Attributes:
        name: Of the study, or of the directory where that is unknown.
        source: ``study.yaml`` as it was given.
        config: The study as it was understood.
        summary: ``summary.json``; empty when the study did not get that far.
        last: The last line of ``metrics.jsonl``.
        series: All lines of it.
        channels: What the fields are.
        validation: Newest errors; None before the first validation.
        members: Errors of each validation member.
        parameters: Of each member that was started, by name.
        regions: Their errors by each parameter, the strongest effect first.
        breakeven: When the study has paid; None where that is unknown.
        pictures: Of the best, the median and the worst of them.
    """

    name: str
    source: str
    config: dict[str, Any]
    summary: dict[str, Any]
    last: dict[str, Any]
    series: Series
    channels: Channels
    validation: ValidationResult | None
    members: MemberTable
    parameters: dict[int, dict[str, float]]
    regions: tuple[ErrorsOf, ...]
    breakeven: Breakeven | None
    pictures: tuple[Picture, ...]


def read(out: Path) -> RunFiles:
    """Read ``out``, leaving out what is not there."""
    paths = RunPaths(out)
    config, summary = _json(paths.resolved), _json(paths.summary)
    last: dict[str, Any] = {}
    rows, phases = [], []
    for stats in _lines(paths.metrics):
        rows.append(_row(stats))
        phases.append(stats["phase"])
        last = stats
    members = MemberTable.newest(paths.members)
    study, parameters = _study(config), parameters_of(_lines(paths.journal))
    return RunFiles(
        name=str(config.get("name", summary.get("name", out.name))),
        source=_text(paths.study),
        config=config,
        summary=summary,
        last=last,
        series=_series(rows, tuple(phases)),
        channels=_channels(study),
        validation=_newest(last),
        members=members,
        parameters=parameters,
        regions=_regions(study, parameters, members.shown),
        breakeven=_breakeven(summary.get("breakeven") or last.get("breakeven")),
        pictures=_pictures(paths.validation, mean_errors(members.shown)),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                # A study that was killed may leave half a line behind.
                continue


def _row(stats: dict[str, Any]) -> tuple[float, ...]:
    reservoirs, ranks = stats["reservoirs"], stats["ranks"]
    started = [rank for rank in ranks if rank["train_step"] > 0]
    newest = _newest(stats)
    return (
        stats["elapsed_seconds"],
        max((rank["train_step"] for rank in ranks), default=0),
        _mean([rank["loss"] for rank in started], empty=np.nan),
        0 if newest is None else newest.train_step,
        np.nan if newest is None else newest.error,
        *(sum(one[name] for one in reservoirs) for name in ("capacity", "held", "unseen")),
        stats["samples_inserted_per_second"],
        stats["samples_drawn_per_second"],
        *(
            _mean([one[name] for one in reservoirs], empty=0.0)
            for name in ("solver_blocked_seconds", "trainer_blocked_seconds")
        ),
    )


def _mean(values: list[float], *, empty: float) -> float:
    return sum(values) / len(values) if values else empty


def _series(rows: list[tuple[float, ...]], phases: tuple[Phase, ...]) -> Series:
    names = [name for name in Series.__dataclass_fields__ if name != "phase"]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    columns = {name: table[:, index] for index, name in enumerate(names)}
    return Series(phase=phases, **columns)


def _newest(stats: dict[str, Any]) -> ValidationResult | None:
    """The newest validation result that a line of ``metrics.jsonl`` holds."""
    results = [rank["validation"] for rank in stats.get("ranks", ()) if rank["validation"]]
    try:
        found = [ValidationResult.from_json(one) for one in results]
    except (KeyError, TypeError):  # of another version
        return None
    return max(found, key=lambda one: one.train_step, default=None)


def _breakeven(tree: dict[str, Any] | None) -> Breakeven | None:
    try:
        return None if tree is None else Breakeven(**tree)
    except TypeError:  # of another version
        return None


def _study(config: dict[str, Any]) -> StudyConfig | None:
    try:
        return StudyConfig.model_validate(config)
    except (ValidationError, ConfigError, OSError):
        # A run of another version, or a solver of the user's own that is gone.
        return None


def _regions(
    study: StudyConfig | None,
    parameters: dict[int, dict[str, float]],
    errors: Members,
) -> tuple[ErrorsOf, ...]:
    found: tuple[ErrorsOf, ...] = ()
    with carry_on("error by parameter in the report"):
        if study is not None:
            found = errors_by_region(study, parameters, errors)
    return found


def _channels(study: StudyConfig | None) -> Channels:
    if study is None:
        return Channels(names=(), units=(), spacing=())
    spec = study.spec
    predicted = len(spec.names) - len(spec.inputs)
    return Channels(
        names=spec.names[:predicted], units=spec.units[:predicted], spacing=spec.spacing
    )


def _pictures(folder: Path, errors: dict[int, float]) -> tuple[Picture, ...]:
    """Last sample of the best, the median and the worst member that was kept."""
    parts = [part for path in sorted(folder.glob("rank*.npz")) if (part := _arrays(path))]
    if not parts:
        return ()
    members, times = (np.concatenate([part[name] for part in parts]) for name in ARRAYS[0:3:2])
    truth, prediction = (np.concatenate([part[name] for part in parts]) for name in ARRAYS[3:])
    if members.size == 0:
        return ()
    kept = [int(member) for member in np.unique(members)]
    order = sorted(kept, key=lambda member: (errors.get(member, np.inf), member))
    named = {"worst": order[-1], "median": order[(len(order) - 1) // 2], "best": order[0]}
    if not errors.keys() >= set(kept):
        named = {}
    pictures = []
    for member in dict.fromkeys(reversed(named.values())) if named else kept:
        place = ", ".join(name for name in reversed(named) if named[name] == member)
        mine = np.flatnonzero(members == member)
        row = int(mine[np.argmax(times[mine])])
        pictures.append(
            Picture(
                place=place,
                member=member,
                time=float(times[row]),
                error=errors.get(member),
                truth=truth[row],
                prediction=prediction[row],
            )
        )
    return tuple(pictures)


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None
