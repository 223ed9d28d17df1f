"""Turns a PETSc TS into a lazy sequence: a step is taken when the next snapshot is asked for.

The TS may come from a solver of this folder or from a script that somebody already has. Each step
is a ``TSSolve`` of one step, so events, adaptivity, pre- and post-steps work as they do there.
(PETSc calls monitors at both ends of a ``TSSolve``: they see every inner step twice.)

1. The initial state comes first, then every step, until PETSc's own end (time, steps, event, user).
2. A step that PETSc does not call successful raises ``SolverFailed`` with the reasons' names.
3. An exception in a Python callback comes out as it was raised, with its traceback.
4. A TS that knows neither a last time nor a last step is refused: it would stream for ever.
5. The TS keeps its limits, and stays the caller's to destroy, however the sequence ends.
6. Iterations and refused steps are PETSc's own counts, those since the last snapshot.
"""

from collections.abc import Callable, Iterator
from operator import sub
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.petsc import (
    PETSc,
    last_line,
    raised_in_callback,
    reason_name,
    require_finite,
    require_finite_everywhere,
    scoped_options,
)

__all__ = [
    "NO_EFFORT", "Effort", "Step", "fields_of", "fixed_step", "restart", "snapshot", "steps",
    "stream", "take_step",
]  # fmt: skip

# PETSc's "no limit": the largest numbers there are.
_NO_LAST_TIME = float(np.finfo(np.float64).max)
_NO_LAST_STEP = int(np.iinfo(np.dtype(PETSc.IntType)).max)
# The study says these; an option would make the snapshots' times differ from what it announces.
_SAID_BY_THE_STUDY = (
    "ts_adapt_type", "ts_dt", "ts_time_step", "ts_init_time", "ts_max_steps", "ts_max_time",
    "ts_final_time", "ts_run_steps", "ts_exact_final_time",
)  # fmt: skip


class Effort(NamedTuple):
    """What it took to get from one snapshot to the next; as in ``Snapshot``."""

    iterations: int = 0
    refused: int = 0


NO_EFFORT = Effort()


class Step(NamedTuple):
    """What a TS has reached."""

    number: int  # 0 for the initial state
    time: float  # in the TS's unit
    state: PETSc.Vec  # the TS's own: it changes with the next step
    effort: Effort = NO_EFFORT


def steps(ts: PETSc.TS) -> Iterator[Step]:
    """Yield the state that ``ts`` stands at, then each step until PETSc calls it finished.

    Args:
        ts: Ready for ``ts.solve()``: with a solution vector, functions, time step and limits.

    Raises:
        SolverFailed: PETSc gave up; the reasons of TS, SNES and KSP are in the message. Make a new
            TS afterwards, unless the failure was one of convergence.
        ValueError: There is neither a last time nor a last step.
    """
    last_time, last_step = ts.getMaxTime(), ts.getMaxSteps()
    if last_time >= _NO_LAST_TIME and last_step >= _NO_LAST_STEP:
        raise ValueError(
            "this TS has no end. Call ts.setMaxTime(seconds) or ts.setMaxSteps(steps), or give "
            "-ts_max_time or -ts_max_steps and call ts.setFromOptions()"
        )
    first = ts.getStepNumber()
    yield Step(0, ts.getTime(), ts.getSolution())
    try:
        while ts.getStepNumber() < last_step and ts.getTime() < last_time:
            number = ts.getStepNumber() - first + 1
            ts.setMaxSteps(ts.getStepNumber() + 1)
            effort = take_step(ts, step=number)
            yield Step(number, ts.getSolveTime(), ts.getSolution(), effort)
            if _reason(ts) != PETSc.TS.ConvergedReason.CONVERGED_ITS:
                return
    finally:
        if ts:  # the caller may have destroyed it
            ts.setMaxSteps(last_step)


def stream(
    ts: PETSc.TS,
    fields: Callable[[PETSc.Vec], Float64[np.ndarray, " channel *grid"]] | None = None,
) -> Iterator[Snapshot]:
    """Yield every step of ``ts`` as a snapshot: all that ``Solver.run`` has to return.

    Args:
        ts: As for ``steps``.
        fields: Makes ``(channel, *grid)`` of the state on this mpi_rank; the array may be a view.
            By default ``fields_of`` the TS's DMDA.

    Raises:
        SolverFailed: PETSc gave up, or a value is not finite (then on every mpi_rank).
        TypeError: There is no ``fields``, and the TS has no DMDA that says how to lay them out.
    """
    layout = fields if fields is not None else _layout_of(ts.getDM())
    for number, time, state, effort in steps(ts):
        yield snapshot(number, time, state, layout(state), effort)


def snapshot(
    step: int,
    time: float,
    state: PETSc.Vec,
    values: Float64[np.ndarray, " channel *grid"],
    effort: Effort = NO_EFFORT,
) -> Snapshot:
    """A snapshot that is the receiver's, of ``values`` that are this mpi_rank's part of ``state``.

    Raises:
        SolverFailed: A value is not finite or not for float32, on this mpi_rank or on another.
    """
    # All mpi_ranks stop, or none: the others would wait for this one in the next step.
    if state.comm.size > 1:
        require_finite_everywhere(state, values, step=step, time=time)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        fields = values.astype(np.float32, order="C")
    require_finite(fields, step=step, time=time)
    return Snapshot(step, time, fields, *effort)


def fields_of(da: PETSc.DMDA, state: PETSc.Vec) -> Float64[np.ndarray, " channel *grid"]:
    """This mpi_rank's box of a DMDA's vector, as a view: ``(dof, x)``, ``(dof, y, x)``, ..."""
    points = [end - start for start, end in reversed(da.getRanges())]
    side_by_side = state.array_r.reshape(*points, da.getDof())
    return side_by_side.transpose(len(points), *range(len(points)))


def fixed_step(
    ts: PETSc.TS, *, prefix: str, options: str, prepare: Callable[[], object] | None = None
) -> None:
    """Let ``ts`` take equal steps, and ``options`` override whatever else was set before.

    Args:
        ts: A stepper with its type, functions and operators.
        prefix: Prefix of its options in PETSc's database.
        options: PETSc options, as on a command line and without the prefix.
        prepare: Makes and factorises the operators: options inside a preconditioner are read then.

    Raises:
        ValueError: PETSc does not know or cannot follow ``options``, or they contradict the study.
    """
    ts.setOptionsPrefix(prefix)
    given = [word[1:] for word in options.split() if word.startswith("-")]
    refused = [f"-{name}" for name in given if name in _SAID_BY_THE_STUDY]
    if refused:
        raise ValueError(
            f"petsc_options={options!r}: {', '.join(refused)} would change the times of the "
            "snapshots. Leave it out, and say steps and dt in the study"
        )
    with scoped_options(prefix, "-ts_adapt_type none"):
        ts.setFromOptions()
    with scoped_options(prefix, options):
        try:
            ts.setFromOptions()
            if prepare is not None:
                prepare()
        except PETSc.Error as error:
            raise ValueError(
                f"petsc_options={options!r}: PETSc cannot set up this solver: "
                f"{last_line(error)}. Choose another -ts_type, -ksp_type or -pc_type"
            ) from error


def restart(ts: PETSc.TS, *, dt: float) -> None:
    """Put ``ts`` back to time 0; multistep schemes forget the last member."""
    ts.setStepNumber(0)
    ts.setTime(0.0)
    ts.setTimeStep(dt)


def take_step(ts: PETSc.TS, *, step: int, time: float | None = None) -> Effort:
    """Run ``ts`` to its next stop, and say what it took.

    Args:
        ts: A stepper whose stop is set, as a last step or a last time.
        step: Number of the snapshot that is under way, for the message.
        time: Time of that snapshot; by default one time step ahead.

    Raises:
        SolverFailed: It did not get there; the message says so with PETSc's reasons.
    """
    time = ts.getTime() + ts.getTimeStep() if time is None else time
    before = _counts(ts) if ts.getStepNumber() > 0 else (0, 0, 0)  # TSSolve starts anew at step 0
    ts.setErrorIfStepFails(False)  # the reason is told below, and PETSc keeps the monitors
    try:
        ts.solve()
    except PETSc.Error as error:
        if (raised := raised_in_callback(error)) is not None:
            raise raised  # noqa: B904 - it has its own traceback
        raise SolverFailed(
            f"time step failed at solver step {step}, time {time:g} s: {last_line(error)}"
        ) from error
    if _reason(ts) < 0:
        raise SolverFailed(
            f"time step failed at solver step {step}, time {time:g} s: {_reasons(ts)}"
        )
    linear, nonlinear, refused = map(sub, _counts(ts), before)
    return Effort(linear if linear > 0 else nonlinear, refused)


def _counts(ts: PETSc.TS) -> tuple[int, int, int]:
    """Linear iterations, nonlinear ones and refused steps, so far."""
    return ts.getKSPIterations(), ts.getSNESIterations(), ts.getStepRejections()


def _layout_of(dm: PETSc.DM) -> Callable[[PETSc.Vec], Float64[np.ndarray, " channel *grid"]]:
    if not isinstance(dm, PETSc.DMDA):
        raise TypeError(
            f"this TS has no DMDA (its DM is of type {dm.getType()!r}), so nothing says which "
            "value belongs where. Call ts.setDM(da), or give stream(ts, fields=...), a function "
            "that makes (channel, *grid) of a Vec"
        )
    return lambda state: fields_of(dm, state)


def _reason(of: PETSc.TS | PETSc.SNES | PETSc.KSP) -> int:
    return cast("int", of.getConvergedReason())  # the stub calls it a class of its own


def _reasons(ts: PETSc.TS) -> str:
    """Why TS gave up, and below it SNES and KSP where they did."""
    parts = [reason_name(PETSc.TS, _reason(ts))]
    if ts.isImplicit():
        for label, solver in (("SNES", ts.getSNES()), ("KSP", ts.getSNES().getKSP())):
            if _reason(solver) < 0:
                name = reason_name(type(solver), _reason(solver))
                parts.append(f"{label} {name} after {solver.getIterationNumber()} iterations")
    return ", ".join(parts)
