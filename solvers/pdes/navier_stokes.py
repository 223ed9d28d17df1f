"""Two-dimensional turbulence: a forced viscous flow on a periodic rectangle.

Equation:    w_t + u . grad w = nu lap w + f, vorticity w [1/s], viscosity nu [m^2/s]; the velocity
             u = (psi_y, -psi_x) [m/s] follows from -lap psi = w. Incompressible Navier-Stokes.
             f = forcing * (sin a + cos a), a = 2 pi (x / length x + y / length y).
Domain:      0 <= x < length x, 0 <= y < length y; 0 < t <= steps * dt.
Boundary:    periodic.
Initial:     the random field `initial` that the member's seed draws; its mean is 0.
Grid:        x_i = i hx, y_j = j hy, h = length / points. fields[0, j, i] belongs to (x_i, y_j).
Space:       Arakawa's form of the advection, five-point stencils of both Laplacians. Second order.
Time:        classical Runge-Kutta scheme, fourth order, each stage with a Poisson solve for psi.
             Why: with nu <= 1e-3 m^2/s diffusion hardly limits the step before advection does, so
             an implicit scheme would save no steps, and the one matrix that there is never changes:
             one factorisation serves every stage of every member. (On several mpi_ranks each has
             it, up to 512 x 512 points; above, conjugate gradients under algebraic multigrid.)
Stability:   every interval has as many steps as keep step * (|u| / hx + |v| / hy + 4 nu (1 / hx^2 +
             1 / hy^2)) below 2.2 at every point as it begins (the scheme's own limit is near 2.8).
             More than 10,000 are refused.
Behaviour:   the mean of w stays 0. Advection conserves energy and enstrophy (sums of u^2 and of
             w^2), so what a member loses, viscosity took. Vortices of one sign merge while w is
             drawn out into filaments of width sqrt(nu / strain); where h is larger, w gets rough
             from point to point but stays bounded. Members part for nu below about 1e-4: chaos.
Good values: the benchmark is forcing 0.1, nu 1e-3 (to t = 50 s), 1e-4 (30 s), 1e-5 (20 s) on 64 x
             64 points of a finer solution; 64 x 64 resolve 1e-3, 128 x 128 resolve 1e-4. std 0.043
             is N(0, 7^(3/2) (-lap + 49 I)^(-5/2)), as the paper has it; the program that made its
             data sets has 7^3 for 7^(3/2), std 0.185.
Source:      Li et al., Fourier Neural Operator, arXiv:2010.08895, section 5.3 (the benchmark);
             Arakawa, J. Comput. Phys. 1 (1966) 119.

On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.navier_stokes import NavierStokesConfig
from solvers.numerics.arakawa import jacobian
from solvers.numerics.random_fields import draw
from solvers.numerics.stencil import fill, slices_of, spread
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, PETSc, linear_solver, solve, unique_prefix
from solvers.stepping import Effort, snapshot

__all__ = ["NavierStokes"]

# Of rates on the real and the imaginary axis together, times the step.
_LIMIT = 2.2
_MOST_STEPS = 10_000
# Up to here several mpi_ranks are faster when each solves the whole system (three to four times on
# two, from 128 x 128 to 256 x 256) than by multigrid; the factors take 250 MB at most.
_FEW_POINTS = 512 * 512

Row = Float64[np.ndarray, " 1 x"]
Column = Float64[np.ndarray, " y 1"]
Plane = Float64[np.ndarray, " y x"]
Initial = Callable[[Row, Column], Plane]
Source = Callable[[Row, Column, float], Plane]


@final
class NavierStokes(PdeSolver["_Flow"]):
    """The solver of ``kind: navier_stokes``.

    Args:
        config: Grid, time and initial field.
        initial: Given x and y [m], the vorticity at time 0 [1/s], whose mean is taken off; in place
            of the random field, which is the default.
        source: Given x, y [m] and time [s], what to add to f [1/s^2], with mean 0; none by default.
    """

    def __init__(
        self,
        config: NavierStokesConfig,
        *,
        initial: Initial | None = None,
        source: Source | None = None,
    ) -> None:
        super().__init__(config, partial(_Flow, config, source))
        self._config, self._initial = config, initial

    def _begin(self, flow: "_Flow", values: dict[str, float]) -> Callable[[int], Snapshot]:
        if values["viscosity"] < 0:
            raise SolverFailed(
                f"viscosity={values['viscosity']:g} m^2/s: must not be negative; meant for "
                "[1e-05, 0.001]"
            )
        initial = self._initial
        if initial is None:
            length = self._config.length
            field = draw(self._config.initial, values["seed"], length=length, boundary="periodic")

            def initial(x: Row, y: Column) -> Plane:
                return field(y.ravel(), x.ravel())

        return partial(flow.snapshot, values, initial)


@final
class _Flow:
    """The discretised flow on one communicator: all that is kept from member to member."""

    def __init__(
        self, config: NavierStokesConfig, source: Source | None, comm: object, owned: Owned
    ) -> None:
        self._config, self._source, self._dt = config, source, config.dt
        self._hy, self._hx = config.spec().spacing
        # Advection needs the corners of a point's neighbourhood, and the matrix must not have them.
        self._da = spread(config.grid, comm, owned, ends="periodic", corners=True)
        matrix_da = spread(config.grid, comm, owned, ends="periodic")
        (west, east), (south, north) = self._da.getRanges()
        self.box = slices_of(self._da)
        matrix = owned(matrix_da.createMat())
        self._rx, self._ry = 1 / self._hx**2, 1 / self._hy**2
        entries = np.empty((5, north - south, east - west))
        entries[0], entries[1:3], entries[3:] = 2 * (self._rx + self._ry), -self._rx, -self._ry
        if (south, west) == (0, 0):
            # psi is known up to a constant. Twice the diagonal at one point chooses psi = 0 there
            # and changes nothing else: as the right-hand sides sum up to 0, so do the left ones,
            # which leave the extra term over. The matrix is now positive definite.
            entries[0, 0, 0] *= 2
        fill(matrix_da, matrix, entries)
        matrix.setOption(PETSc.Mat.Option.SPD, True)  # type: ignore[arg-type]  # the stub's type
        self._ksp = linear_solver(
            matrix,
            prefix=unique_prefix(config.kind),
            options=config.petsc_options,
            owned=owned,
            redundant=config.grid[0] * config.grid[1] <= _FEW_POINTS,
        )
        self._vorticity, self._psi = (owned(self._da.createGlobalVec()) for _ in range(2))
        self._near_vorticity, self._near_psi = (owned(self._da.createLocalVec()) for _ in range(2))
        j, i = np.ogrid[self.box]
        self._x: Row = i * self._hx
        self._y: Column = j * self._hy

    def snapshot(self, values: Mapping[str, float], initial: Initial, step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        self._iterations = 0
        if step == 0:
            self._start(values, initial)
        else:
            self._advance(step)
        effort = Effort(self._iterations)
        return snapshot(step, step * self._dt, self._vorticity, self._state[None], effort)

    def _start(self, values: Mapping[str, float], initial: Initial) -> None:
        """Set the parameters and the initial state of a member."""
        self._viscosity = values["viscosity"]
        ly, lx = self._config.length
        angle = 2 * np.pi * (self._x / lx + self._y / ly)
        self._forcing: Plane = values["forcing"] * (np.sin(angle) + np.cos(angle))
        state = initial(self._x, self._y)
        self._vorticity.setArray(state.ravel())  # type: ignore[arg-type]  # the stub's type
        mean = self._vorticity.sum() / self._vorticity.getSize()
        self._state: Plane = state - mean
        self._vorticity.shift(-mean)
        # The first guess of an iterative solver, which must not depend on the last member.
        self._psi.set(0.0)

    def _advance(self, step: int) -> None:
        """Go on to time ``step * dt`` in as many steps as it takes."""
        state, time = self._state, (step - 1) * self._dt
        first = self._rate(state, time, step)
        parts = self._steps_needed(step)
        h = self._dt / parts
        for part in range(parts):
            time = (step - 1) * self._dt + part * h
            if part > 0:
                first = self._rate(state, time, step)
            second = self._rate(state + h / 2 * first, time + h / 2, step)
            third = self._rate(state + h / 2 * second, time + h / 2, step)
            last = self._rate(state + h * third, time + h, step)
            state = state + h / 6 * (first + 2 * (second + third) + last)
        self._state = state
        self._vorticity.setArray(state.ravel())  # type: ignore[arg-type]  # the stub's type

    def _steps_needed(self, step: int) -> int:
        """How many steps an interval needs, by the stream function that it begins with."""
        psi = self._near(self._psi, self._near_psi)
        u = np.abs(psi[2:, 1:-1] - psi[:-2, 1:-1]) / (2 * self._hy)
        v = np.abs(psi[1:-1, 2:] - psi[1:-1, :-2]) / (2 * self._hx)
        self._vorticity.setArray((u / self._hx + v / self._hy).ravel())
        turning = self._vorticity.norm(PETSc.NormType.NORM_INFINITY)
        assert isinstance(turning, float)
        decay = 4 * self._viscosity * (self._rx + self._ry)
        wanted = self._dt * (turning + decay) / _LIMIT
        if not wanted <= _MOST_STEPS:
            raise SolverFailed(
                f"flow is too fast at solver step {step}, time {step * self._dt:g} s: a velocity "
                f"of {turning:.3g} cells/s and diffusion of {decay:.3g} 1/s need {wanted:.3g} time "
                f"steps between two snapshots, the limit is {_MOST_STEPS}. Reduce dt, or the range "
                "of the parameters"
            )
        return max(1, ceil(wanted))

    def _rate(self, state: Plane, time: float, step: int) -> Plane:
        """w_t; not finite where the state is too large, which the snapshot will say."""
        self._vorticity.setArray(state.ravel())  # type: ignore[arg-type]  # the stub's type
        solve(self._ksp, self._vorticity, self._psi, step=step, time=step * self._dt)
        self._iterations += self._ksp.getIterationNumber()
        psi = self._near(self._psi, self._near_psi)
        w = self._near(self._vorticity, self._near_vorticity)
        with np.errstate(over="ignore", invalid="ignore"):
            # u . grad w = psi_y w_x - psi_x w_y = -J(psi, w)
            rate = jacobian(psi, w, area=self._hx * self._hy)
            rate += (self._viscosity * self._rx) * (w[1:-1, 2:] + w[1:-1, :-2] - 2 * state)
            rate += (self._viscosity * self._ry) * (w[2:, 1:-1] + w[:-2, 1:-1] - 2 * state)
            rate += self._forcing
            if self._source is not None:
                rate += self._source(self._x, self._y, time)
        return rate

    def _near(self, field: PETSc.Vec, with_ghosts: PETSc.Vec) -> Float64[np.ndarray, " _j _i"]:
        """This mpi_rank's part with one ring of neighbours; changed by the next call."""
        self._da.globalToLocal(field, with_ghosts)
        rows, columns = self.box
        shape = (rows.stop - rows.start + 2, columns.stop - columns.start + 2)
        return with_ghosts.array_r.reshape(shape)
