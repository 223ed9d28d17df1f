"""Heat conduction between walls of constant temperature: in a rod, a plate or a block.

Equation:    T_t = a (T_xx + T_yy + T_zz) + q, temperature T [K], diffusivity a [m^2/s], heating
             rate q [K/s]: the heat put in [W/m^3] over density times heat capacity.
Domain:      0 < x < length x, and so for y and z; 0 < t <= steps * dt. As many axes as `grid` has
             numbers: [x], [y, x] or [z, y, x].
Boundary:    T = west at x = 0, east at x = length x, south at y = 0, north at y = length y, bottom
             at z = 0, top at z = length z.
Initial:     T = initial everywhere inside; it need not fit the walls.
Heating:     none; or, with `source: gaussian`, q = source_rate * exp(-r^2 / (2 source_width^2)) at
             distance r from (source_x, source_y, source_z), the same at all times. It may be
             negative, and reach beyond a wall.
Grid:        cell centres, x_i = (i + 1/2) hx, and so for y and z, with h = length / cells; a wall
             is the outer face of the first or last cell. Every value of a snapshot is an unknown,
             and no point lies in a corner, where two walls disagree. fields[0, k, j, i] belongs to
             (x_i, y_j, z_k): row 0 is south, column 0 is west, plane 0 is the bottom. With
             `source_field: true`, fields[1] is q.
Space:       finite volumes (3, 5 or 7 points; half a cell to a wall). Second order.
Time:        BDF2. The first step is the mean of backward Euler solutions at 2/3 dt and 4/3 dt: they
             need the same matrix, so one factorisation serves every step of every member. Second
             order, one solve per step.
             Why: initial state and walls jump against each other, so Crank-Nicolson would ring for
             many steps; backward Euler is only first order; L-stable schemes with two stages
             (TR-BDF2, SDIRK) need two solves.
Stability:   unconditional (L-stable). Without a source, the first step keeps inside the range of
             the given temperatures. Later ones may leave it: by about 1 % of their spread while dt
             follows the decay below (exponent under 1/4 per step), by up to 5 % with larger steps.
Behaviour:   fronts of width sqrt(a t) run in from the walls; differences then decay like
             exp(-a pi^2 (1/lx^2 + 1/ly^2 + 1/lz^2) t), towards the harmonic function between the
             walls, plus what the source adds: about source_rate * source_width^2 / a at its centre
             in a block, and more with fewer axes.
Good values: a = 0.1 m^2/s, 1 m x 1 m, 100 steps of 0.01 s: 52 % of the slowest mode is left after a
             third of the time and 14 % at the end. Real materials: keep a t / l^2 (aluminium has
             1e-4 m^2/s, so dt = 10 s shows the same pictures). A source_width of at least 2 cells.
Source:      Hairer, Wanner, Solving Ordinary Differential Equations II, chapter V (BDF2); Thomee,
             Galerkin Finite Element Methods for Parabolic Problems, chapter 10 (non-smooth data).

The matrix never changes: parameters enter through the right-hand side and the initial state only. A
rod or a plate on one mpi_rank is factorised once; a block is solved with conjugate gradients. On
several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.heat import WALLS, HeatConfig
from solvers.numerics.stencil import Cells
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, linear_solver, solve, unique_prefix, vector_over
from solvers.stepping import Effort, snapshot

# BDF2 reads u' = (3 u_new - 4 u + u_old) / (2 dt): divided by 3/2, the matrix is I + 2/3 dt L.
_IMPLICIT_SHARE = 2 / 3

# Given x, y and z of the cell centres [m], as many as there are axes: temperatures [K].
Perturbation = Callable[..., Float64[np.ndarray, " *grid"]]


@final
class Heat(PdeSolver["_Body"]):
    """The solver of ``kind: heat``.

    Args:
        config: Grid, time and material.
        perturbation: Given x, y and z of the cell centres [m], as many as there are axes, what to
            add to the uniform initial temperature [K]; none by default.
    """

    def __init__(self, config: HeatConfig, *, perturbation: Perturbation | None = None) -> None:
        super().__init__(config, partial(_Body, config, perturbation))

    def _begin(self, body: "_Body", values: dict[str, float]) -> Callable[[int], Snapshot]:
        if values.get("source_width", 1.0) <= 0:
            raise SolverFailed(
                f"source_width={values['source_width']:g} m: a source needs a width > 0, better at "
                f"least 2 cells ({2 * max(self.spec.spacing):g} m)"
            )
        return partial(body.snapshot, values)


@final
class _Body:
    """The discretised body on one communicator: all that is kept from member to member."""

    def __init__(
        self, config: HeatConfig, perturbation: Perturbation | None, comm: object, owned: Owned
    ) -> None:
        self._config, self._perturbation = config, perturbation
        self._spacing = config.spec().spacing
        self._share = _IMPLICIT_SHARE * config.dt
        self._weights = [self._share * config.diffusivity / h**2 for h in self._spacing]
        self._cells = Cells(config.grid, comm=comm, owned=owned)
        self.box = self._cells.box
        # A wall is h / 2 away.
        matrix = self._cells.matrix(self._weights, wall=1.0)
        self._ksp = linear_solver(
            matrix,
            prefix=unique_prefix(config.kind),
            options=config.petsc_options,
            owned=owned,
            factorise=len(config.grid) < 3,
        )
        self._now, self._before, self._spare, self._rhs, self._given = (
            vector_over(values, comm=comm, owned=owned)
            for values in np.zeros((5, *self._cells.shape))
        )
        self._source: Float64[np.ndarray, " 1 *grid"] | None = None

    def snapshot(self, values: Mapping[str, float], step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        time = step * self._config.dt
        if step == 0:
            iterations = self._start(values)
        elif step == 1:
            iterations = self._first_step(time)
        else:
            iterations = self._next_step(step, time)
        fields = self._now.array_r.reshape(1, *self._cells.shape)
        if self._source is not None:
            fields = np.concatenate([fields, self._source])
        return snapshot(step, time, self._now, fields, Effort(iterations))

    def _start(self, values: Mapping[str, float]) -> int:
        """Set walls, source and initial state of a member, which takes no iterations."""
        centres = self._cells.centres(self._spacing)
        given = self._walls(values)
        if self._config.source == "gaussian":
            source = _gaussian(values, centres)
            given += self._share * source
            if self._config.source_field:
                self._source = source[None]
        initial = np.full(self._cells.shape, values["initial"])
        if self._perturbation is not None:
            initial += self._perturbation(*centres)
        self._given.setArray(given.ravel())  # type: ignore[arg-type]  # the stub's type
        # All three, because an iterative solver starts from what the last member left in them.
        for state in (self._now, self._before, self._spare):
            state.setArray(initial.ravel())  # type: ignore[arg-type]  # the stub's type
        return 0

    def _walls(self, values: Mapping[str, float]) -> Float64[np.ndarray, " *grid"]:
        """What the walls add to the right-hand side of a step."""
        total = np.zeros(self._cells.shape)
        for weight, at, names in zip(
            self._weights[::-1], self._cells.at_walls(), WALLS, strict=False
        ):
            (at_first, at_last), (first, last) = at, names
            total += 2 * weight * (values[first] * at_first + values[last] * at_last)
        return total

    def _first_step(self, time: float) -> int:
        """The mean of two backward Euler solutions, at 2/3 and 4/3 of the step.

        Returns:
            Iterations of the linear solver.
        """
        rhs, given = self._rhs, self._given
        rhs.waxpy(1.0, self._now, given)
        iterations = solve(self._ksp, rhs, self._before, step=1, time=time)
        rhs.waxpy(1.0, self._before, given)
        iterations += solve(self._ksp, rhs, self._spare, step=1, time=time)
        self._spare.axpby(0.5, 0.5, self._before)
        self._now, self._before, self._spare = self._spare, self._now, self._before
        return iterations

    def _next_step(self, step: int, time: float) -> int:
        """BDF2; the extrapolation in the right-hand side is the first guess as well.

        Returns:
            Iterations of the linear solver.
        """
        rhs, solution = self._rhs, self._before
        solution.axpby(4 / 3, -1 / 3, self._now)
        rhs.waxpy(1.0, solution, self._given)
        iterations = solve(self._ksp, rhs, solution, step=step, time=time)
        self._now, self._before = self._before, self._now
        return iterations


def _gaussian(
    values: Mapping[str, float], centres: list[Float64[np.ndarray, "..."]]
) -> Float64[np.ndarray, " *grid"]:
    """The heating rate of a Gaussian source [K/s], given x, y and z of the cell centres [m]."""
    width = values["source_width"]
    rate = np.array(values["source_rate"])
    for axis, place in zip("xyz", centres, strict=False):
        rate = rate * np.exp(-0.5 * ((place - values[f"source_{axis}"]) / width) ** 2)
    return rate
