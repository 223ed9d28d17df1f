"""One periodic line, its stiff linear part implicit: what the 1-D solvers of this folder share.

    u' = -A u + N(t, u),    A a constant stencil (seven points), N any function of a neighbourhood

Time: ARKIMEX 3 (ARK3(2)4L[2]SA of Kennedy and Carpenter, 2003): four stages, of which N is taken
explicitly and A with an L-stable method that uses one matrix for all stages. Third order.
A snapshot interval has as many equal steps as the Courant number of N asks for, mostly one.

1. Members with equal stencil and step share one factorisation.
2. The Courant number of a step is at most ``COURANT``, as far as the state at the start of the
   interval tells; more than ``MOST_STEPS`` steps an interval are refused.
3. On several mpi_ranks each has its own piece of the line, and takes the same steps.
"""

from collections.abc import Callable
from math import ceil
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.numerics.stencil import set_rows, slices_of, spread
from solvers.petsc import Owned, PETSc, unique_prefix
from solvers.stepping import NO_EFFORT, fixed_step, restart, snapshot, take_step

# Neighbours on either side that a stencil reaches.
REACH = 3
# The explicit part is stable up to about 1.4 with the upwind flux of Burgers' equation, and up to
# 1.7 / 1.37 with fourth-order central differences; the state may grow within an interval.
COURANT = 0.8
MOST_STEPS = 1000

Stencil = Float64[np.ndarray, " offsets"]
Values = Float64[np.ndarray, " x"]
# N(t, u): gets this mpi_rank's values with REACH neighbours on either side, gives its own values.
Explicit = Callable[[float, Float64[np.ndarray, " ghosted"]], Values]


@final
class PeriodicLine:
    """The discretised line on one communicator: all that is kept from member to member.

    Args:
        points: Number of unknowns on the whole line.
        options: PETSc options that override the choices made here.
        comm: The communicator that the line is spread over.
        owned: Who destroys the PETSc objects made here.

    Attributes:
        box: Where this mpi_rank's piece lies.
        factorisations: Number of factorisations of the implicit matrix, so far.
    """

    def __init__(self, points: int, options: str, comm: object, owned: Owned) -> None:
        self._explicit: Explicit | None = None
        self._stencil: Stencil | None = None
        self._effort = NO_EFFORT
        self._shift = np.nan
        self.factorisations = 0
        self._da = spread((points,), comm, owned, reach=REACH, ends="periodic")
        self.box = slices_of(self._da)
        self._state, self._rate, self._residual = (
            owned(self._da.createGlobalVec()) for _ in range(3)
        )
        self._ghosted = owned(self._da.createLocalVec())
        self._linear, self._shifted = (owned(self._da.createMat()) for _ in range(2))
        self._ts = owned(PETSc.TS().create(self._da.comm))
        self._choose()
        self.set_linear(np.zeros(2 * REACH + 1))
        fixed_step(self._ts, prefix=unique_prefix("line"), options=options, prepare=self._prepare)

    def _choose(self) -> None:
        ts = self._ts
        ts.setDM(self._da)
        ts.setSolution(self._state)
        ts.setEquationType(PETSc.TS.EquationType.ODE_EXPLICIT)  # type: ignore[arg-type]
        ts.setType(PETSc.TS.Type.ARKIMEX)
        ts.setARKIMEXType(PETSc.TS.ARKIMEXType.ARKIMEX3)
        ts.setIFunction(self._implicit_residual, self._residual)
        ts.setIJacobian(self._implicit_matrix, self._shifted)
        ts.setRHSFunction(self._explicit_rate, self._rate)
        ts.setExactFinalTime(PETSc.TS.ExactFinalTime.STEPOVER)  # type: ignore[arg-type]
        snes = ts.getSNES()
        snes.setType(PETSc.SNES.Type.KSPONLY)  # the implicit part is linear
        ksp = snes.getKSP()
        ksp.setType(PETSc.KSP.Type.PREONLY)
        if self._da.comm.size == 1:
            ksp.pc.setType(PETSc.PC.Type.LU)
        else:
            # A line is short: every mpi_rank solves the whole of it, without iterations.
            ksp.pc.setType(PETSc.PC.Type.REDUNDANT)

    def _prepare(self) -> None:
        """Factorise once, with numbers that any stencil's matrix has: ones on the diagonal."""
        self._implicit_matrix(self._ts, 0.0, self._state, self._state, 1.0, None, self._shifted)
        ksp = self._ts.getSNES().getKSP()
        ksp.setOperators(self._shifted)
        ksp.setUp()

    def cells(self, width: float) -> Values:
        """Centres of this mpi_rank's cells."""
        return (np.arange(self.box[0].start, self.box[0].stop) + 0.5) * width

    def set_linear(self, stencil: Stencil) -> None:
        """Let A be the stencil whose middle entry is the diagonal."""
        if self._stencil is not None and np.array_equal(stencil, self._stencil):
            return
        self._stencil, self._shift = stencil.copy(), np.nan
        points = self.box[0].stop - self.box[0].start
        rows = np.arange(REACH, REACH + points)
        columns = rows[:, None] + np.arange(-REACH, REACH + 1)
        set_rows(self._linear, rows, columns, np.tile(stencil, points))

    def start(self, initial: Values, explicit: Explicit, *, dt: float) -> None:
        """Begin a member with this mpi_rank's part of its initial state."""
        self._explicit, self._effort = explicit, NO_EFFORT
        self._state.setArray(initial)  # type: ignore[arg-type]  # the stub's type
        restart(self._ts, dt=dt)

    def advance(self, step: int, *, dt: float, courant: Callable[[float], float]) -> None:
        """Go on to time ``step * dt``.

        Args:
            step: Number of the snapshot.
            dt: Between snapshots [s].
            courant: Courant number of one step of length ``dt``, given the largest magnitude of
                the state.

        Raises:
            SolverFailed: PETSc did not get there, or the state moves too fast.
        """
        largest = self._state.norm(PETSc.NormType.NORM_INFINITY)
        assert isinstance(largest, float)
        wanted = courant(largest) / COURANT
        if not wanted <= MOST_STEPS:
            raise SolverFailed(
                f"state is too fast at solver step {step}, time {step * dt:g} s: magnitude "
                f"{largest:g} needs {wanted:.3g} time steps between two snapshots, the limit is "
                f"{MOST_STEPS}. Reduce dt, or the range of the parameters"
            )
        parts = max(1, ceil(wanted))
        self._ts.setTime((step - 1) * dt)
        self._ts.setTimeStep(dt / parts)
        self._ts.setMaxSteps(self._ts.getStepNumber() + parts)
        # A state on its way to infinity is told by PETSc or by the snapshot, not by NumPy.
        with np.errstate(all="ignore"):
            self._effort = take_step(self._ts, step=step, time=step * dt)

    def snapshot(self, step: int, time: float) -> Snapshot:
        """The state as it stands, as an array that is the receiver's."""
        values = self._state.array_r.reshape(1, -1)
        newest = snapshot(step, time, self._state, values, self._effort)
        # For the next step, which finds it with PETSc: the state is in the cache now.
        self._state.norm(PETSc.NormType.NORM_INFINITY)
        return newest

    @property
    def values(self) -> Values:
        """This mpi_rank's part of the state in double precision, a copy."""
        return self._state.array_r.copy()

    def _explicit_rate(self, _ts: PETSc.TS, time: float, state: PETSc.Vec, rate: PETSc.Vec) -> None:
        assert self._explicit is not None
        self._da.globalToLocal(state, self._ghosted)
        rate.setArray(self._explicit(time, self._ghosted.array_r))  # type: ignore[arg-type]

    def _implicit_residual(
        self, _ts: PETSc.TS, _time: float, state: PETSc.Vec, slope: PETSc.Vec, out: PETSc.Vec
    ) -> None:
        self._linear.multAdd(state, slope, out)

    def _implicit_matrix(
        self,
        _ts: PETSc.TS,
        _time: float,
        _state: PETSc.Vec,
        _slope: PETSc.Vec,
        shift: float,
        _operator: PETSc.Mat | None,
        matrix: PETSc.Mat,
    ) -> None:
        # A matrix that is left alone is not factorised again.
        if shift != self._shift:
            self._linear.copy(matrix, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)  # type: ignore[arg-type]
            matrix.shift(shift)
            self._shift = shift
            self.factorisations += 1
