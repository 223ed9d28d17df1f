"""Flow in a rectangular cavity whose lid slides: incompressible Navier-Stokes, steady or unsteady.

Equation:    w_t + (u w)_x + (v w)_y = nu (w_xx + w_yy), vorticity w = v_x - u_y [1/s], velocity
             u = psi_y, v = -psi_x [m/s], viscosity nu = lid speed * length x / reynolds [m^2/s].
             The one unknown is the stream function psi (w = -psi_xx - psi_yy): the velocity is
             free of divergence by construction, and there is no pressure to solve for.
Domain:      0 < x < length x, 0 < y < length y.
Boundary:    psi = 0 and no slip on all walls. u = lid speed on the lid, y = length y; with
             `lid: regularised` it is 16 s^2 (1 - s)^2 lid speed, s = x / length x.
Initial:     at rest; the lid moves from time 0 on.
Grid:        x_i = (i + 1) hx, y_j = (j + 1) hy, h = length / (points + 1): no point of a snapshot
             lies on a wall, or in a corner of the lid, where u jumps and w is infinite.
             fields[c, j, i] belongs to (x_i, y_j): row 0 is at the bottom, column 0 west.
Space:       central differences. psi beyond a wall is mirrored (plus 2 hy u on the lid), which is
             Thom's formula for w on the wall. Second order in u, v and w.
Unsteady:    `steps` steps of `dt`; BDF2, all terms implicit, Newton. The first step is the mean of
             the backward Euler solutions at 2/3 dt and 4/3 dt. Second order. The Jacobian's
             factorisation is kept from step to step while Newton's method is quick with it.
Steady:      `steps` steady flows, at 1/steps, 2/steps, ..., 1 of the lid speed and so of the
             Reynolds number, by Newton with line search, each from those before (continuation).
             The time of a snapshot is that share. Step 0 is rest, the flow at share 0.
Stability:   unconditional. For accuracy in time keep lid speed * dt below about 2 h. On a grid too
             coarse for its Reynolds number the flow is too weak and wiggles near the lid.
Behaviour:   one vortex, which moves from the lid to the centre while reynolds grows, smaller ones
             in the bottom corners, boundary layers of width length / sqrt(reynolds). Started from
             rest, the flow is steady after some tens of length / lid speed. From reynolds of about
             8000 on, the steady flow of a square is unstable. Newton's method ends with
             DIVERGED_LINE_SEARCH where a step of the continuation is too large.
Good values: 63 x 63 points for reynolds up to 400 and 127 x 127 for 1000: u and v on the centre
             lines within 1 % of the lid speed. Steady: steps of at least reynolds / 500.
Source:      Ghia, Ghia, Shin, J. Comput. Phys. 48 (1982) 387; Hou, Wetton, SIAM J. Numer. Anal. 30
             (1993) 609 (order of Thom's formula); Shih, Tan, Hwang, Int. J. Numer. Methods Fluids 9
             (1989) 185 (regularised lid).

It is solved without dimensions (length x, lid speed and their quotient are the units), so members
that differ in lid speed alone have the same steady flow but for that factor. On several mpi_ranks
each one yields its own box of the field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.cavity import CavityConfig
from solvers.numerics.newton import iterations_of, newton_solver, solve_newton
from solvers.numerics.stencil import coupled_matrix, slices_of, spread
from solvers.numerics.stream_function import GHOSTS, Flow, StreamFunction, couplings
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, PETSc, unique_prefix, vector_over
from solvers.stepping import Effort, snapshot

# Iterations with an old factorisation (a residual and two triangular solves each) that together
# cost less than a new one.
_QUICK = 5
# Newton's method from a good guess takes 3 to 6 iterations, at the edge of what converges some 20.
_MAX_ITERATIONS = 50

Plane = Float64[np.ndarray, " y x"]
Row = Float64[np.ndarray, " 1 x"]
Column = Float64[np.ndarray, " y 1"]
Source = Callable[[Row, Column, float], Plane | float]
Initial = Callable[[Row, Column], Plane | float]


def _nothing(x: Row, y: Column, time: float = 0.0) -> float:
    return 0.0


@final
class Cavity(PdeSolver["_Flow"]):
    """The solver of ``kind: cavity``.

    Args:
        config: Mode, grid, time and lid.
        source: Given x, y [m] and time [s], what to add to the right-hand side of the vorticity
            equation [1/s^2]; none by default.
        initial: Given x and y, the stream function at time 0 [m^2/s]; 0 by default.
    """

    def __init__(
        self, config: CavityConfig, *, source: Source = _nothing, initial: Initial = _nothing
    ) -> None:
        super().__init__(config, partial(_Flow, config, source, initial))

    def _begin(self, flow: "_Flow", values: dict[str, float]) -> Callable[[int], Snapshot]:
        for parameter in self._parameters:
            if values[parameter.name] <= 0:
                raise SolverFailed(
                    f"{parameter.name}={values[parameter.name]:g} {parameter.unit}: must be "
                    f"positive; meant for [{parameter.low:g}, {parameter.high:g}]"
                )
        return partial(flow.snapshot, values)


@final
class _Flow:
    """The discretised cavity on one communicator, in units of length x and lid speed."""

    def __init__(
        self, config: CavityConfig, source: Source, initial: Initial, comm: object, owned: Owned
    ) -> None:
        self._config, self._source, self._initial = config, source, initial
        (self._ny, self._nx), self._width = config.grid, config.length[1]
        self._hy, self._hx = (h / self._width for h in config.spec().spacing)
        self._iterations = 0  # of the linear solver, in the newest step
        self._da = spread(config.grid, comm, owned, reach=GHOSTS, ends="ghosted", corners=True)
        (west, east), (south, north) = self._da.getRanges()
        self.box = slices_of(self._da)
        self._shape = (north - south, east - west)
        self._local = StreamFunction(
            self._shape,
            spacing=(self._hy, self._hx),
            at_walls=(south == 0, north == self._ny, west == 0, east == self._nx),
        )
        self._local_vec = vector_over(self._local.psi, comm=PETSc.COMM_SELF, owned=owned)
        self._now, self._before, self._guess = (
            vector_over(psi, comm=comm, owned=owned) for psi in np.zeros((3, *self._shape))
        )
        self._vorticity: Plane = np.zeros(self._shape)
        self._fields = np.zeros((3, *self._shape))  # what is streamed
        self._shown = vector_over(self._fields, comm=comm, owned=owned)
        self._snes = newton_solver(
            coupled_matrix(self._da, *couplings(self.box, config.grid), owned=owned),
            self._residual,
            self._jacobian,
            max_it=_MAX_ITERATIONS,
            prefix=unique_prefix(config.kind),
            options=config.petsc_options,
            owned=owned,
        )

    def snapshot(self, values: Mapping[str, float], step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        self._iterations, time = 0, self._config.time_of(step)
        if step == 0:
            self._start(values)
        elif self._config.mode == "steady":
            self._steady_step(step, time)
        elif step == 1:
            self._first_step(time)
        else:
            self._next_step(step, time)
        self._derive()
        speed, (u, v) = self._speed, self._velocity
        with np.errstate(over="ignore", invalid="ignore"):
            self._fields[:] = speed * u, speed * v, speed / self._width * self._vorticity
        self._shown.stateIncrease()  # NumPy has written
        return snapshot(step, time, self._shown, self._fields, Effort(self._iterations))

    def _start(self, values: Mapping[str, float]) -> None:
        """Set the parameters and the initial state of a member."""
        j, i = np.ogrid[self.box]
        self._x, self._y = (i + 1) * self._hx, (j + 1) * self._hy
        self._speed = values["lid_speed"]
        unsteady = self._config.mode == "unsteady"
        self._rate = 1.5 * self._width / (self._config.dt * self._speed) if unsteady else 0.0
        self._terms = {"rate": self._rate, "viscosity": 1 / values["reynolds"]}
        self._profile = np.ones_like(self._x[0])
        if self._config.lid == "regularised":
            self._profile = 16 * self._x[0] ** 2 * (1 - self._x[0]) ** 2
        self._lid = self._profile if unsteady else 0.0 * self._profile
        psi = np.zeros(self._shape) + self._initial(self._x * self._width, self._y * self._width)
        psi /= self._speed * self._width
        for state in (self._now, self._before):
            state.setArray(psi.ravel())  # type: ignore[arg-type]  # the stub's type
        self._rebuild, self._keep = True, unsteady

    def _steady_step(self, step: int, time: float) -> None:
        """The steady flow at share ``time`` of the lid speed."""
        self._lid = time * self._profile
        self._right = self._sources(time)
        self._advance()
        self._newton(step, time)

    def _first_step(self, time: float) -> None:
        """The mean of two backward Euler solutions, at 2/3 and 4/3 of the step."""
        before = self._vorticity
        for share in (2 / 3, 4 / 3):
            self._right = self._rate * self._vorticity + self._sources(share * time)
            self._solve_in_time(1, time)
            self._derive()
        self._now.axpby(0.5, 0.5, self._guess)
        self._vorticity = before  # not that of the stages, for the next step

    def _next_step(self, step: int, time: float) -> None:
        """BDF2."""
        history = (4 * self._vorticity - self._vorticity_before) / 3
        self._right = self._rate * history + self._sources(time)
        self._advance()
        self._solve_in_time(step, time)

    def _sources(self, time: float) -> Plane | float:
        source = self._source(self._x * self._width, self._y * self._width, time)
        return (self._width / self._speed) ** 2 * source

    def _advance(self) -> None:
        """Make room for a new state, whose first guess is extrapolated from the last two."""
        self._now, self._before = self._before, self._now
        self._now.axpby(2.0, -1.0, self._before)

    def _solve_in_time(self, step: int, time: float) -> None:
        """Newton's method with an old factorisation, and with a new one an iteration if need be."""
        self._now.copy(self._guess)
        try:
            iterations = self._newton(step, time)
        except SolverFailed:
            self._guess.copy(self._now)
            self._keep = False
            try:
                iterations = self._newton(step, time)
            finally:
                self._keep = True
        self._rebuild = iterations > _QUICK

    def _newton(self, step: int, time: float) -> int:
        """How many iterations it took; its linear ones count even if it fails."""
        try:
            return solve_newton(self._snes, self._now, step=step, time=time)
        finally:
            self._iterations += iterations_of(self._snes)

    def _derive(self) -> None:
        """Velocity and vorticity of the newest state; those of the last step's are kept."""
        self._vorticity_before = self._vorticity
        u, v, vorticity = self._flow_of(self._now)
        self._velocity = (u[:, 1:-1], v[1:-1])
        self._vorticity = vorticity[1:-1, 1:-1].copy()

    def _flow_of(self, state: PETSc.Vec) -> Flow:
        """Velocity and vorticity on this mpi_rank's box, with what neighbours and walls add."""
        self._da.globalToLocal(state, self._local_vec)
        return self._local.flow(self._lid)

    def _residual(self, snes: PETSc.SNES, state: PETSc.Vec, out: PETSc.Vec) -> None:
        """The vorticity equation; not finite where the state is too large, which PETSc detects."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = self._local.residual(self._flow_of(state), self._right, **self._terms)
        out.setArray(value.ravel())  # type: ignore[arg-type]  # the stub's type

    def _jacobian(
        self, snes: PETSc.SNES, state: PETSc.Vec, matrix: PETSc.Mat, preconditioner: PETSc.Mat
    ) -> None:
        """Leaves the matrix, and PETSc the factorisation, as it is where an old one will do."""
        if self._keep and not self._rebuild:
            return
        self._rebuild = False
        entries = self._local.entries(self._flow_of(state), **self._terms)
        preconditioner.setValuesCOO(entries.ravel(), PETSc.InsertMode.INSERT_VALUES)  # type: ignore[arg-type]  # the stub's type
        if matrix != preconditioner:  # -snes_mf_operator
            matrix.assemble()
