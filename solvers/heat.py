"""Heat conduction in a rectangular plate between four walls of constant temperature.

Equation:    T_t = a (T_xx + T_yy), temperature T [K], diffusivity a [m^2/s].
Domain:      0 < x < length x, 0 < y < length y; 0 < t <= steps * dt.
Boundary:    T = west at x = 0, east at x = length x, south at y = 0, north at y = length y.
Initial:     T = initial everywhere inside; it need not fit the walls.
Grid:        cell centres, x_i = (i + 1/2) hx, y_j = (j + 1/2) hy, with h = length / cells; a wall
             is the outer face of the first or last cell. Every value of a snapshot is an unknown,
             and no point lies in a corner, where two walls disagree. fields[0, j, i] belongs to
             (x_i, y_j): row 0 is south, column 0 is west.
Space:       finite volumes (five-point stencil; half a cell to a wall). Second order.
Time:        BDF2. The first step is the mean of backward Euler solutions at 2/3 dt and 4/3 dt: they
             need the same matrix, so one factorisation serves every step of every member. Second
             order, one solve per step.
             Why: initial state and walls jump against each other, so Crank-Nicolson would ring for
             many steps; backward Euler is only first order; L-stable schemes with two stages
             (TR-BDF2, SDIRK) need two solves.
Stability:   unconditional (L-stable). The first step keeps inside the range of the five
             temperatures. Later ones may leave it: by about 1 % of their spread while dt follows
             the decay below (exponent under 1/4 per step), by up to 5 % with larger steps.
Behaviour:   fronts of width sqrt(a t) run in from the walls; differences then decay like
             exp(-a pi^2 (1/lx^2 + 1/ly^2) t), towards the harmonic function between the walls.
Good values: a = 0.1 m^2/s, 1 m x 1 m, 100 steps of 0.01 s: 52 % of the slowest mode is left after a
             third of the time and 14 % at the end. Real materials: keep a t / l^2 (aluminium has
             1e-4 m^2/s, so dt = 10 s shows the same pictures).
Source:      Hairer, Wanner, Solving Ordinary Differential Equations II, chapter V (BDF2); Thomee,
             Galerkin Finite Element Methods for Parabolic Problems, chapter 10 (non-smooth data).

The matrix never changes: parameters enter through the right-hand side and the initial state only.
On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
from jaxtyping import Float32, Float64

from solvers.base import FieldSpec, Snapshot
from solvers.config import HeatConfig, member_values
from solvers.petsc import (
    Owned,
    PETSc,
    communicator,
    field_vector,
    linear_solver,
    require_finite,
    solve,
    unique_prefix,
)

# BDF2 reads u' = (3 u_new - 4 u + u_old) / (2 dt): divided by 3/2, the matrix is I + 2/3 dt L.
_IMPLICIT_SHARE = 2 / 3

Box = tuple[slice, slice]
Perturbation = Callable[
    [Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]], Float64[np.ndarray, " y x"]
]


@final
class Heat:
    """The solver of ``kind: heat``.

    Matrix and factorisation are made at the first member and kept until ``close``.

    Args:
        config: Grid, time and material.
        perturbation: Given x and y of the cell centres [m], what to add to the uniform initial
            temperature [K]; none by default.
    """

    def __init__(self, config: HeatConfig, *, perturbation: Perturbation | None = None) -> None:
        self._config = config
        self._perturbation = perturbation
        self._spec = config.spec()
        self._prefix = unique_prefix(config.kind)
        self._plate: _Plate | None = None
        self._runs = 0

    @property
    def spec(self) -> FieldSpec:
        """One channel, the temperature in kelvin."""
        return self._spec

    @property
    def max_snapshots(self) -> int:
        """The initial state and one snapshot per solver step."""
        return self._config.max_snapshots

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: ``initial``, ``west``, ``east``, ``south`` and ``north`` in kelvin.
            comm: The mpi4py or PETSc communicator to run on. With several ranks every one of them
                must call, and each yields its own ``box(comm)``.

        Raises:
            SolverFailed: The linear solve diverged, or a value is not finite.
            ValueError: Wrong parameter names, or PETSc options that PETSc does not take.
        """
        values = member_values(self._config.parameters(), parameters)
        plate = self._plate_on(comm)
        self._runs += 1
        return self._member(plate, values, self._runs)

    def box(self, comm: object) -> Box:
        """Where this mpi_rank's part of a snapshot lies in the whole grid ``(y, x)``."""
        return self._plate_on(comm).box

    def close(self) -> None:
        """Destroy matrix, factorisation and vectors. Safe to call twice."""
        self._runs += 1
        if self._plate is not None:
            self._plate.close()
            self._plate = None

    def _member(self, plate: "_Plate", values: dict[str, float], run: int) -> Iterator[Snapshot]:
        for step in range(self.max_snapshots):
            if run != self._runs:
                raise RuntimeError(
                    f"this member stopped at solver step {step}: its solver was closed or given "
                    "the next member; use one solver per member that runs at the same time"
                )
            time = step * self._config.dt
            if step == 0:
                plate.start(values, self._perturbation)
            elif step == 1:
                plate.first_step(time)
            else:
                plate.next_step(step, time)
            yield Snapshot(step, time, plate.fields(step, time))

    def _plate_on(self, comm: object) -> "_Plate":
        if self._plate is not None and not self._plate.is_on(comm):
            self.close()
        if self._plate is None:
            self._plate = _Plate(self._config, comm=comm, prefix=self._prefix)
        return self._plate


@final
class _Plate:
    """The discretised plate on one communicator: all that is kept from member to member."""

    def __init__(self, config: HeatConfig, *, comm: object, prefix: str) -> None:
        (self._ny, self._nx), (self._hy, self._hx) = config.grid, config.spec().spacing
        share = _IMPLICIT_SHARE * config.dt * config.diffusivity
        self._ry, self._rx = share / self._hy**2, share / self._hx**2
        self._owned = Owned()
        try:
            self._set_up(config.petsc_options, comm=comm, prefix=prefix)
        except BaseException:
            self._owned.close()
            raise

    def _set_up(self, options: str, *, comm: object, prefix: str) -> None:
        self._da = self._owned(
            PETSc.DMDA().create(
                sizes=(self._nx, self._ny),
                dof=1,
                stencil_width=1,
                stencil_type=PETSc.DMDA.StencilType.STAR,  # type: ignore[arg-type]  # the stub's type
                comm=communicator(comm),
            )
        )
        (west, east), (south, north) = self._da.getRanges()
        self.box: Box = (slice(south, north), slice(west, east))
        self._shape = (north - south, east - west)
        matrix = self._owned(self._da.createMat())
        self._fill(matrix)
        self._ksp = linear_solver(matrix, prefix=prefix, options=options, owned=self._owned)
        self._now, self._before, self._spare, self._rhs, self._walls = (
            field_vector((1, *self._shape), comm=comm, owned=self._owned) for _ in range(5)
        )

    def _fill(self, matrix: PETSc.Mat) -> None:
        """I + 2/3 dt L, five entries a row; a negative column means "outside" and is skipped."""
        j, i = (index.ravel() for index in np.mgrid[self.box])
        (ghost_west, ghost_east), (ghost_south, _) = self._da.getGhostRanges()
        width = ghost_east - ghost_west
        row = (j - ghost_south) * width + (i - ghost_west)
        at_west, at_east, at_south, at_north = i == 0, i == self._nx - 1, j == 0, j == self._ny - 1
        columns = np.stack(
            [
                row,
                np.where(at_west, -1, row - 1),
                np.where(at_east, -1, row + 1),
                np.where(at_south, -1, row - width),
                np.where(at_north, -1, row + width),
            ],
            axis=1,
        )
        entries = np.empty(columns.shape)
        entries[:, 1:3], entries[:, 3:5] = -self._rx, -self._ry
        # A neighbour is h away, a wall h / 2: it counts twice on the diagonal.
        entries[:, 0] = (
            1.0 + self._rx * (2.0 + at_west + at_east) + self._ry * (2.0 + at_south + at_north)
        )
        starts = np.arange(0, columns.size + 1, 5, dtype=PETSc.IntType)
        row, columns = row.astype(PETSc.IntType), columns.ravel().astype(PETSc.IntType)
        matrix.setValuesLocalIJV(starts, columns, entries.ravel(), rowmap=row)  # type: ignore[arg-type]
        matrix.assemble()
        matrix.setOption(PETSc.Mat.Option.SPD, True)  # type: ignore[arg-type]  # the stub's type

    def is_on(self, comm: object) -> bool:
        """Whether ``comm`` is the communicator that this was built for."""
        return bool(self._da.getComm() == communicator(comm))

    def close(self) -> None:
        """Destroy matrix, factorisation and vectors."""
        self._owned.close()

    def start(self, values: Mapping[str, float], perturbation: Perturbation | None) -> None:
        """Set the walls and the initial state of a member."""
        j, i = np.ogrid[self.box]
        walls = (
            2 * self._rx * (values["west"] * (i == 0) + values["east"] * (i == self._nx - 1))
        ) + (2 * self._ry * (values["south"] * (j == 0) + values["north"] * (j == self._ny - 1)))
        initial = np.full(self._shape, values["initial"])
        if perturbation is not None:
            initial += perturbation((i + 0.5) * self._hx, (j + 0.5) * self._hy)
        self._walls.set(walls)
        # All three, because an iterative solver starts from what the last member left in them.
        for state in (self._now, self._before, self._spare):
            state.set(initial)

    def first_step(self, time: float) -> None:
        """The mean of two backward Euler solutions, at 2/3 and 4/3 of the step."""
        rhs, walls = self._rhs.vec, self._walls.vec
        rhs.waxpy(1.0, self._now.vec, walls)
        solve(self._ksp, rhs, self._before.vec, step=1, time=time)
        rhs.waxpy(1.0, self._before.vec, walls)
        solve(self._ksp, rhs, self._spare.vec, step=1, time=time)
        self._spare.vec.axpby(0.5, 0.5, self._before.vec)
        self._now, self._before, self._spare = self._spare, self._now, self._before

    def next_step(self, step: int, time: float) -> None:
        """BDF2; the extrapolation in the right-hand side is the first guess as well."""
        rhs, solution = self._rhs.vec, self._before.vec
        solution.axpby(4 / 3, -1 / 3, self._now.vec)
        rhs.waxpy(1.0, solution, self._walls.vec)
        solve(self._ksp, rhs, solution, step=step, time=time)
        self._now, self._before = self._before, self._now

    def fields(self, step: int, time: float) -> Float32[np.ndarray, " channel y x"]:
        """This mpi_rank's box of the newest state, as an array that is the receiver's."""
        values = self._now.values
        require_finite(values, step=step, time=time)
        return values.astype(np.float32)
