"""What the sections of a study demand of each other.

Every check yields lines: path, value, limit, remedy. One that looks at a section that is wrong by
itself ends there, so that the others are still held against each other.

Invariants (``tests/unit/pipeline/study/test_study_config.py``):

1. A study without problems can reach its end: no wait in it is for something that cannot come.
2. A value outside what a solver is meant for is a warning, not a problem.
"""

from collections.abc import Iterator
from contextlib import suppress

from pipeline import flow
from pipeline.study.distributions import count_ranges, fixed_points, grid_levels, nearest_grids
from pipeline.study.problems import counted, nearest, problem
from pipeline.study.sample_checks import sample_problems, stream_problems
from pipeline.study.sections import CsvDesign
from pipeline.study.unchecked import PartialStudy, SectionMissing, UncheckedStudy
from solvers.registry import known


def study_problems(study: UncheckedStudy, repaired: UncheckedStudy) -> list[str]:
    """Errors between the sections.

    Args:
        study: Sections that are wrong by themselves may be missing.
        repaired: The same with parameters as they were written, and in solver, ensemble and trainer
            with defaults in place of what is wrong, for checks that do not look there.
    """
    found = _lines_of(stream_problems(study))
    if found:  # no sample can be made of it, so nothing is held against samples
        study = PartialStudy.of({name: section for name, section in study if name != "stream"})
    return found + _lines_of(
        *sample_problems(study),
        _unknown_parameter_problems(repaired),
        _missing_parameter_problems(repaired),
        _design_problems(study, repaired),
        _source_problems(study),
        _redraw_problems(study),
        _mpi_problems(study),
        _deterministic_problems(study),
        _flow_problems(repaired),
        _scale_problems(study),
        _precision_problems(study),
        _judging_problems(study),
        _whole_stream_problems(study),
    )


def _lines_of(*checks: Iterator[str]) -> list[str]:
    found: list[str] = []
    for check in checks:
        with suppress(SectionMissing):
            found.extend(check)
    return found


def _unknown_parameter_problems(study: UncheckedStudy) -> Iterator[str]:
    names = study.parameter_names
    for name, value in study.parameters.items():
        if name not in names:
            text = f"solver {study.solver.kind!r} has no such parameter. {nearest(name, names)}"
            text += f"It has: {', '.join(names)}. Rename or remove it"
            yield problem(f"parameters.{name}", value, text)


def _missing_parameter_problems(study: UncheckedStudy) -> Iterator[str]:
    if isinstance(study.ensemble.design, CsvDesign):
        return  # they are columns
    for parameter in study.solver.parameters():
        if parameter.name not in study.parameters:
            meant = f"{parameter.low:g} to {parameter.high:g}"
            yield (
                f"parameters.{parameter.name}=nothing: solver {study.solver.kind!r} needs this "
                f"parameter ({parameter.description}, {parameter.unit}, meant for {meant}). "
                f"Add '{parameter.name}: {{uniform: [{parameter.low:g}, {parameter.high:g}]}}'"
            )


def _design_problems(study: UncheckedStudy, repaired: UncheckedStudy) -> Iterator[str]:
    ensemble, names = study.ensemble, repaired.parameter_names
    if study.source is not None or isinstance(ensemble.design, CsvDesign):
        return  # the members are there, or drawn beside them
    if not study.parameters.keys() >= {*names}:
        return
    given = [study.parameters[name] for name in names]
    if ensemble.design == "grid" and grid_levels(given, ensemble.members) is None:
        *below, most = nearest_grids(given, ensemble.members)
        fitting = " or ".join(map(str, [*below, most]))
        yield problem(
            "ensemble.members",
            ensemble.members,
            f"design=grid has {counted(fixed_points(given), 'combination')} of listed values and "
            f"{counted(count_ranges(given), 'range')} with equally many levels each, so {fitting} "
            f"{'member' if most == 1 else 'members'}. Set ensemble.members to {fitting}, or take "
            "another design",
        )
    if ensemble.validation > 0 and count_ranges(given) == 0:
        yield problem(
            "ensemble.validation",
            ensemble.validation,
            f"all parameters together have {counted(fixed_points(given), 'different value')}, "
            "which training takes, so validation must be at most 0. Give a parameter a range, or "
            "set ensemble.validation to 0",
        )


def _source_problems(study: UncheckedStudy) -> Iterator[str]:
    """What is wrong with the section, whatever the record holds."""
    ensemble, source, needed = study.ensemble, study.source, study.recorded_members
    if source is None:
        return
    chosen = source.members
    if source.live > ensemble.members:
        text = f"must be at most ensemble.members={ensemble.members}. Lower it"
        yield problem("source.live", source.live, text)
    elif needed < 1:
        text = "leaves nothing to be taken from the record. Lower it, or remove source"
        yield problem("source.live", source.live, text)
    elif chosen is not None and len(chosen) != needed:
        text = (
            f"names {counted(len(chosen), 'member')}, but {needed} are needed (ensemble.validation,"
            " unless it is live, + ensemble.members - source.live). Name as many"
        )
        yield problem("source.members", chosen, text)
    if chosen is not None and len({*chosen}) < len(chosen):
        yield problem("source.members", chosen, "a member is named twice. Name each once")
    if study.simulates and (isinstance(ensemble.design, CsvDesign) or ensemble.design == "grid"):
        text = "members beside those of a record must be drawn. Take halton, uniform or another"
        yield f"ensemble.design: {text} design that draws"
    if not study.simulates and ensemble.on_failure == "redraw":
        text = "would simulate another member, and nothing is simulated here. Set it to skip"
        yield problem("ensemble.on_failure", "redraw", text)
    if not study.simulates and ensemble.mpi_ranks > 1:
        text = "nothing is simulated here. Set it to 1"
        yield problem("ensemble.mpi_ranks", ensemble.mpi_ranks, text)


def _redraw_problems(study: UncheckedStudy) -> Iterator[str]:
    ensemble = study.ensemble
    if ensemble.on_failure == "redraw" and isinstance(ensemble.design, CsvDesign):
        text = "a CSV design has no further points. Set it to skip, or take a design that draws"
        yield problem("ensemble.on_failure", "redraw", text)


def _mpi_problems(study: UncheckedStudy) -> Iterator[str]:
    ranks, kind = study.ensemble.mpi_ranks, study.solver.kind
    if ranks == 1:
        return
    if not known(kind).distributed:
        text = (
            f": a program starts its own ranks. Set it to 1, and solver.mpi_ranks to {ranks}"
            if kind == "program"
            else " runs in one process. Set it to 1, and raise ensemble.concurrent to use more CPUs"
        )
        yield problem("ensemble.mpi_ranks", ranks, f"solver {kind!r}{text}")
    elif ranks > (longest := max(study.solver.spec().shape)):
        text = (
            f"every one of them needs points of its own, and the longest axis of solver.grid has "
            f"{longest}. Lower it to at most {longest} (far less is faster), or raise solver.grid"
        )
        yield problem("ensemble.mpi_ranks", ranks, text)


def _deterministic_problems(study: UncheckedStudy) -> Iterator[str]:
    reservoir = study.reservoir
    if study.deterministic and reservoir.policy not in flow.ONCE and reservoir.max_reuse is None:
        text = (
            "with deterministic=true batches are drawn at fixed numbers of inserts, which are not "
            "known without it. Set it, above 1, or take policy=firo to draw each sample once"
        )
        yield problem("reservoir.max_reuse", None, text)


def _flow_problems(study: UncheckedStudy) -> Iterator[str]:
    for line in study.limits.problems():
        yield f"reservoir.{line}"


def _scale_problems(study: UncheckedStudy) -> Iterator[str]:
    names = study.parameter_names
    for name, scale in study.trainer.parameter_scales.items():
        given = study.parameters.get(name)
        if name not in names:
            text = f"no such parameter. {nearest(name, names)}There is {', '.join(names)}. "
            text += "Rename or remove it"
        elif scale == "linear":
            continue
        elif given is None:
            text = f"its range is unknown. Set parameters.{name}: {{loguniform: [low, high]}}, too"
        elif given.lowest <= 0.0:
            text = f"{name}={given.lowest:g} has no logarithm. Keep {name} above 0, or use linear"
        else:
            continue
        yield problem(f"trainer.parameter_scales.{name}", scale, text)


def _precision_problems(study: UncheckedStudy) -> Iterator[str]:
    if (study.trainer.precision, study.trainer.device) == ("float16", "cpu"):
        text = (
            "trainer.device=cpu cannot train in it: a float16 gradient needs a GPU. Set precision "
            "to bfloat16 or float32, or device to cuda"
        )
        yield problem("trainer.precision", "float16", text)


def _judging_problems(study: UncheckedStudy) -> Iterator[str]:
    """What decides by the validation error needs one."""
    trainer = study.trainer
    judging = {
        "trainer.early_stop": trainer.early_stop is not None,
        "trainer.schedule.kind=plateau": trainer.schedule.kind == "plateau",
    }
    for name, asked in judging.items():
        if asked and not study.ensemble.validation:
            yield (
                f"{name}: goes by the validation error, and ensemble.validation=0 leaves none. Set "
                "ensemble.validation to at least 1, or take it out"
            )


def _whole_stream_problems(study: UncheckedStudy) -> Iterator[str]:
    """What asks for more than the whole stream has, or for draws that are never made."""
    reservoir, trainer = study.reservoir, study.trainer
    samples = study.ensemble.members * study.samples_per_member // trainer.ranks
    reach = f"only {counted(samples, 'sample')} will reach a rank"
    stops = trainer.after_production.kind == "stop"
    if stops and reservoir.watermark >= samples:
        text = (
            f"{reach}, so all simulations have ended before training starts, and trainer."
            "after_production.kind=stop ends it at once. Lower watermark, or use kind: drain"
        )
        yield problem("reservoir.watermark", reservoir.watermark, text)
    if stops and reservoir.min_reuse is not None:
        text = (
            "is reached by drawing on after the end of production, and "
            "trainer.after_production.kind=stop ends the training there. Remove one of them"
        )
        yield problem("reservoir.min_reuse", reservoir.min_reuse, text)
    if samples < trainer.batch:
        text = (
            f"{reach}, and a batch does not hold any of them twice. Lower it to at most "
            f"{max(1, samples)}, or raise ensemble.members"
        )
        yield problem("trainer.batch", trainer.batch, text)
