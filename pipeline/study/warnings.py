"""What a study may say, but probably does not mean."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from pipeline import flow
from pipeline.study.design_csv import read_rows
from pipeline.study.distributions import Constant
from pipeline.study.problems import counted, problem
from pipeline.study.sections import CsvDesign
from pipeline.study.unchecked import UncheckedStudy

_PLACES: Final = 1025  # of a range that a network should tell apart
_ROWS: Final = 3  # that a message names at most


def study_warnings(study: UncheckedStudy) -> Iterator[str]:
    """What is allowed between the sections, but probably not meant."""
    yield from _range_warnings(study)
    yield from _resolution_warnings(study)
    yield from _seed_warnings(study)
    yield from _same_members_warnings(study)
    yield from _csv_warnings(study)
    yield from _stream_warnings(study)
    yield from _normalization_warnings(study)
    yield from _failure_warnings(study)
    if study.ensemble.validation == 0:
        yield "ensemble.validation=0: nothing will say how good the surrogate is"
    if study.deterministic and study.trainer.device != "cpu":
        text = (
            "deterministic=true makes the same batches come in the same order everywhere, but "
            "GPUs do not add up in a fixed order. Set it to cpu for equal losses"
        )
        yield problem("trainer.device", study.trainer.device, text)


def _range_warnings(study: UncheckedStudy) -> Iterator[str]:
    for meant in study.solver.parameters():
        given = study.parameters.get(meant.name)
        if given and not meant.low <= given.lowest <= given.highest <= meant.high:
            text = f"goes beyond what solver {study.solver.kind!r} is meant for, {meant.low:g} to "
            yield problem(f"parameters.{meant.name}", given, f"{text}{meant.high:g} {meant.unit}")


def _resolution_warnings(study: UncheckedStudy) -> Iterator[str]:
    """Values that are one number once they are normalised, as ``Scaling`` does it, in float32."""
    for name in [each.name for each in study.solver.parameters() if not each.seed]:
        given = study.parameters.get(name)
        if given is None or given.lowest == given.highest:
            continue
        values = given.at(np.linspace(0.0, 1.0, _PLACES if given.levels is None else given.levels))
        if study.sees_logarithm(name):
            values = np.log(values)
        middle, half = (values[0] + values[-1]) / 2, (values[-1] - values[0]) / 2
        different = np.unique(((values - middle) / half).astype(np.float32)).size
        if different < values.size:
            text = (
                f"in float32 the network sees {counted(different, 'different number')} for "
                f"{values.size} values of it. Set trainer.parameter_scales to log for it where it "
                "spans orders of magnitude, or let the solver take its difference from a fixed "
                "value"
            )
            yield problem(f"parameters.{name}", given, text)


def _seed_warnings(study: UncheckedStudy) -> Iterator[str]:
    if study.trainer.task.kind not in ("direct", "operator") or study.spec.inputs:
        return  # it sees snapshots, which show what was drawn
    for name in [each.name for each in study.solver.parameters() if each.seed]:
        given = study.parameters.get(name)
        if given and given.levels != 1:
            text = (
                "no network can tell what a seed draws. Let it see that: set stream.input_fields "
                f"to fields among {list(study.solver.spec().names)} that the seed starts"
            )
            yield problem(f"parameters.{name}", given, text)


def _same_members_warnings(study: UncheckedStudy) -> Iterator[str]:
    members, given = study.ensemble.members, study.parameters.values()
    if study.source is not None or isinstance(study.ensemble.design, CsvDesign) or members == 1:
        return
    if given and all(isinstance(each, Constant) for each in given):
        yield f"ensemble.members={members}: all parameters are constant, all members equal"


def _csv_warnings(study: UncheckedStudy) -> Iterator[str]:
    ensemble, announced = study.ensemble, study.solver.parameters()
    if not isinstance(ensemble.design, CsvDesign) or study.source is not None:
        return
    path, members = ensemble.design.csv, ensemble.members
    rows, wrong = read_rows(
        path, study.parameter_names, study.parameters, members + ensemble.validation
    )
    if wrong:
        return  # an error, which is said where the study is read
    ranges = zip(announced, rows.min(axis=0), rows.max(axis=0), strict=True)
    for each, low, high in ranges:
        if each.name not in study.parameters and not each.low <= low <= high <= each.high:
            yield (
                f"ensemble.design.csv={path}: column {each.name!r} has {low:g} to {high:g} and "
                f"goes beyond what solver {study.solver.kind!r} is meant for, {each.low:g} to "
                f"{each.high:g} {each.unit}"
            )
    training = {tuple(row): place for place, row in enumerate(rows[:members], 1)}
    same = [
        f"{place} as {training[tuple(row)]}"
        for place, row in enumerate(rows[members:], members + 1)
        if tuple(row) in training
    ]
    if same and announced:
        yield (
            f"ensemble.design.csv={path}: validation members with the parameters of a training "
            f"member: {len(same)} of {ensemble.validation} (row {', '.join(same[:_ROWS])}), so "
            "that the validation error looks better than it is. Give them others"
        )


def _stream_warnings(study: UncheckedStudy) -> Iterator[str]:
    """When training starts, and how long it lasts."""
    reservoir = study.reservoir
    samples = study.ensemble.members * study.samples_per_member // study.trainer.ranks
    if reservoir.watermark > samples:
        text = (
            f"only {counted(samples, 'sample')} will reach a rank, so training starts when all "
            "simulations are over"
        )
        yield problem("reservoir.watermark", reservoir.watermark, text)
    unbounded = reservoir.policy not in flow.ONCE and reservoir.max_surplus is None
    least = study.limits.reuse_reached
    if unbounded and least <= 1 and samples <= reservoir.capacity:
        how_often = "only once" if least else "once, or not at all"
        text = (
            f"there is room for all samples of a rank ({samples}), so solvers never wait for the "
            f"trainer, and each sample may be drawn {how_often}: how long is trained depends on "
            "how fast this machine is. Set max_reuse or min_reuse"
        )
        yield problem("reservoir.capacity", reservoir.capacity, text)


def _normalization_warnings(study: UncheckedStudy) -> Iterator[str]:
    capacity, most = study.reservoir.capacity, study.ensemble.concurrent * study.samples_per_member
    if study.ensemble.validation == 0 and capacity * study.trainer.ranks < most:
        text = (
            f"without validation members, fields are normalised by the first {most} samples, "
            "whole members of all simulations that run at once, which do not fit: so by parts "
            "of them. Add validation members, or raise it"
        )
        yield problem("reservoir.capacity", capacity, text)


def _failure_warnings(study: UncheckedStudy) -> Iterator[str]:
    """How many more samples one rank may get than another where members fail."""
    ensemble, reservoir, trainer = study.ensemble, study.reservoir, study.trainer
    failures = int(ensemble.max_failed_fraction * (ensemble.members + ensemble.validation))
    uneven = failures + study.limits.spread
    safe = reservoir.watermark + trainer.batch + uneven
    if trainer.ranks > 1 and reservoir.capacity < safe:
        text = (
            f"with up to {counted(failures, 'failed member')} (ensemble.max_failed_fraction) one "
            f"rank may get {counted(uneven, 'sample')} more than another, and both may come to "
            f"wait for ever. Raise capacity to {safe}, or lower max_failed_fraction"
        )
        yield problem("reservoir.capacity", reservoir.capacity, text)
