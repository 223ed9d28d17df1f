"""What the sections of a study demand of each other.

Every function takes what it needs and returns lines: path, value, limit, remedy. Sections that are
wrong by themselves are simply not there, so that the others are still held against each other.

Invariants (``tests/unit/test_study_config.py``):

1. A study without problems can reach its end: no wait in it is for something that cannot come.
2. A value outside what a solver is meant for is a warning, not a problem.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline import flow, streamed
from pipeline.distributions import (
    AnyDistribution,
    Constant,
    count_ranges,
    fixed_points,
    grid_levels,
    nearest_grids,
)
from pipeline.problems import nearest, problem
from pipeline.sections import (
    CsvDesign,
    EnsembleConfig,
    ReservoirConfig,
    SourceConfig,
    StreamConfig,
)
from pipeline.source import section_problems
from solvers.config import SolverConfig
from solvers.registry import known
from trainers.config import TrainerConfig
from trainers.model_checks import model_problems

# Besides these: ``deterministic``; ``given``, what stands under ``parameters:``, valid or not, by
# name; and with a "?" each section with defaults in place of what is wrong in it, for checks that
# do not look there.
SECTIONS = ("solver", "parameters", "ensemble", "stream", "reservoir", "trainer")

# Limits of one message in pipeline/stream/link.py and wire.py, which bring zmq and are not
# imported here.
MAX_PIECE_BYTES = 4 << 20
MAX_SAMPLES = 4096
MAX_HEADER_BYTES = 512

_VALUE_BYTES = {"float32": 4, "float16": 2}


_Check = tuple[tuple[str, ...], Callable[..., list[str]]]


def problems(sections: Mapping[str, Any]) -> list[str]:
    """Errors between those sections that are there."""
    found = _all(sections, [(("solver", "stream"), _stream_problems)])
    if found:  # no sample can be made of it, so nothing is held against samples
        sections = {name: section for name, section in sections.items() if name != "stream"}
    checks: list[_Check] = [
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
        (("trainer",), _precision_problems),
        (("ensemble", "trainer"), _judging_problems),
        (("solver", "ensemble", "stream", "reservoir", "trainer"), _nothing_trained_problems),
    ]
    return found + _all(sections, checks)


def warnings(sections: Mapping[str, Any]) -> list[str]:
    """What is allowed between the sections, but probably not meant."""
    checks: list[_Check] = [
        (("solver", "parameters"), _range_warnings),
        (("solver", "parameters", "stream", "trainer"), _seed_warnings),
        (("parameters", "ensemble", "source"), _same_members_warnings),
        (SECTIONS, _reservoir_warnings),
        (("ensemble",), _validation_warnings),
        (("deterministic", "trainer"), _deterministic_warnings),
    ]
    return _all(sections, checks)


def _all(sections: Mapping[str, Any], checks: Sequence[_Check]) -> list[str]:
    return [
        line
        for names, check in checks
        if all(name in sections for name in names)
        for line in check(*(sections[name] for name in names))
    ]


def samples_per_member(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Samples that a completed member yields: windows that start ``stride`` snapshots apart."""
    task = trainer.task
    return (streamed.snapshots_of(solver.max_snapshots, stream) - task.window) // task.stride + 1


def sample_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Field bytes of one sample."""
    spec = streamed.streamed_spec(solver.spec(), stream)
    return _VALUE_BYTES[stream.dtype] * trainer.task.window * math.prod(spec.sample_shape)


def slot_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Shared memory of one slot: the fields, the inputs, member, number and step."""
    inputs = len(solver.parameters()) + trainer.task.window
    return sample_bytes(solver, stream, trainer) + 4 * inputs + 3 * 8


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


def _nothing_trained_problems(
    solver: SolverConfig,
    ensemble: EnsembleConfig,
    stream: StreamConfig,
    reservoir: ReservoirConfig,
    trainer: TrainerConfig,
) -> list[str]:
    """With ``stop`` nothing follows production, so training must begin before its end."""
    samples = ensemble.members * samples_per_member(solver, stream, trainer) // trainer.ranks
    if trainer.after_production.kind != "stop" or reservoir.watermark < samples:
        return []
    text = (
        f"only {samples} samples will reach a rank, so all simulations have ended before training "
        "starts, and trainer.after_production.kind=stop ends it at once. Lower watermark, or use "
        "kind: drain"
    )
    return [problem("reservoir.watermark", reservoir.watermark, text)]


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
    if not deterministic or reservoir.policy != "reservoir" or reservoir.max_reuse is not None:
        return []
    return [
        problem(
            "reservoir.max_reuse",
            None,
            "with deterministic=true batches are drawn at fixed numbers of inserts, which are not "
            "known without it. Set it, above 1, or take policy=firo to draw each sample once",
        )
    ]


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


def _flow_problems(
    ensemble: EnsembleConfig, reservoir: ReservoirConfig, trainer: TrainerConfig
) -> list[str]:
    lines = flow.problems(
        policy=reservoir.policy,
        capacity=reservoir.capacity,
        watermark=reservoir.watermark,
        max_reuse=reservoir.max_reuse,
        max_surplus=reservoir.max_surplus,
        concurrent=ensemble.concurrent,
        batch=trainer.batch,
        ranks=trainer.ranks,
        mpi_ranks=ensemble.mpi_ranks,
    )
    return [f"reservoir.{line}" for line in lines]


def message_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Upper bound of the length of a message: samples put together, or a piece of a large one."""
    sample = sample_bytes(solver, stream, trainer)
    samples = min(max(1, stream.batch_bytes // sample), MAX_SAMPLES)
    payload = samples * sample if sample <= MAX_PIECE_BYTES else MAX_PIECE_BYTES
    table = samples * 8 * (2 + trainer.task.window)  # sample, step and times of each
    return payload + table + MAX_HEADER_BYTES + 8 * len(solver.parameters())


def _credit_problems(
    solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig
) -> list[str]:
    needed, sample = message_bytes(solver, stream, trainer), sample_bytes(solver, stream, trainer)
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
    unbounded = reservoir.policy == "reservoir" and reservoir.max_surplus is None
    if unbounded and samples <= reservoir.capacity:
        found.append(
            problem(
                "reservoir.capacity",
                reservoir.capacity,
                f"all {samples} samples of a rank fit, so solvers never wait for the trainer, and "
                "each sample may be drawn only once. Lower capacity, or set max_surplus",
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
