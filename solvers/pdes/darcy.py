"""Flow through a porous medium, steady: the pressure behind a random permeability.

Equation:    -div(a grad p) = f, pressure p [Pa], coefficient a [m^2/(Pa s)] (permeability over
             viscosity of the fluid), source f = forcing [1/s].
Domain:      0 < x < length x, 0 < y < length y.
Boundary:    p = 0 on all four sides.
Initial:     p = 0 at step 0. The equation has no time: the solution is step 1, at time 1.
Coefficient: the random field `coefficient` that the member's seed draws, with no slope across the
             sides; it is the last channel of every snapshot, an input. two_phase is one value where
             a Gaussian field is large and another elsewhere, voronoi is constant on cells, both
             with the ratio `contrast` between largest and smallest; lognormal is smooth. With
             `contrast: null` (`log_std: null`) each member says it, as a parameter.
Grid:        cell centres, x_i = (i + 1/2) hx, y_j = (j + 1/2) hy, h = length / cells; a side is the
             outer face of the first or last cell. fields[channel, j, i] belongs to (x_i, y_j).
Space:       finite volumes: the flow through a face has the harmonic mean of both cells' a (half a
             cell to a side), as layers in series have. Second order where a is smooth, or jumps at
             faces alone; first order where a jumps inside cells.
Time:        none: one linear solve a member. On one rank sparse LU, on several conjugate gradients
             under algebraic multigrid. The matrix keeps its structure from member to member.
Stability:   the matrix is positive definite for every a > 0. Its condition grows with the contrast:
             the iterations of multigrid do, LU loses a digit of sixteen for each power of ten.
Behaviour:   p > 0, a hill whose height goes like forcing * length^2 / a, about 0.074 where both
             are 1: flat where a is large, steep where it is small. p is linear in forcing. It is
             smoother than a, and knows a everywhere.
Good values: the benchmark is a = 12 and 3, forcing 1, 421 x 421 points seen on 85 x 85; 64 x 64
             cells show the same pictures. Contrast up to 1e3 or log_std up to 1.5 are hard cases;
             keep 2 * modes below the number of cells.
Source:      Li et al., Fourier Neural Operator, arXiv:2010.08895, section 5.2 (the benchmark);
             Trifonov et al., ConDiff, arXiv:2406.04709 (high contrast); Eymard, Gallouet, Herbin,
             Finite Volume Methods, Handbook of Numerical Analysis VII (2000) (harmonic means).

On several mpi_ranks each one yields its own box of the fields.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.darcy import DarcyConfig
from solvers.numerics.random_fields import draw
from solvers.numerics.stencil import fill, slices_of, spread
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, PETSc, linear_solver, solve, unique_prefix, vector_over
from solvers.stepping import Effort, snapshot

__all__ = ["Darcy"]

Row = Float64[np.ndarray, " 1 x"]
Column = Float64[np.ndarray, " y 1"]
Plane = Float64[np.ndarray, " y x"]
# Given x and y of cell centres [m].
Field = Callable[[Row, Column], Plane]


@final
class Darcy(PdeSolver["_Medium"]):
    """The solver of ``kind: darcy``.

    Args:
        config: Grid and coefficient.
        coefficient: Given x and y of cell centres [m], a > 0 [m^2/(Pa s)]; in place of the random
            field, which is the default.
        source: Given x and y, what ``forcing`` is multiplied with [1]; 1 by default.
    """

    def __init__(
        self,
        config: DarcyConfig,
        *,
        coefficient: Field | None = None,
        source: Field | None = None,
    ) -> None:
        super().__init__(config, partial(_Medium, config, source))
        self._config, self._coefficient = config, coefficient

    def _begin(self, medium: "_Medium", values: dict[str, float]) -> Callable[[int], Snapshot]:
        coefficient = self._coefficient if self._coefficient is not None else self._drawn(values)
        return partial(medium.snapshot, coefficient, values["forcing"])

    def _drawn(self, values: Mapping[str, float]) -> Field:
        config, name = self._config.coefficient, self._config.strength
        if name is not None:
            least = 0.0 if name == "log_std" else 1.0
            if values[name] < least:
                raise SolverFailed(f"{name}={values[name]:g}: must be at least {least:g}")
            config = config.model_copy(update={name: values[name]})
        field = draw(config, values["seed"], length=self._config.length, boundary="neumann")
        return lambda x, y: field(y.ravel(), x.ravel())


@final
class _Medium:
    """The discretised medium on one communicator: all that is kept from member to member."""

    def __init__(
        self, config: DarcyConfig, source: Field | None, comm: object, owned: Owned
    ) -> None:
        self._source = source
        (self._ny, self._nx), (self._hy, self._hx) = config.grid, config.spec().spacing
        self._prefix, self._options = unique_prefix(config.kind), config.petsc_options
        self._da = spread(config.grid, comm, owned)
        (west, east), (south, north) = self._da.getRanges()
        self.box = slices_of(self._da)
        (left, right), (bottom, top) = self._da.getGhostRanges()
        self._inner = (slice(south - bottom, north - bottom), slice(west - left, east - left))
        # With the cells next to this box: a is known there without asking another mpi_rank.
        j, i = np.ogrid[bottom:top, left:right]
        self._x: Row = (i + 0.5) * self._hx
        self._y: Column = (j + 0.5) * self._hy
        self._matrix = owned(self._da.createMat())
        # Both in one piece of memory, so that a snapshot is one conversion.
        self._fields = np.zeros((2, north - south, east - west))
        self._pressure, self._coefficient, self._rhs = (
            vector_over(values, comm=comm, owned=owned)
            for values in (*self._fields, np.zeros_like(self._fields[0]))
        )
        self._fill(np.ones((top - bottom, right - left)))
        with Owned() as trial:  # options are refused before a member is given up for them
            linear_solver(self._matrix, prefix=self._prefix, options=self._options, owned=trial)

    def snapshot(self, coefficient: Field, forcing: float, step: int) -> Snapshot:
        """Coefficient, without pressure at step 0 and with it at step 1."""
        if step == 0:
            self._start(coefficient)
        else:
            self._solve(forcing)
        # Every mpi_rank has to refuse what is not finite anywhere: at first the coefficient.
        checked = self._coefficient if step == 0 else self._pressure
        return snapshot(step, float(step), checked, self._fields, Effort(self._iterations))

    def _start(self, coefficient: Field) -> None:
        """Set a member's coefficient, and no pressure."""
        self._near = coefficient(self._x, self._y)
        self._coefficient.setArray(self._near[self._inner].ravel())  # type: ignore[arg-type]
        # The first guess of an iterative solver, too.
        self._pressure.set(0.0)
        self._iterations = 0

    def _solve(self, forcing: float) -> None:
        """Find the pressure."""
        self._fill(self._near)
        right = np.full(self._near.shape, forcing)
        if self._source is not None:
            right *= self._source(self._x, self._y)
        self._rhs.setArray(right[self._inner].ravel())  # type: ignore[arg-type]  # the stub's type
        with Owned() as owned:
            # A new one each time: options inside a preconditioner are read when it is set up.
            ksp = linear_solver(
                self._matrix, prefix=self._prefix, options=self._options, owned=owned
            )
            solve(ksp, self._rhs, self._pressure, step=1, time=1.0)
            self._iterations = ksp.getIterationNumber()

    def _fill(self, near: Plane) -> None:
        """The flows out of each cell, per volume, for its own pressure and its neighbours'."""
        rows, columns = self._inner
        a = np.pad(near, 1, mode="edge")[
            rows.start : rows.stop + 2, columns.start : columns.stop + 2
        ]
        own = a[1:-1, 1:-1]
        j, i = np.mgrid[self.box]
        entries = np.empty((5, *own.shape))
        for index, (other, h, at_side) in enumerate(
            (
                (a[1:-1, :-2], self._hx, i == 0),
                (a[1:-1, 2:], self._hx, i == self._nx - 1),
                (a[:-2, 1:-1], self._hy, j == 0),
                (a[2:, 1:-1], self._hy, j == self._ny - 1),
            ),
            start=1,
        ):
            # A side is half a cell away: its flow is twice as large.
            mean = np.where(at_side, 2 * own, 2 / (1 / own + 1 / other))
            entries[index] = -mean / h**2
        entries[0] = -entries[1:].sum(axis=0)
        fill(self._da, self._matrix, entries)
        self._matrix.setOption(PETSc.Mat.Option.SPD, True)  # type: ignore[arg-type]
