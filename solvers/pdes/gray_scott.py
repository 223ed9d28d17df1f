"""Two chemicals that diffuse and react, and settle into spots, stripes and mazes.

Equation:    u_t = D_u (u_xx + u_yy) - u v^2 + F (1 - u)
             v_t = D_v (v_xx + v_yy) + u v^2 - (F + k) v
             u feeds, v grows on it (U + 2 V -> 3 V) and decays (V -> P). All dimensionless.
Domain:      0 <= x < length x, 0 <= y < length y; 0 < t <= steps * dt.
Boundary:    periodic.
Initial:     u = 1 - b / 2, v = b / 4, where b is 1 in the middle of each of a few round spots and 0
             far from them. Where they lie follows from `seed` alone: neither from the grid, nor
             from the member, nor from the number of mpi_ranks.
Grid:        x_i = i hx, y_j = j hy, with h = length / points. fields[channel, j, i] belongs to
             (x_i, y_j).
Space:       nine-point star. Fourth order.
Time:        classical Runge-Kutta scheme of PETSc's TS (-ts_type rk -ts_rk_type 4). Fourth order.
             Explicit, because on usual grids diffusion limits dt no more than the reaction does.
             Implicit schemes have an exact Jacobian: `petsc_options: "-ts_type cn -pc_type ilu"`.
Stability:   dt <= 2.785 / (16/3 max(D_u, D_v) (1/hx^2 + 1/hy^2) + v^2 + F): diffusion and reaction
             use up u together. Checked when a study is loaded, with 0.3 for v^2 + F, because v
             stays below about 0.5. Beyond it u becomes a checkerboard long before anything
             overflows.
Behaviour:   without v, u = 1 is stable: spots with a standard deviation below about 0.025 die out.
             Larger ones grow, by 0.5e-4 to 2e-4 per unit of time in each direction, and become
             stripes or split into spots about 0.1 wide. Two of them fill a period of 0.5 after
             about 500 units of time. The mean of u + v changes by F (1 - mean u) - (F + k) mean v,
             whatever diffuses and reacts.
Good values: D_u = 2e-5, D_v = 1e-5, F = 0.04, k = 0.06 (Pearson, 256 x 256 points of 2.5 x 2.5);
             spots die out for F = 0.03 with k = 0.064. At least 6 points to a spot_width: a period
             of 0.5 with 64 x 64 points and dt = 0.5. Measured there against a spectral solution:
             v is wrong by 0.3 % at time 250 and by 0.6 % at 500; with 5 points (48 x 48, dt = 1) by
             1.0 % and 1.8 %; with 3 points (a period of 1, 5 spots, 64 x 64, dt = 2) by 6 % at 240,
             11 % at 500 and 48 % at 1500, where even 6 points leave 8 %.
Source:      Pearson, Complex Patterns in a Simple System, Science 261 (1993), 189-192.

On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot
from solvers.configs.gray_scott import GrayScottConfig
from solvers.numerics.reaction import REACH, Reaction
from solvers.numerics.spots import State, spots
from solvers.numerics.stencil import set_rows, slices_of, spread
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, PETSc, unique_prefix
from solvers.stepping import fields_of, fixed_step, restart, snapshot, steps

__all__ = ["GrayScott"]

# Given time, x and y: what is added to u_t and v_t.
Source = Callable[
    [float, Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]],
    Float64[np.ndarray, " 2 y x"],
]


@final
class GrayScott(PdeSolver["_Dish"]):
    """The solver of ``kind: gray_scott``.

    Args:
        config: Grid, time, diffusivities and initial spots.
        state: Given x and y of the grid points, u and v at time 0, ``(2, y, x)``; in place of the
            spots, which are the default.
        source: Given time, x and y, what to add to the right-hand sides, ``(2, y, x)``; none by
            default.
    """

    def __init__(
        self, config: GrayScottConfig, *, state: State | None = None, source: Source | None = None
    ) -> None:
        if state is None:
            width, length = config.spot_width, config.length
            state = spots(config.spots, width=width, length=length, seed=config.seed)
        super().__init__(config, partial(_Dish, config, state, source))

    def _begin(self, dish: "_Dish", values: dict[str, float]) -> Callable[[int], Snapshot]:
        return partial(dish.snapshot, values)


@final
class _Dish:
    """The discretised reaction on one communicator: all that is kept from member to member."""

    def __init__(
        self,
        config: GrayScottConfig,
        state: State,
        source: Source | None,
        comm: object,
        owned: Owned,
    ) -> None:
        self._config, self._source, self._owned = config, source, owned
        self._da = spread(config.grid, comm, owned, dof=2, reach=REACH, ends="periodic")
        self.box = slices_of(self._da)
        hy, hx = config.spec().spacing
        j, i = np.ogrid[self.box]
        self._x, self._y = i * hx, j * hy
        self._reaction = Reaction(
            (j.size, i.size),
            diffusion=(config.diffusion_u, config.diffusion_v),
            spacing=(hy, hx),
        )
        self._now = owned(self._da.createGlobalVec())
        # The same for every member.
        self._initial = owned(self._now.duplicate())
        self._initial.setArray(np.moveaxis(state(self._x, self._y), 0, -1).ravel())  # type: ignore[arg-type]  # the stub's type
        self._with_ghosts = owned(self._da.createLocalVec())
        self._ts = ts = owned(PETSc.TS().create(self._da.comm))
        ts.setDM(self._da)
        ts.setType(PETSc.TS.Type.RK)
        ts.setRKType(PETSc.TS.RKType.RK4)
        ts.setRHSFunction(self._rates, owned(self._now.duplicate()))
        ts.setSolution(self._now)
        fixed_step(
            ts,
            prefix=unique_prefix(config.kind),
            options=config.petsc_options,
            prepare=self._prepare,
        )

    def _prepare(self) -> None:
        """An implicit scheme takes a trial step: options inside a preconditioner are read there."""
        ts = self._ts
        if not ts.isImplicit():
            return
        self._columns = np.asarray(self._reaction.columns(), PETSc.IntType)
        matrix = self._owned(self._da.createMat())
        ts.setRHSJacobian(self._jacobian, matrix, matrix)
        self._begin({"F": 0.0, "k": 0.0})
        ts.setMaxSteps(1)
        ts.setErrorIfStepFails(False)  # a member will say it, with the reason
        ts.solve()

    def snapshot(self, values: Mapping[str, float], step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        if step == 0:
            self._begin(values)
            self._steps = steps(self._ts)
        # PETSc's own time is a sum, with its rounding.
        number, _, state, effort = next(self._steps)
        return snapshot(number, step * self._config.dt, state, fields_of(self._da, state), effort)

    def _begin(self, values: Mapping[str, float]) -> None:
        self._reaction.choose(feed=values["F"], kill=values["k"])
        self._initial.copy(self._now)
        self._ts.setMaxSteps(self._config.steps)
        restart(self._ts, dt=self._config.dt)

    def _rates(self, ts: PETSc.TS, time: float, state: PETSc.Vec, rates: PETSc.Vec) -> None:
        """The right-hand side; with ghosts there are neighbours on every side."""
        self._da.globalToLocal(state, self._with_ghosts)
        ny, width = self._reaction.shape
        near = self._with_ghosts.array_r.reshape(ny + 2 * REACH, width + 4 * REACH)
        out = rates.array_w.reshape(ny, width)
        # A step past the limit may overflow: what follows is refused as a snapshot.
        with np.errstate(over="ignore", invalid="ignore"):
            self._reaction.rates(near, out)
            if self._source is not None:
                added = self._source(time, self._x, self._y)
                out += np.moveaxis(added, 0, -1).reshape(out.shape)

    def _jacobian(
        self, ts: PETSc.TS, time: float, state: PETSc.Vec, jacobian: PETSc.Mat, matrix: PETSc.Mat
    ) -> None:
        """Derivatives of ``_rates``: ten entries a row."""
        columns = self._columns
        entries = self._reaction.entries(state.array_r.reshape(self._reaction.shape))
        set_rows(matrix, columns[:, 0], columns, entries)
