"""What the sections of a study demand of each other.

Every function takes what it needs and returns lines: path, value, limit, remedy. Sections that are
wrong by themselves are simply not there, so that the others are still held against each other.

Invariants (``tests/unit/pipeline/study/test_study_config.py``):

1. A study without problems can reach its end: no wait in it is for something that cannot come.
2. A value outside what a solver is meant for is a warning, not a problem.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline import flow
from pipeline.study import streamed
from pipeline.study.distributions import (
    AnyDistribution,
    count_ranges,
    fixed_points,
    grid_levels,
    nearest_grids,
)
from pipeline.study.problems import nearest, problem
from pipeline.study.sections import (
    CsvDesign,
    EnsembleConfig,
    ReservoirConfig,
    SourceConfig,
    StreamConfig,
)
from pipeline.study.sizes import message_bytes, sample_layout, samples_per_member
from solvers.config import SolverConfig
from solvers.registry import known
from trainers.config import TrainerConfig
from trainers.configs.model_checks import model_problems

# Besides these: ``deterministic``; ``given``, what stands under ``parameters:``, valid or not, by
# name; and with a "?" each section with defaults in place of what is wrong in it, for checks that
# do not look there.
SECTIONS = ("solver", "parameters", "ensemble", "stream", "reservoir", "trainer")

_NEEDED = "(ensemble.validation, unless it is live, + ensemble.members - source.live)"

Check = tuple[tuple[str, ...], Callable[..., list[str]]]


def problems(sections: Mapping[str, Any]) -> list[str]:
    """Errors between those sections that are there."""
    found = run_checks(sections, [(("solver", "stream"), _stream_problems)])
    if found:  # no sample can be made of it, so nothing is held against samples
        sections = {name: section for name, section in sections.items() if name != "stream"}
    checks: list[Check] = [
        (("solver", "stream", "trainer"), _sample_problems),
        (("solver", "stream", "trainer"), _model_problems),
        (("solver?", "given"), _unknown_parameter_problems),
        (("solver?", "given", "ensemble?"), _missing_parameter_problems),
        (("solver?", "parameters", "ensemble", "source"), _design_problems),
        (("ensemble", "source"), _source_problems),
        (("ensemble",), _redraw_problems),
        (("solver", "ensemble"), _mpi_problems),
        (("deterministic", "reservoir"), _deterministic_problems),
        (("ensemble?", "reservoir", "trainer?"), _flow_problems),
        (("solver", "stream", "trainer"), _credit_problems),
        (("solver", "stream", "trainer"), _task_problems),
        (("solver", "parameters", "trainer"), _scale_problems),
        (("trainer",), _precision_problems),
        (("ensemble", "trainer"), _judging_problems),
        (("solver", "ensemble", "stream", "reservoir", "trainer"), _whole_stream_problems),
    ]
    return found + run_checks(sections, checks)


def run_checks(sections: Mapping[str, Any], checks: Sequence[Check]) -> list[str]:
    """Lines of those checks whose sections are all there."""
    return [
        line
        for names, check in checks
        if all(name in sections for name in names)
        for line in check(*(sections[name] for name in names))
    ]


def _stream_problems(solver: SolverConfig, stream: StreamConfig) -> list[str]:
    return streamed.problems(solver.spec(), stream)


def _sample_problems(
    solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig
) -> list[str]:
    snapshots = streamed.snapshots_of(solver.max_snapshots, stream)
    if snapshots >= trainer.task.window:
        return []
    return [
        problem(
            "trainer.task.window",
            trainer.task.window,
            f"a member yields only {snapshots} snapshots (stream.initial_state="
            f"{str(stream.initial_state).lower()}, stream.every={stream.every}). Lower the window "
            f"to at most {snapshots}, or raise solver.steps",
        )
    ]


def _task_problems(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> list[str]:
    spec = streamed.streamed_spec(solver.spec(), stream)
    predicted = spec.names[: len(spec.names) - len(spec.inputs)]
    found = [
        problem(
            f"trainer.field_weights.{name}",
            weight,
            f"no such field is predicted. {nearest(name, predicted)}There is "
            f"{', '.join(predicted)}. Rename or remove it",
        )
        for name, weight in trainer.field_weights.items()
        if name not in predicted
    ]
    if trainer.task.kind == "operator" and not spec.inputs:
        found.append(
            problem(
                "trainer.task.kind",
                "operator",
                "nothing is given that an operator could be learnt from. Add stream.input_fields: "
                f"[{predicted[0]}], take a solver with an input field, or use kind: direct",
            )
        )
    return found


def _scale_problems(
    solver: SolverConfig, parameters: Mapping[str, AnyDistribution], trainer: TrainerConfig
) -> list[str]:
    names, found = [parameter.name for parameter in solver.parameters()], []
    for name, scale in trainer.parameter_scales.items():
        path, given = f"trainer.parameter_scales.{name}", parameters.get(name)
        if name not in names:
            text = f"no such parameter. {nearest(name, names)}There is {', '.join(names)}"
            found.append(problem(path, scale, f"{text}. Rename or remove it"))
        elif scale == "linear":
            continue
        elif given is None:
            text = f"its range is unknown. Set parameters.{name}: {{loguniform: [low, high]}}, too"
            found.append(problem(path, scale, text))
        elif given.lowest <= 0.0:
            text = f"{name}={given.lowest:g} has no logarithm. Keep {name} above 0, or use linear"
            found.append(problem(path, scale, text))
    return found


def _model_problems(
    solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig
) -> list[str]:
    grid = streamed.streamed_spec(solver.spec(), stream).shape
    return [f"trainer.model.{line}" for line in model_problems(trainer.model, grid)]


def _precision_problems(trainer: TrainerConfig) -> list[str]:
    if (trainer.precision, trainer.device) != ("float16", "cpu"):
        return []
    text = (
        "trainer.device=cpu cannot train in it: a float16 gradient needs a GPU. Set precision to "
        "bfloat16 or float32, or device to cuda"
    )
    return [problem("trainer.precision", "float16", text)]


def _judging_problems(ensemble: EnsembleConfig, trainer: TrainerConfig) -> list[str]:
    """What decides by the validation error needs one."""
    if ensemble.validation:
        return []
    judging = {
        "trainer.early_stop": trainer.early_stop is not None,
        "trainer.schedule.kind=plateau": trainer.schedule.kind == "plateau",
    }
    return [
        f"{name}: goes by the validation error, and ensemble.validation=0 leaves none. Set "
        "ensemble.validation to at least 1, or take it out"
        for name, asked in judging.items()
        if asked
    ]


def _whole_stream_problems(
    solver: SolverConfig,
    ensemble: EnsembleConfig,
    stream: StreamConfig,
    reservoir: ReservoirConfig,
    trainer: TrainerConfig,
) -> list[str]:
    """What asks for more than the whole stream has, or for draws that are never made."""
    samples = ensemble.members * samples_per_member(solver, stream, trainer) // trainer.ranks
    stops = trainer.after_production.kind == "stop"
    found = []
    if stops and reservoir.watermark >= samples:
        text = (
            f"only {samples} samples will reach a rank, so all simulations have ended before "
            "training starts, and trainer.after_production.kind=stop ends it at once. Lower "
            "watermark, or use kind: drain"
        )
        found.append(problem("reservoir.watermark", reservoir.watermark, text))
    if stops and reservoir.min_reuse is not None:
        text = (
            "is reached by drawing on after the end of production, and "
            "trainer.after_production.kind=stop ends the training there. Remove one of them"
        )
        found.append(problem("reservoir.min_reuse", reservoir.min_reuse, text))
    if samples < trainer.batch:
        text = (
            f"only {samples} samples will reach a rank, and a batch does not hold any of them "
            f"twice. Lower it to at most {max(1, samples)}, or raise ensemble.members"
        )
        found.append(problem("trainer.batch", trainer.batch, text))
    return found


def _unknown_parameter_problems(solver: SolverConfig, given: Mapping[str, object]) -> list[str]:
    known = [parameter.name for parameter in solver.parameters()]
    return [
        problem(
            f"parameters.{name}",
            value,
            f"solver {solver.kind!r} has no such parameter. {nearest(name, known)}"
            f"It has: {', '.join(known)}. Rename or remove it",
        )
        for name, value in given.items()
        if name not in known
    ]


def _missing_parameter_problems(
    solver: SolverConfig, given: Mapping[str, object], ensemble: EnsembleConfig
) -> list[str]:
    if isinstance(ensemble.design, CsvDesign):
        return []  # they are columns
    return [
        f"parameters.{parameter.name}=nothing: solver {solver.kind!r} needs this parameter "
        f"({parameter.description}, {parameter.unit}, meant for {parameter.low:g} to "
        f"{parameter.high:g}). Add '{parameter.name}: "
        f"{{uniform: [{parameter.low:g}, {parameter.high:g}]}}'"
        for parameter in solver.parameters()
        if parameter.name not in given
    ]


def _source_problems(ensemble: EnsembleConfig, source: SourceConfig | None) -> list[str]:
    if source is None:
        return []
    return section_problems(
        members=ensemble.members,
        validation=ensemble.validation,
        redraws=ensemble.on_failure == "redraw",
        mpi_ranks=ensemble.mpi_ranks,
        drawn=not isinstance(ensemble.design, CsvDesign) and ensemble.design != "grid",
        source=source,
    )


def section_problems(
    members: int, validation: int, redraws: bool, mpi_ranks: int, drawn: bool, source: SourceConfig
) -> list[str]:
    """What is wrong with the section, whatever the record holds.

    Args:
        members: ``ensemble.members``.
        validation: ``ensemble.validation``.
        redraws: Whether another member takes the place of a failed one.
        mpi_ranks: Of one simulation.
        drawn: Whether the design draws, as many members as are wanted.
        source: The section.
    """
    found = []
    if source.live > members:
        text = f"must be at most ensemble.members={members}. Lower it"
        found.append(problem("source.live", source.live, text))
    needed = recorded_count(members, validation, source)
    if needed < 1 and not found:
        text = "leaves nothing to be taken from the record. Lower it, or remove source"
        found.append(problem("source.live", source.live, text))
    simulated = source.live + (validation if source.validation == "live" else 0)
    if simulated == 0 and redraws:
        text = "would simulate another member, and nothing is simulated here. Set it to skip"
        found.append(problem("ensemble.on_failure", "redraw", text))
    if simulated == 0 and mpi_ranks > 1:
        text = "nothing is simulated here. Set it to 1"
        found.append(problem("ensemble.mpi_ranks", mpi_ranks, text))
    if simulated > 0 and not drawn:
        text = "members beside those of a record must be drawn. Take halton, uniform or another"
        found.append(f"ensemble.design: {text} design that draws")
    chosen = source.members
    if chosen is not None and len(chosen) != needed and not found:
        text = f"{len(chosen)} members are named, but {needed} are needed {_NEEDED}. Name as many"
        found.append(problem("source.members", list(chosen), text))
    if chosen is not None and len(set(chosen)) < len(chosen):
        text = "a member is named twice. Name each once"
        found.append(problem("source.members", list(chosen), text))
    return found


def recorded_count(members: int, validation: int, source: SourceConfig) -> int:
    """Members that are taken from the record."""
    return members - source.live + (validation if source.validation == "recorded" else 0)


def _design_problems(
    solver: SolverConfig,
    parameters: Mapping[str, AnyDistribution],
    ensemble: EnsembleConfig,
    source: SourceConfig | None,
) -> list[str]:
    if source is not None:
        return []  # the members are there, or drawn beside them
    known = {parameter.name for parameter in solver.parameters()}
    distributions = [parameters[name] for name in parameters if name in known]
    if isinstance(ensemble.design, CsvDesign) or len(distributions) < len(known):
        return []
    found = []
    if ensemble.design == "grid" and grid_levels(distributions, ensemble.members) is None:
        counts = nearest_grids(distributions, ensemble.members)
        fitting = " or ".join(str(count) for count in counts)
        found.append(
            problem(
                "ensemble.members",
                ensemble.members,
                f"design=grid has {fixed_points(distributions)} combinations of listed values and "
                f"{count_ranges(distributions)} ranges with equally many levels each, so "
                f"{fitting} members. Set ensemble.members to {fitting}, or take another design",
            )
        )
    if ensemble.validation > 0 and count_ranges(distributions) == 0:
        found.append(
            problem(
                "ensemble.validation",
                ensemble.validation,
                f"all parameters together have {fixed_points(distributions)} different values, "
                "which are trained on, so validation must be at most 0. Give a parameter a range, "
                "or set ensemble.validation to 0",
            )
        )
    return found


def _redraw_problems(ensemble: EnsembleConfig) -> list[str]:
    if ensemble.on_failure == "skip" or not isinstance(ensemble.design, CsvDesign):
        return []
    return [
        problem(
            "ensemble.on_failure",
            ensemble.on_failure,
            "a CSV design has no further points. Set it to skip, or take a design that draws",
        )
    ]


def _deterministic_problems(deterministic: bool, reservoir: ReservoirConfig) -> list[str]:
    if not deterministic or reservoir.policy in flow.ONCE or reservoir.max_reuse is not None:
        return []
    return [
        problem(
            "reservoir.max_reuse",
            None,
            "with deterministic=true batches are drawn at fixed numbers of inserts, which are not "
            "known without it. Set it, above 1, or take policy=firo to draw each sample once",
        )
    ]


def _mpi_problems(solver: SolverConfig, ensemble: EnsembleConfig) -> list[str]:
    ranks = ensemble.mpi_ranks
    if ranks == 1:
        return []
    if not known(solver.kind).distributed:
        own = (
            f": a program starts its own ranks. Set it to 1, and solver.mpi_ranks to {ranks}"
            if solver.kind == "program"
            else " runs in one process. Set it to 1, and raise ensemble.concurrent to use more CPUs"
        )
        return [problem("ensemble.mpi_ranks", ranks, f"solver {solver.kind!r}{own}")]
    longest = max(solver.spec().shape)
    if ranks > longest:
        return [
            problem(
                "ensemble.mpi_ranks",
                ranks,
                f"every one of them needs points of its own, and the longest axis of solver.grid "
                f"has {longest}. Lower it to at most {longest} (far less is faster), or raise "
                "solver.grid",
            )
        ]
    return []


def limits_of(
    ensemble: EnsembleConfig, reservoir: ReservoirConfig, trainer: TrainerConfig
) -> flow.Limits:
    """All that decides who waits for whom."""
    return flow.Limits(
        policy=reservoir.policy,
        capacity=reservoir.capacity,
        watermark=reservoir.watermark,
        max_reuse=reservoir.max_reuse,
        max_surplus=reservoir.max_surplus,
        min_reuse=0.0 if trainer.after_production.kind == "stop" else reservoir.min_reuse,
        concurrent=ensemble.concurrent,
        batch=trainer.batch,
        ranks=trainer.ranks,
        mpi_ranks=ensemble.mpi_ranks,
    )


def _flow_problems(
    ensemble: EnsembleConfig, reservoir: ReservoirConfig, trainer: TrainerConfig
) -> list[str]:
    lines = limits_of(ensemble, reservoir, trainer).problems()
    return [f"reservoir.{line}" for line in lines]


def _credit_problems(
    solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig
) -> list[str]:
    needed = message_bytes(solver, stream, trainer)
    sample = sample_layout(solver, stream, trainer).nbytes
    if stream.credit_bytes >= needed:
        return []
    return [
        problem(
            "stream.credit_bytes",
            stream.credit_bytes,
            f"a message has up to {needed} bytes (stream.batch_bytes={stream.batch_bytes}, one "
            f"sample {sample}) and would never be sent. Raise credit_bytes "
            f"to at least {needed}",
        )
    ]
