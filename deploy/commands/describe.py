"""Explains solvers and networks, and says what a member costs on this machine.

1. A cost is measured with the settings that are shown; what was cut short says so.
2. A solver whose cost cannot be measured here is explained all the same, with the reason.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy import figures
from deploy.cluster import machine
from pipeline.errors import ConfigError
from pipeline.members.one_member import Cost, cost_of, parameters_of, typical_parameters
from pipeline.study.config import StudyConfig
from pipeline.study.load import load
from pipeline.study.problems import counted
from solvers import registry
from solvers.base import SolverFailed
from solvers.config import AnySolverConfig
from solvers.configs.own import OwnConfig
from solvers.own.announce import with_announcement
from solvers.own.load import Unusable

# Their defaults are examples, not something that could run.
EXAMPLES = ("program", "own")

NUM_INPUTS: Final = 6  # of the network that weights are counted for
FIELD_SHAPE: Final = (2, 64, 64)


def listing(*, measured: bool) -> Iterator[str]:
    """Every kind of solver in one line, with the cost of a member where that is asked for."""
    width = max(map(len, registry.SOLVERS))
    for kind, entry in registry.SOLVERS.items():
        cost = ""
        if measured:
            known = figures.UNKNOWN if kind in EXAMPLES else _brief(entry())
            cost = f"{known:>8}  "
        yield f"{kind:<{width}}  {cost}{entry.summary}"
    if measured:
        yield ""
        yield "The time is that of one member with default settings, on one core of this machine."


def description(asked: str, *, measured: bool) -> Iterator[str]:
    """A kind, somebody's own ``FILE.py:CLASS``, or the solver of a study.

    Raises:
        ConfigError: It is none of these, or it is wrong.
    """
    if asked in registry.SOLVERS:
        yield registry.describe(asked)
        if measured and asked not in EXAMPLES:
            yield from _cost_lines(registry.known(asked)())
    elif asked.endswith((".yaml", ".yml")):
        study = load(asked)
        yield registry.describe_config(study.solver)
        if measured:
            yield from _study_cost_lines(study)
    elif ".py" in asked:
        try:
            section = with_announcement({"path": asked}, Path.cwd())
        except Unusable as error:
            raise ConfigError(error.problems) from None
        config = OwnConfig.model_validate(section)
        yield registry.describe_config(config, value="default")
        if measured:
            yield from _cost_lines(config)
    else:
        known = ", ".join(registry.SOLVERS)
        line = f"SOLVER={asked}: there is no such solver. Choose one of {known}"
        raise ConfigError([f"{line}; or name your own FILE.py:CLASS, or a study.yaml"])


def _brief(config: AnySolverConfig) -> str:
    try:
        return figures.duration(cost_of(config, typical_parameters(config)).seconds)
    except (ConfigError, SolverFailed):
        return figures.UNKNOWN


def _cost_lines(config: AnySolverConfig) -> Iterator[str]:
    yield "\nCost (these settings, parameters in the middle of their ranges, one core here)"
    try:
        yield _of_one(cost_of(config, typical_parameters(config)))
    except (ConfigError, SolverFailed) as error:
        yield f"  cannot be measured here: {error}"


def _study_cost_lines(study: StudyConfig) -> Iterator[str]:
    ensemble = study.ensemble
    member = ensemble.validation  # the first that is trained on
    yield f"\nCost (member {member} of the study, one core here)"
    if missing := machine.program_problems(study):
        yield f"  cannot be measured here: {missing[0]}"
        return
    try:
        cost = cost_of(study.solver, parameters_of(study, member))
    except (ConfigError, SolverFailed) as error:
        yield f"  cannot be measured here: {error}"
        return
    yield _of_one(cost)
    members, cores = ensemble.members + ensemble.validation, os.cpu_count() or 1
    at_once = min(ensemble.concurrent, cores)
    total = cost.seconds * members / at_once + cost.first_seconds
    few = f" (ensemble.concurrent={ensemble.concurrent}, but {cores} cores)"
    yield (
        f"  all members  {figures.duration(total)} = {counted(members, 'member')} x "
        f"{figures.duration(cost.seconds)} / {at_once} at a time"
        f"{few if at_once < ensemble.concurrent else ''}"
    )
    yield "  The study takes longer where solvers wait for the trainer, or share its cores."


def _of_one(cost: Cost) -> str:
    cut = (
        f", extrapolated from the first {figures.count(cost.measured)}"
        if cost.measured < cost.snapshots
        else ""
    )
    first = cost.first_seconds
    extra = (
        f"; the first of a process {figures.duration(first)} more"
        if first > 0.1 * cost.seconds
        else ""
    )
    size = figures.size(cost.snapshot_bytes * cost.snapshots)
    return (
        f"  one member   {figures.duration(cost.seconds)} for "
        f"{counted(cost.snapshots, 'snapshot')} "
        f"({size}){cut}{extra}"
    )


def networks() -> str:
    """What stands under ``trainer.model``, for a person to read."""
    from trainers.models.registry import MODELS, build_model, count_weights  # brings torch

    points = " x ".join(map(str, FIELD_SHAPE[1:]))
    fields = f"{FIELD_SHAPE[0]} fields of {points} points"
    lines = [
        "Networks (under `trainer:`, `model: {kind: ...}`). Weights are those of the defaults,",
        f"from {NUM_INPUTS - 1} parameters and time to {fields}.",
    ]
    for kind, model in MODELS.items():
        options, weights = model.options, ""
        if all(option.default is not None for option in options):
            network = build_model(
                model.config.model_validate({}), num_inputs=NUM_INPUTS, field_shape=FIELD_SHAPE
            )
            weights = f"{count_weights(network):,} weights"
        lines += ["", f"{kind}: {model.summary}", f"  {weights}" if weights else "  your weights"]
        width = max(len(option.name) for option in options)
        shown = [_shown(option.default) for option in options]
        columns = max(map(len, shown))
        lines += [
            f"  {option.name:<{width}}  {default:<{columns}}  {option.description}"
            for option, default in zip(options, shown, strict=True)
        ]
    return "\n".join(lines)


def _shown(default: object) -> str:
    """A default as it is written in a study."""
    return "required" if default is None else json.dumps(default).strip('"')
