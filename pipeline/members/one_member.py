"""Runs one member of a study alone in this process: no Ray, no reservoir, no trainer.

1. A member has exactly the parameters that ``pipeline.run`` would give it, and the same solver.
2. The solver is closed however the member ends.
3. A cost is measured for ``LIMIT_SECONDS`` at most (a single step is not interrupted); what was cut
   short is extrapolated, and says so.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from solvers.base import Solver
from solvers.config import AnySolverConfig

LIMIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one member takes.

    Attributes:
        seconds: Of one member, after the first one of its process.
        first_seconds: What the first member of a process takes longer: matrices, factorisations.
        snapshots: Most that it yields, the initial state included.
        measured: How many of them were really computed.
        snapshot_bytes: Of one snapshot.
    """

    seconds: float
    first_seconds: float
    snapshots: int
    measured: int
    snapshot_bytes: int


def parameters_of(study: StudyConfig, member: int) -> dict[str, float]:
    """What member ``member`` is simulated with; validation members carry the lowest numbers.

    Raises:
        ConfigError: The study has no such member.
    """
    try:
        return design_of(study).values(member)
    except IndexError:
        total = study.ensemble.validation + study.ensemble.members
        line = (
            f"--member {member}: the study has members 0 to {total - 1}, the first "
            f"{study.ensemble.validation} of them for validation. Choose one of these"
        )
        raise ConfigError([line]) from None


@contextmanager
def built(config: AnySolverConfig) -> Iterator[tuple[Solver, object]]:
    """A solver and the communicator to run it on, until the block ends.

    Raises:
        ConfigError: PETSc is missing, or the solver cannot be built with these settings.
    """
    try:
        from solvers import petsc, registry  # here: checking a study needs no PETSc

        solver = registry.build(config)
    except ModuleNotFoundError as error:
        if error.name not in ("petsc4py", "mpi4py"):
            raise
        line = (
            f"solver.kind={config.kind}: PETSc is needed to simulate, and {error.name} is not "
            "installed here. Install it with `make`, or go where it is"
        )
        raise ConfigError([line]) from None
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    try:
        yield solver, petsc.self_communicator()
    finally:
        solver.close()


def cost_of(config: AnySolverConfig, parameters: Mapping[str, float]) -> Cost:
    """Measure one member, and a second one where the first leaves time for it.

    Raises:
        ConfigError: PETSc is missing, or the solver cannot be built.
        SolverFailed: The member fails.
    """
    with built(config) as (solver, comm):
        first = last = _timed(solver, parameters, comm)
        if first.whole and first.seconds < LIMIT_SECONDS / 2:
            last = _timed(solver, parameters, comm)
    return Cost(
        seconds=last.seconds,
        first_seconds=max(0.0, first.seconds - last.seconds),
        snapshots=last.measured if last.whole else config.max_snapshots,
        measured=last.measured,
        snapshot_bytes=4 * math.prod(config.spec().sample_shape),
    )


class _Timing(NamedTuple):
    seconds: float
    measured: int  # snapshots that came
    whole: bool  # whether these were all of them


def _timed(solver: Solver, parameters: Mapping[str, float], comm: object) -> _Timing:
    """One member, to its end or to the limit, and then as long as all its steps would take."""
    started, most = time.perf_counter(), solver.max_snapshots
    first, now, measured = 0.0, 0.0, 0
    for _ in solver.run(parameters, comm):
        measured += 1
        now = time.perf_counter() - started
        if measured == 1:
            first = now
        if now > LIMIT_SECONDS and 1 < measured < most:
            step = (now - first) / (measured - 1)
            return _Timing(first + step * (most - 1), measured, whole=False)
    return _Timing(time.perf_counter() - started, measured, whole=True)


def typical_parameters(config: AnySolverConfig) -> dict[str, float]:
    """The middle of what each parameter is meant for."""
    return {each.name: 0.5 * (each.low + each.high) for each in config.parameters()}
