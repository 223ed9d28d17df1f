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
Space:       finite volumes (five-point stencil; half a cell to a wall). Second order.
Time:        trapezoidal rule (Newmark with beta 1/4, gamma 1/2). Second order. It solves for the
             state in the middle of the step, once per step, with a matrix that is never changed.
Stability:   unconditional. The energy, the sum over all cells of hx hy / 2 (v^2 + c^2 u K u) with
             K the stencil of -(u_xx + u_yy), is the same at every step up to rounding (up to the
             tolerance of an iterative solver), and the mean velocity too between free walls.
Behaviour:   a ring runs out at speed c, is reflected, and crosses itself; no state is ever steady.
             Errors are errors of speed: a wave of angular frequency w is slower by about
             (w dt)^2 / 12, and by up to (k h)^2 / 24 for wave number k on cells of size h.
Good values: c dt / h between 1/2 and 1, and a width of at least 3 cells. c = 1 m/s, 1 m x 1 m,
             64 x 64, 200 steps of 0.01 s: a wave crosses the membrane twice.
Source:      Newmark, J. Eng. Mech. Div. ASCE 85 (1959), 67-94; LeVeque, Finite Difference Methods
             for Ordinary and Partial Differential Equations, chapters 5 and 10.

The matrix never changes: parameters enter through the initial state only. On several mpi_ranks
each one yields its own box of the field.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import FieldSpec, Snapshot, SolverFailed
from solvers.config import member_values
from solvers.configs.wave import WaveConfig
from solvers.numerics.stencil import Box, Cells
from solvers.numerics.turns import Turns
from solvers.petsc import (
    Owned,
    PETSc,
    communicator,
    linear_solver,
    solve,
    unique_prefix,
)
from solvers.stepping import Effort, snapshot

__all__ = ["Wave"]

# Given x and y of the cell centres [m]: displacement [m] and velocity [m/s].
State = Callable[
    [Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]], Float64[np.ndarray, " 2 y x"]
]


@final
class Wave:
    """The solver of ``kind: wave``.

    Matrix and factorisation are made at the first member and kept until ``close``.

    Args:
        config: Grid, time and material.
        state: Given x and y of the cell centres [m], displacement [m] and velocity [m/s] at
            time 0, ``(2, y, x)``; in place of the bump, which is the default.
    """

    def __init__(self, config: WaveConfig, *, state: State | None = None) -> None:
        self._config = config
        self._state = state
        self._spec = config.spec()
        self._prefix = unique_prefix(config.kind)
        self._membrane: _Membrane | None = None
        self._turns = Turns()

    @property
    def spec(self) -> FieldSpec:
        """Two channels, displacement in metres and velocity in metres per second."""
        return self._spec

    @property
    def max_snapshots(self) -> int:
        """The initial state and one snapshot per solver step."""
        return self._config.max_snapshots

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: ``x``, ``y``, ``width`` and ``height`` of the bump in metres.
            comm: The mpi4py or PETSc communicator to run on. With several ranks every one of them
                must call, and each yields its own ``box(comm)``.

        Raises:
            SolverFailed: The linear solve diverged, a value is not finite, or ``width`` is not > 0.
            ValueError: Wrong parameter names, or PETSc options that PETSc does not take.
        """
        values = member_values(self._config.parameters(), parameters)
        if values["width"] <= 0:
            raise SolverFailed(
                f"width={values['width']:g} m: a bump needs a width > 0, better at least 3 cells "
                f"({3 * max(self._spec.spacing):g} m)"
            )
        membrane = self._membrane_on(comm)
        return self._member(membrane, values, self._turns.begin())

    def box(self, comm: object) -> Box:
        """Where this mpi_rank's part of a snapshot lies in the whole grid ``(y, x)``."""
        return self._membrane_on(comm).box

    def close(self) -> None:
        """Destroy matrix, factorisation and vectors. Safe to call twice."""
        self._turns.begin()
        if self._membrane is not None:
            self._membrane.close()
            self._membrane = None

    def _member(
        self, membrane: "_Membrane", values: Mapping[str, float], turn: int
    ) -> Iterator[Snapshot]:
        for step in range(self.max_snapshots):
            self._turns.check(turn, step=step)
            time = step * self._config.dt
            if step == 0:
                iterations = membrane.start(_bump(values) if self._state is None else self._state)
            else:
                iterations = membrane.next_step(step, time)
            yield membrane.snapshot(step, time, iterations)

    def _membrane_on(self, comm: object) -> "_Membrane":
        if self._membrane is not None and not self._membrane.is_on(comm):
            self.close()
        if self._membrane is None:
            self._membrane = _Membrane(self._config, comm=comm, prefix=self._prefix)
        return self._membrane


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

    def __init__(self, config: WaveConfig, *, comm: object, prefix: str) -> None:
        self._grid, self._spacing, self._dt = config.grid, config.spec().spacing, config.dt
        # The matrix is I + (c dt / 2)^2 K.
        share = (config.speed * config.dt / 2) ** 2
        self._weights = [share / h**2 for h in self._spacing]
        # Beyond a wall lies the mirror image: with the other sign it keeps 0 there, with the same
        # sign no slope.
        self._wall = {"fixed": 1.0, "free": -1.0}[config.walls]
        self._owned = Owned()
        try:
            self._set_up(config.petsc_options, comm=comm, prefix=prefix)
        except BaseException:
            self._owned.close()
            raise

    def _set_up(self, options: str, *, comm: object, prefix: str) -> None:
        self._cells = Cells(self._grid, comm=comm, owned=self._owned)
        self.box: Box = self._cells.box
        matrix = self._cells.matrix(self._weights, wall=self._wall)
        self._ksp = linear_solver(matrix, prefix=prefix, options=options, owned=self._owned)
        # Both in one piece of memory, so that a snapshot is one conversion.
        self._fields = np.zeros((2, *self._cells.shape))
        self._displacement, self._velocity, self._middle, self._rhs = (
            self._owned(PETSc.Vec().createWithArray(values.reshape(-1), comm=communicator(comm)))
            for values in (*self._fields, *np.zeros_like(self._fields))
        )

    def is_on(self, comm: object) -> bool:
        """Whether ``comm`` is the communicator that this was built for."""
        return self._cells.is_on(comm)

    def close(self) -> None:
        """Destroy matrix, factorisation and vectors."""
        self._owned.close()

    def start(self, state: State) -> int:
        """Set the initial state of a member, which takes no iterations."""
        displacement, velocity = state(*self._cells.centres(self._spacing))
        self._displacement.setArray(displacement.ravel())
        self._velocity.setArray(velocity.ravel())
        return 0

    def next_step(self, step: int, time: float) -> int:
        """With u' = v in the middle of the step, (I + (c dt / 2)^2 K) middle = u + dt / 2 v.

        Returns:
            Iterations of the linear solver.
        """
        u, v, middle = self._displacement, self._velocity, self._middle
        self._rhs.waxpy(self._dt / 2, v, u)
        # The first guess of an iterative solver, which must not depend on the last member.
        self._rhs.copy(middle)
        iterations = solve(self._ksp, self._rhs, middle, step=step, time=time)
        # Both run on in a straight line through the middle: new = 2 middle - old.
        v.axpby(4 / self._dt, -1.0, middle)
        v.axpy(-4 / self._dt, u)
        u.axpby(2.0, -1.0, middle)
        return iterations

    def snapshot(self, step: int, time: float, iterations: int) -> Snapshot:
        """This mpi_rank's box of the newest state."""
        return snapshot(step, time, self._velocity, self._fields, Effort(iterations, 0))
