"""Newton's method for solvers: how a SNES is set up, and how its failures are told.

1. A solution is taken when a full Newton step would change it by less than float32 can show.
2. Options of one solver reach its SNES, KSP and PC alone; one that PETSc did not use is refused.
3. A solve that PETSc does not call converged raises ``SolverFailed`` with the reason's name, and
   with that of the linear solve where this was the cause.
4. An exception in a Python callback comes out as it was raised, with its traceback.
"""

from collections.abc import Callable
from typing import cast

from solvers.base import SolverFailed
from solvers.petsc import (
    LINEAR_TOLERANCE,
    MAX_LINEAR_ITERATIONS,
    Owned,
    PETSc,
    last_line,
    raised_in_callback,
    reason_name,
    scoped_options,
)

__all__ = ["iterations_of", "newton_solver", "solve_newton"]

# Of the last full step against the solution: below the float32 resolution of a snapshot (6e-8).
# Residuals are not asked: a good first guess leaves nothing that they could be compared with.
STEP_TOLERANCE = 1e-8
_NO_RESIDUAL_TOLERANCE = 1e-50

Residual = Callable[[PETSc.SNES, PETSc.Vec, PETSc.Vec], None]
Jacobian = Callable[[PETSc.SNES, PETSc.Vec, PETSc.Mat, PETSc.Mat], None]


def newton_solver(
    matrix: PETSc.Mat, residual: Residual, jacobian: Jacobian, *,
    max_it: int, prefix: str, options: str, owned: Owned,
) -> PETSc.SNES:  # fmt: skip
    """A SNES whose Jacobian is ``matrix``, any nonsingular one.

    Linear systems on one rank: sparse LU under nested dissection. On several: the same, each rank
    factorising the whole matrix (PETSc has no parallel LU of its own), so that the solution does
    not depend on the number of ranks. ``options`` overrides either.

    Raises:
        ValueError: PETSc does not know or cannot follow ``options``.
    """
    snes = owned(PETSc.SNES().create(matrix.comm))
    residual_vec = owned(matrix.createVecLeft())
    snes.setFunction(residual, residual_vec)
    snes.setJacobian(jacobian, matrix, matrix)
    snes.setTolerances(
        rtol=_NO_RESIDUAL_TOLERANCE,
        atol=_NO_RESIDUAL_TOLERANCE,
        stol=STEP_TOLERANCE,
        max_it=max_it,
    )
    snes.ksp.setTolerances(rtol=LINEAR_TOLERANCE, max_it=MAX_LINEAR_ITERATIONS)
    snes.ksp.setType(PETSc.KSP.Type.PREONLY)
    if matrix.comm.size == 1:
        snes.ksp.pc.setType(PETSc.PC.Type.LU)
        snes.ksp.pc.setFactorOrdering(PETSc.Mat.OrderingType.ND)
    else:
        snes.ksp.pc.setType(PETSc.PC.Type.REDUNDANT)
    snes.setOptionsPrefix(prefix)
    with scoped_options(prefix, options):
        try:
            snes.setFromOptions()
            snes.setUp()
        except PETSc.Error as error:
            raise ValueError(
                f"petsc_options={options!r}: PETSc cannot set up this nonlinear solver: "
                f"{last_line(error)}. Choose another -snes_type, -ksp_type or -pc_type"
            ) from error
    return snes


def solve_newton(snes: PETSc.SNES, solution: PETSc.Vec, *, step: int, time: float) -> int:
    """Solve into ``solution``, whose content is the first guess; how many iterations it took.

    Raises:
        SolverFailed: PETSc did not converge; ``solution`` is not to be used.
    """
    where = f"nonlinear solve failed at solver step {step}, time {time:g} s"
    try:
        snes.solve(None, solution)
    except PETSc.Error as error:
        if (raised := raised_in_callback(error)) is not None:
            raise raised  # noqa: B904 - it has its own traceback
        raise SolverFailed(f"{where}: {last_line(error)}") from error
    iterations = snes.getIterationNumber()
    reason = cast("int", snes.getConvergedReason())
    if reason < 0:
        message = f"{reason_name(PETSc.SNES, reason)} after {iterations} iterations"
        if reason == PETSc.SNES.ConvergedReason.DIVERGED_LINEAR_SOLVE:
            ksp, linear = snes.ksp, cast("int", snes.ksp.getConvergedReason())
            message += (
                f" (KSP {reason_name(PETSc.KSP, linear)}: "
                f"-ksp_type {ksp.getType()} -pc_type {ksp.pc.getType()})"
            )
        raise SolverFailed(f"{where}: {message}")
    return int(iterations)


def iterations_of(snes: PETSc.SNES) -> int:
    """Linear iterations of the last solve; nonlinear ones where it solved no linear system."""
    linear = int(snes.getLinearSolveIterations())
    return linear if linear > 0 else int(snes.getIterationNumber())
