"""What a study may say, but probably does not mean."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pipeline import flow
from pipeline.study import streamed
from pipeline.study.checks import SECTIONS, Check, limits_of, run_checks
from pipeline.study.design_csv import read_rows
from pipeline.study.distributions import AnyDistribution, Constant
from pipeline.study.problems import problem
from pipeline.study.sections import (
    CsvDesign,
    EnsembleConfig,
    ReservoirConfig,
    SourceConfig,
    StreamConfig,
)
from pipeline.study.sizes import samples_per_member
from solvers.config import SolverConfig
from trainers.config import TrainerConfig

_PLACES: Final = 1025  # of a range that a network should tell apart
_ROWS: Final = 3  # that a message names at most


def warnings(sections: Mapping[str, Any]) -> list[str]:
    """What is allowed between the sections, but probably not meant."""
    checks: list[Check] = [
        (("solver", "parameters"), _range_warnings),
        (("solver", "parameters", "trainer"), _resolution_warnings),
        (("solver", "parameters", "stream", "trainer"), _seed_warnings),
        (("parameters", "ensemble", "source"), _same_members_warnings),
        (("solver", "parameters", "ensemble", "source"), _csv_warnings),
        (SECTIONS, _reservoir_warnings),
        (("ensemble",), _validation_warnings),
        (("deterministic", "trainer"), _deterministic_warnings),
    ]
    return run_checks(sections, checks)


def _deterministic_warnings(deterministic: bool, trainer: TrainerConfig) -> list[str]:
    if not deterministic or trainer.device == "cpu":
        return []
    return [
        problem(
            "trainer.device",
            trainer.device,
            "deterministic=true makes the same batches come in the same order everywhere, but "
            "GPUs do not add up in a fixed order. Set it to cpu for equal losses",
        )
    ]


def _csv_warnings(
    solver: SolverConfig,
    parameters: Mapping[str, AnyDistribution],
    ensemble: EnsembleConfig,
    source: SourceConfig | None,
) -> list[str]:
    if not isinstance(ensemble.design, CsvDesign) or source is not None:
        return []
    path, announced = ensemble.design.csv, solver.parameters()
    names = [each.name for each in announced]
    rows, wrong = read_rows(path, names, parameters, ensemble.members + ensemble.validation)
    if wrong:
        return []  # an error, which is said where the study is read
    ranges = zip(announced, rows.min(axis=0), rows.max(axis=0), strict=True)
    found = [
        f"column {each.name!r} has {low:g} to {high:g} and goes beyond what solver "
        f"{solver.kind!r} is meant for, {each.low:g} to {each.high:g} {each.unit}"
        for each, low, high in ranges
        if each.name not in parameters and not (each.low <= low and high <= each.high)
    ]
    training = {tuple(row): place for place, row in enumerate(rows[: ensemble.members], 1)}
    same = [
        f"{place} as {training[tuple(row)]}"
        for place, row in enumerate(rows[ensemble.members :], ensemble.members + 1)
        if tuple(row) in training
    ]
    if same and names:
        found.append(
            f"{len(same)} of {ensemble.validation} validation members have the parameters of a "
            f"training member (row {', '.join(same[:_ROWS])}), so that the validation error looks "
            "better than it is. Give them others"
        )
    return [f"ensemble.design.csv={path}: {text}" for text in found]


def _range_warnings(solver: SolverConfig, parameters: Mapping[str, AnyDistribution]) -> list[str]:
    found = []
    for parameter in solver.parameters():
        given = parameters.get(parameter.name)
        if given is not None and not (
            parameter.low <= given.lowest and given.highest <= parameter.high
        ):
            found.append(
                problem(
                    f"parameters.{parameter.name}",
                    given.model_dump(),
                    f"goes beyond what solver {solver.kind!r} is meant for, {parameter.low:g} to "
                    f"{parameter.high:g} {parameter.unit}",
                )
            )
    return found


def _resolution_warnings(
    solver: SolverConfig, parameters: Mapping[str, AnyDistribution], trainer: TrainerConfig
) -> list[str]:
    """Values that are one number once they are normalised, as ``Scaling`` does it, in float32."""
    found = []
    for name in [each.name for each in solver.parameters() if not each.seed]:
        given = parameters.get(name)
        if given is None or given.lowest == given.highest:
            continue
        values = given.at(np.linspace(0.0, 1.0, _PLACES if given.levels is None else given.levels))
        if trainer.parameter_scales.get(name, given.scale) == "log":
            values = np.log(values)
        middle, half = (values[0] + values[-1]) / 2, (values[-1] - values[0]) / 2
        different = np.unique(((values - middle) / half).astype(np.float32)).size
        if different < values.size:
            text = (
                f"in float32 the network sees {different} different numbers for {values.size} "
                "values of it. Set trainer.parameter_scales to log for it where it spans orders of "
                "magnitude, or let the solver take its difference from a fixed value"
            )
            found.append(problem(f"parameters.{name}", given.model_dump(), text))
    return found


def _seed_warnings(
    solver: SolverConfig,
    parameters: Mapping[str, AnyDistribution],
    stream: StreamConfig,
    trainer: TrainerConfig,
) -> list[str]:
    if trainer.task.kind not in ("direct", "operator"):
        return []  # it sees earlier snapshots, which show what was drawn
    spec = streamed.streamed_spec(solver.spec(), stream)
    names = [parameter.name for parameter in solver.parameters() if parameter.seed]
    return [
        problem(
            f"parameters.{name}",
            parameters[name].model_dump(),
            "no network can tell what a seed draws. Let it see that: set stream.input_fields to "
            f"fields among {list(solver.spec().names)} that the seed starts",
        )
        for name in names
        if name in parameters and parameters[name].levels != 1 and not spec.inputs
    ]


def _same_members_warnings(
    parameters: Mapping[str, AnyDistribution],
    ensemble: EnsembleConfig,
    source: SourceConfig | None,
) -> list[str]:
    if isinstance(ensemble.design, CsvDesign) or not parameters or ensemble.members == 1:
        return []
    if source is not None:
        return []
    if not all(isinstance(each, Constant) for each in parameters.values()):
        return []
    return [f"ensemble.members={ensemble.members}: all parameters are constant, all members equal"]


def _reservoir_warnings(
    solver: SolverConfig,
    _: Mapping[str, AnyDistribution],
    ensemble: EnsembleConfig,
    stream: StreamConfig,
    reservoir: ReservoirConfig,
    trainer: TrainerConfig,
) -> list[str]:
    samples = ensemble.members * samples_per_member(solver, stream, trainer) // trainer.ranks
    found = []
    if reservoir.watermark > samples:
        found.append(
            problem(
                "reservoir.watermark",
                reservoir.watermark,
                f"only {samples} samples will reach a rank, so training starts when all "
                "simulations are over",
            )
        )
    unbounded = reservoir.policy not in flow.ONCE and reservoir.max_surplus is None
    least = limits_of(ensemble, reservoir, trainer).reuse_reached
    if unbounded and least <= 1 and samples <= reservoir.capacity:
        how_often = "only once" if least else "once, or not at all"
        found.append(
            problem(
                "reservoir.capacity",
                reservoir.capacity,
                f"all {samples} samples of a rank fit, so solvers never wait for the trainer, and "
                f"each sample may be drawn {how_often}: how long is trained depends on how fast "
                "this machine is. Set max_reuse or min_reuse",
            )
        )
    most = ensemble.concurrent * samples_per_member(solver, stream, trainer)
    if ensemble.validation == 0 and reservoir.capacity * trainer.ranks < most:
        found.append(
            problem(
                "reservoir.capacity",
                reservoir.capacity,
                f"without validation members, fields are normalised by the first {most} samples, "
                "whole members of all simulations that run at once, which do not fit: so by parts "
                "of them. Add validation members, or raise it",
            )
        )
    failures = int(ensemble.max_failed_fraction * (ensemble.members + ensemble.validation))
    in_progress = ensemble.concurrent * flow.in_progress(ensemble.mpi_ranks)
    uneven = failures + in_progress + trainer.ranks - 1
    safe = reservoir.watermark + trainer.batch + uneven
    if trainer.ranks > 1 and reservoir.capacity < safe:
        found.append(
            problem(
                "reservoir.capacity",
                reservoir.capacity,
                f"with up to {failures} failed members (ensemble.max_failed_fraction) one rank may "
                f"get {uneven} samples more than another, and both may come to wait for ever. "
                f"Raise capacity to {safe}, or lower max_failed_fraction",
            )
        )
    return found


def _validation_warnings(ensemble: EnsembleConfig) -> list[str]:
    if ensemble.validation > 0:
        return []
    return ["ensemble.validation=0: nothing will say how good the surrogate is"]
