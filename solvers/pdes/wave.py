"""Waves on a rectangular membrane, started by a bump and kept in by its walls.

Equation:    u_tt = c^2 (u_xx + u_yy), displacement u [m], speed c [m/s]; solved as u_t = v with the
             velocity v [m/s].
Domain:      0 < x < length x, 0 < y < length y; 0 < t <= steps * dt.
Boundary:    walls fixed: u = 0; walls free: no slope across the wall. A wave comes back from
             either, turned over from a fixed one.
Initial:     u = height * exp(-((X - x)^2 + (Y - y)^2) / (2 width^2)) at the point (X, Y), v = 0.
             It need not fit the walls.
Grid:        cell centres, x_i = (i + 1/2) hx, y_j = (j + 1/2) hy, with h = length / cells; a wall
             is the outer face of the first or last cell. fields[channel, j, i] belongs to
             (x_i, y_j): row 0 is south, column 0 is west.
Space:       finite volumes (nine-point star; half a cell to a wall, and images behind it). Fourth
             order.
Time:        the scheme of Numerov (Newmark with beta 1/12, gamma 1/2) in terms of u and v. Fourth
             order. One solve per step, with a matrix that is never changed.
Stability:   c dt sqrt(1 / hx^2 + 1 / hy^2) <= 1.06; checked when a study is loaded. The energy, the
             sum over all cells of hx hy / 2 (v^2 + c^2 u M u), M = K (1 - z / 6) (1 + z / 12)^2, K
             the stencil of -(u_xx + u_yy) and z = c^2 dt^2 K, is the same at every step up to
             rounding (up to the tolerance of an iterative solver), and the mean velocity too
             between free walls.
Behaviour:   a ring runs out at speed c, is reflected, and crosses itself; no state is ever steady.
             Errors are errors of speed: a wave of angular frequency w is off by about
             (w dt)^4 / 480, and by up to (k h)^4 / 180 for wave number k on cells of size h.
Good values: c dt / h of about 0.6, and a width of at least 3 cells. c = 1 m/s, 1 m x 1 m, 64 x 64,
             200 steps of 0.01 s: a wave crosses the membrane twice. Measured there against the
             exact solution after 1 and 2 s: 1.6 % and 3.3 % for a width of 0.04 m (2.6 cells, the
             least of the range), 0.7 % and 1.5 % for 3 cells, 0.1 % for 5. A bump that reaches into
             a fixed wall has a kink there, and errors of some per cent.
Source:      Newmark, J. Eng. Mech. Div. ASCE 85 (1959) 67; Cohen, Higher-Order Numerical Methods
             for Transient Wave Equations (2002); LeVeque, Finite Difference Methods for Ordinary
             and Partial Differential Equations, chapters 5 and 10.

The matrix never changes: parameters enter through the initial state only. On several mpi_ranks
each one yields its own box of the field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.wave import WaveConfig
from solvers.numerics.stencil import Cells
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, linear_solver, solve, unique_prefix, vector_over
from solvers.stepping import Effort, snapshot

__all__ = ["Wave"]

# Given x and y of the cell centres [m]: displacement [m] and velocity [m/s].
State = Callable[
    [Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]], Float64[np.ndarray, " 2 y x"]
]


@final
class Wave(PdeSolver["_Membrane"]):
    """The solver of ``kind: wave``.

    Args:
        config: Grid, time and material.
        state: Given x and y of the cell centres [m], displacement [m] and velocity [m/s] at
            time 0, ``(2, y, x)``; in place of the bump, which is the default.
    """

    def __init__(self, config: WaveConfig, *, state: State | None = None) -> None:
        super().__init__(config, partial(_Membrane, config))
        self._state = state

    def _begin(self, membrane: "_Membrane", values: dict[str, float]) -> Callable[[int], Snapshot]:
        if values["width"] <= 0:
            raise SolverFailed(
                f"width={values['width']:g} m: a bump needs a width > 0, better at least 3 cells "
                f"({3 * max(self.spec.spacing):g} m)"
            )
        return partial(membrane.snapshot, _bump(values) if self._state is None else self._state)


def _bump(values: Mapping[str, float]) -> State:
    """A Gaussian bump at rest."""

    def state(
        x: Float64[np.ndarray, " 1 x"], y: Float64[np.ndarray, " y 1"]
    ) -> Float64[np.ndarray, " 2 y x"]:
        width = values["width"]
        across = np.exp(-0.5 * ((x - values["x"]) / width) ** 2)
        up = np.exp(-0.5 * ((y - values["y"]) / width) ** 2)
        displacement = values["height"] * up * across
        return np.stack([displacement, np.zeros_like(displacement)])

    return state


@final
class _Membrane:
    """The discretised membrane on one communicator: all that is kept from member to member."""

    def __init__(self, config: WaveConfig, comm: object, owned: Owned) -> None:
        self._spacing, self._dt = config.spec().spacing, config.dt
        # The matrix D is I + (c dt)^2 / 12 K.
        share = (config.speed * config.dt) ** 2 / 12
        weights = [share / h**2 for h in self._spacing]
        # Beyond a wall lies the mirror image: with the other sign it keeps 0 there, with the same
        # sign no slope.
        wall = {"fixed": 1.0, "free": -1.0}[config.walls]
        self._cells = Cells(config.grid, comm=comm, owned=owned, order=4)
        self.box = self._cells.box
        self._matrix = self._cells.matrix(weights, wall=wall)
        self._ksp = linear_solver(
            self._matrix,
            prefix=unique_prefix(config.kind),
            options=config.petsc_options,
            owned=owned,
        )
        # Both in one piece of memory, so that a snapshot is one conversion.
        self._fields = np.zeros((2, *self._cells.shape))
        # Beside u and v: D u, and q with D q = v.
        self._displacement, self._velocity, self._image, self._push, self._rhs = (
            vector_over(values, comm=comm, owned=owned)
            for values in (*self._fields, *np.zeros((3, *self._cells.shape)))
        )

    def snapshot(self, state: State, step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        time = step * self._dt
        iterations = self._start(state) if step == 0 else self._next_step(step, time)
        return snapshot(step, time, self._velocity, self._fields, Effort(iterations))

    def _start(self, state: State) -> int:
        """Set the initial state of a member, which takes no iterations."""
        displacement, velocity = state(*self._cells.centres(self._spacing))
        self._displacement.setArray(displacement.ravel())
        self._velocity.setArray(velocity.ravel())
        self._matrix.mult(self._displacement, self._image)
        self._velocity.copy(self._push)  # the first guess of an iterative solver
        solve(self._ksp, self._velocity, self._push, step=0, time=0.0)
        return 0

    def _next_step(self, step: int, time: float) -> int:
        """Forwards D u_new = (6 - 5 D) u + dt q; the same backwards in time gives the new q.

        Returns:
            Iterations of the linear solver.
        """
        u, q, image, rhs, dt = self._displacement, self._push, self._image, self._rhs, self._dt
        rhs.waxpy(-5.0, image, u)
        rhs.axpy(5.0, u)
        rhs.axpy(dt, q)
        u.axpy(dt, q)  # the first guess of an iterative solver
        iterations = solve(self._ksp, rhs, u, step=step, time=time)
        # dt q_new = (6 - 5 D) u_new - D u_old, and D u_new is the right-hand side.
        q.waxpy(-1.0, image, u)
        q.axpy(5.0, u)
        q.axpby(-5 / dt, 1 / dt, rhs)
        self._image, self._rhs = rhs, image
        self._matrix.mult(q, self._velocity)
        return iterations
