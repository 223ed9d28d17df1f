"""PETSc's life cycle for solvers: how it starts, who owns its objects, how its failures are told.

1. PETSc starts quietly: it reads no command line and no ``.petscrc``, and installs no signal
   handler, so Ctrl-C, SIGTERM and crash reports stay the process's own.
2. An object given to ``Owned`` is destroyed exactly once, the newest first.
3. Options of one solver reach that solver alone, are gone from PETSc's database after its set-up,
   and a name that PETSc did not look at is refused.
4. A solve that PETSc does not call converged raises ``SolverFailed`` with the reason's name.
5. A value that float32 cannot hold, NaN and infinity included, raises ``SolverFailed``.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar, cast, final, runtime_checkable

import numpy as np
import petsc4py
from jaxtyping import Float, Float64

from solvers.base import SolverFailed

# The first word stands for the program's name. PETSC_OPTIONS is still read: it belongs to the site.
petsc4py.init(["headrace", "-no_signal_handler", "-skip_petscrc"])

from petsc4py import PETSc  # noqa: E402 - only an initialised PETSc may be imported

# A process that is not part of an mpiexec group shares MPICH's segment with nobody. Its name is
# removed at once, so that not even a SIGKILL leaves the file behind; the mapping stays. A group
# does the same once all of it have the mapping (``world_communicator``).
if PETSc.COMM_WORLD.getSize() == 1:
    Path(f"/dev/shm/mpich_shm_{os.getpid():x}_0").unlink(missing_ok=True)

# Far below the float32 resolution of a streamed field (6e-8), so that the choice of linear solver
# does not show in the snapshots.
LINEAR_TOLERANCE = 1e-10
MAX_LINEAR_ITERATIONS = 1000
# OpenBLAS wakes all its threads for a dot product above 10,000 numbers. Where other processes use
# the cores, waiting for those threads takes milliseconds, a hundred times the product itself.
_UNTHREADED = 8192
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

__all__ = [
    "Owned", "PETSc", "add_up", "communicator",
    "last_line", "linear_solver", "raised_in_callback", "reason_name", "require_finite",
    "require_finite_everywhere", "scoped_options", "self_communicator", "solve", "unique_prefix",
    "vector_over", "world_communicator",
]  # fmt: skip

_instances = count()
# PETSC_ERR_PYTHON: a Python callback raised.
_CALLBACK_RAISED = 101


@runtime_checkable
class Destroyable(Protocol):
    """Any PETSc object."""

    def destroy(self) -> object:
        """Give up the object."""
        ...


_Object = TypeVar("_Object", bound=Destroyable)


@final
class Owned:
    """PETSc objects that end together, the newest first."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __call__(self, created: _Object) -> _Object:
        """Own ``created`` from now on, and hand it through."""
        self._stack.callback(created.destroy)
        return created

    def close(self) -> None:
        """Destroy everything. Safe to call twice; collective on the objects' communicator."""
        self._stack.close()

    def __enter__(self) -> "Owned":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def self_communicator() -> PETSc.Comm:
    """The communicator of this process alone, for members with one mpi_rank."""
    return PETSc.COMM_SELF


def world_communicator() -> PETSc.Comm:
    """The communicator of a whole mpiexec group, for members with several mpi_ranks; collective."""
    world = PETSc.COMM_WORLD
    world.barrier()  # whoever is here has mapped what MPICH shares: its name is not needed any more
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        path = line.partition("/dev/shm/mpich_shm_")[2]
        if path:
            Path("/dev/shm", f"mpich_shm_{path}").unlink(missing_ok=True)
    return world


def communicator(comm: object) -> PETSc.Comm:
    """An mpi4py or PETSc communicator as PETSc's."""
    return PETSc.Comm(comm)  # type: ignore[call-arg]  # the stub lacks it


def add_up(comm: object) -> Callable[[Float64[np.ndarray, " *any"]], Float64[np.ndarray, " *any"]]:
    """A function that adds an array up over all mpi_ranks, which all of them call."""
    over = communicator(comm).tompi4py()

    def total(values: Float64[np.ndarray, " *any"]) -> Float64[np.ndarray, " *any"]:
        whole = np.empty(values.shape)
        over.Allreduce(np.ascontiguousarray(values), whole)
        return whole

    return total


def unique_prefix(name: str) -> str:
    """An options prefix that no other solver of this process has, e.g. ``heat3_``."""
    return f"{name}{next(_instances)}_"


@contextmanager
def scoped_options(prefix: str, options: str) -> Iterator[None]:
    """Let ``options`` hold for objects with ``prefix`` inside the block, and nowhere else.

    Raises:
        ValueError: Nothing in the block looked at one of them.
    """
    database = PETSc.Options()
    database.prefixPush(prefix)
    try:
        database.insertString(options)
    finally:
        database.prefixPop()
    names = list(PETSc.Options(prefix).getAll())
    try:
        yield
        unused = [f"-{name}" for name in names if not database.used(prefix + name)]
    finally:
        for name in names:
            database.delValue(prefix + name)
    if unused:
        raise ValueError(
            f"petsc_options={options!r}: the linear solver did not use {', '.join(unused)}: "
            "correct the spelling (-ksp_view lists what is in force) or remove it"
        )


def vector_over(values: Float64[np.ndarray, " *any"], *, comm: object, owned: Owned) -> PETSc.Vec:
    """A vector with its numbers in ``values``, so that a snapshot of several is one conversion.

    NumPy may read them. Of what it writes PETSc is told with ``stateIncrease``.
    """
    vec = owned(PETSc.Vec().createWithArray(values.reshape(-1), comm=communicator(comm)))  # type: ignore[arg-type]  # the stub's type
    vec.stateIncrease()  # in state 0 PETSc takes a norm that it has not computed for a known 0
    return vec


def linear_solver(
    matrix: PETSc.Mat,
    *,
    prefix: str,
    options: str,
    owned: Owned,
    factorise: bool = True,
    redundant: bool = False,
) -> PETSc.KSP:
    """A KSP for one symmetric positive definite matrix, set up once for all right-hand sides.

    On one rank: sparse LU under nested dissection (its triangular solves are faster in PETSc than
    Cholesky's, 66 against 113 us for 64 x 64). On several: conjugate gradients under algebraic
    multigrid, whose iterations do not grow with the grid. ``options`` overrides any of it.

    Args:
        matrix: Assembled.
        prefix: Prefix of its options.
        options: PETSc options, as on a command line and without the prefix.
        owned: Who destroys the KSP.
        factorise: Whether one rank factorises. Not in three dimensions: LU takes 7 s for the
            32 x 32 x 32 cells of ``solvers.pdes.heat`` and then 13 ms a step, conjugate gradients
            under incomplete Cholesky 0.02 s and 8 ms.
        redundant: Whether several ranks hold the LU of the whole matrix each: no faster than one
            rank, but many messages fewer.

    Raises:
        ValueError: PETSc does not know or cannot follow ``options``.
    """
    ksp = owned(PETSc.KSP().create(matrix.comm))
    ksp.setOperators(matrix)
    ksp.setTolerances(rtol=LINEAR_TOLERANCE, max_it=MAX_LINEAR_ITERATIONS)
    if matrix.comm.size == 1 and not factorise:
        ksp.setType(PETSc.KSP.Type.CG)
        ksp.pc.setType(PETSc.PC.Type.ICC)
    elif matrix.comm.size == 1:
        ksp.setType(PETSc.KSP.Type.PREONLY)
        ksp.pc.setType(PETSc.PC.Type.LU)
        ksp.pc.setFactorOrdering(PETSc.Mat.OrderingType.ND)
    elif redundant:
        ksp.setType(PETSc.KSP.Type.PREONLY)
        ksp.pc.setType(PETSc.PC.Type.REDUNDANT)
    else:
        ksp.setType(PETSc.KSP.Type.CG)
        ksp.pc.setType(PETSc.PC.Type.GAMG)
    ksp.setOptionsPrefix(prefix)
    with scoped_options(prefix, options):
        try:
            ksp.setFromOptions()
            ksp.setUp()
        except PETSc.Error as error:
            raise ValueError(
                f"petsc_options={options!r}: PETSc cannot set up this linear solver: "
                f"{last_line(error)}. Choose another -ksp_type or -pc_type, or leave it empty"
            ) from error
    # PETSc refuses a first guess where there is no iteration that could use it.
    ksp.setInitialGuessNonzero(ksp.getType() != PETSc.KSP.Type.PREONLY)
    return ksp


def solve(ksp: PETSc.KSP, rhs: PETSc.Vec, solution: PETSc.Vec, *, step: int, time: float) -> int:
    """Solve into ``solution``, whose content is the first guess of an iterative solver.

    Returns:
        How many iterations it took; a direct solver has one.

    Raises:
        SolverFailed: PETSc did not converge; ``solution`` is not to be used.
    """
    try:
        ksp.solve(rhs, solution)
    except PETSc.Error as error:
        raise SolverFailed(
            f"linear solve failed at solver step {step}, time {time:g} s: {last_line(error)}"
        ) from error
    if ksp.is_diverged:
        reason = cast("int", ksp.getConvergedReason())  # the stub calls it a class of its own
        raise SolverFailed(
            f"linear solve failed at solver step {step}, time {time:g} s: "
            f"{reason_name(PETSc.KSP, reason)} after {ksp.getIterationNumber()} "
            f"iterations (-ksp_type {ksp.getType()} -pc_type {ksp.pc.getType()})"
        )
    return int(ksp.getIterationNumber())


def require_finite(values: Float[np.ndarray, " channel *grid"], *, step: int, time: float) -> None:
    """Refuse NaN, infinity, and what a float32 snapshot could not hold.

    Raises:
        SolverFailed: There is such a value.
    """
    # One pass without a temporary, false for NaN; a huge sum needs the exact look below. `vdot`,
    # because NumPy's other products warn when they overflow.
    flat = values.ravel(order="K")  # as it lies in memory: channels may be side by side
    for start in range(0, flat.size, _UNTHREADED):
        part = flat[start : start + _UNTHREADED]
        if not np.vdot(part, part) < _LARGEST_FLOAT32:
            break
    else:
        return
    wrong = int(np.count_nonzero(~(np.abs(values) <= _LARGEST_FLOAT32)))
    if wrong:
        raise SolverFailed(
            f"field is not finite at solver step {step}, time {time:g} s: "
            f"{wrong} of {values.size} values are NaN, infinite or above {_LARGEST_FLOAT32:.2g}"
        )


def require_finite_everywhere(
    state: PETSc.Vec, values: Float64[np.ndarray, " channel *grid"], *, step: int, time: float
) -> None:
    """As ``require_finite``, for ``values`` that are this mpi_rank's part of ``state``.

    All mpi_ranks fail, or none: the others would wait for this one in the next step. Collective.

    Raises:
        SolverFailed: There is such a value, here or on another mpi_rank.
    """
    root = state.norm()  # a sum, in which NaN and infinity are not lost, as in a maximum
    assert isinstance(root, float)
    largest = root if root <= _LARGEST_FLOAT32 else state.norm(PETSc.NormType.NORM_INFINITY)
    assert isinstance(largest, float)
    if np.isfinite(root) and largest <= _LARGEST_FLOAT32:
        return
    require_finite(values, step=step, time=time)
    raise SolverFailed(
        f"field is not finite at solver step {step}, time {time:g} s: on another mpi_rank"
    )


def last_line(error: PETSc.Error) -> str:
    """What PETSc says at the bottom of its stack trace, without the rank."""
    return str(error).strip().rpartition("\n")[2].partition("] ")[2]


def raised_in_callback(error: PETSc.Error) -> BaseException | None:
    """The exception of a Python callback that PETSc gave up for: its stack would only bury it."""
    return error.__cause__ if error.ierr == _CALLBACK_RAISED else None  # type: ignore[attr-defined]


def reason_name(kind: type[PETSc.TS | PETSc.SNES | PETSc.KSP], value: int) -> str:
    """PETSc's name of a converged reason."""
    if kind is PETSc.KSP and value == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT:
        return "DIVERGED_ITS"  # what PETSc itself calls it
    named = (name for name, known in vars(kind.ConvergedReason).items() if known == value)
    return next(named, f"reason {value}")
