"""Explains solvers, and says what a member of each costs on this machine.

1. A cost is measured with the settings that are shown; what was cut short says so.
2. A solver whose cost cannot be measured here is explained all the same, with the reason.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from deploy import figures
from deploy.cluster import machine
from pipeline.errors import ConfigError
from pipeline.members.one_member import Cost, cost_of, parameters_of, typical_parameters
from pipeline.study.config import StudyConfig
from pipeline.study.load import load
from solvers import registry
from solvers.base import SolverFailed
from solvers.config import AnySolverConfig
from solvers.configs.own import OwnConfig
from solvers.own.announce import with_announcement
from solvers.own.load import Unusable

# Their defaults are examples, not something that could run.
EXAMPLES = ("program", "own")


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
        return _seconds(cost_of(config, typical_parameters(config)).seconds)
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
        f"  all members  {_seconds(total)} = {figures.count(members)} members x "
        f"{_seconds(cost.seconds)} / {at_once} at a time"
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
    extra = f"; the first of a process {_seconds(first)} more" if first > 0.1 * cost.seconds else ""
    size = figures.size(cost.snapshot_bytes * cost.snapshots)
    return (
        f"  one member   {_seconds(cost.seconds)} for {figures.count(cost.snapshots)} snapshots "
        f"({size}){cut}{extra}"
    )


def _seconds(value: float) -> str:
    """``0.0213`` -> ``21 ms``; from one second on as everywhere."""
    return f"{1000 * value:.2g} ms" if value < 0.9995 else figures.seconds(value)
