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
Space:       five-point stencil. Second order.
Time:        classical Runge-Kutta scheme of PETSc's TS (-ts_type rk -ts_rk_type 4). Fourth order.
             Explicit, because on usual grids diffusion limits dt no more than the reaction does.
             Implicit schemes have an exact Jacobian: `petsc_options: "-ts_type cn -pc_type ilu"`.
Stability:   dt <= 2.785 / (4 max(D_u, D_v) (1/hx^2 + 1/hy^2) + v^2 + F): diffusion and reaction use
             up u together. Checked when a study is loaded, with 0.3 for v^2 + F, because v stays
             below about 0.5. Beyond it u becomes a checkerboard long before anything overflows.
Behaviour:   without v, u = 1 is stable: spots with a standard deviation below about 0.025 die out.
             Larger ones grow, by 0.5e-4 to 2e-4 per unit of time in each direction, and become
             stripes or split into spots about 0.1 wide. Five of them fill a period of 1 after
             about 1500 units of time. The mean of u + v changes by F (1 - mean u) - (F + k) mean v,
             whatever diffuses and reacts.
Good values: D_u = 2e-5, D_v = 1e-5, F = 0.04, k = 0.06 (Pearson, 256 x 256 points of 2.5 x 2.5).
             A period of 1 with 64 x 64 points and dt = 2.5: six cells to a spot, and no fewer.
Source:      Pearson, Complex Patterns in a Simple System, Science 261 (1993), 189-192.

On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import FieldSpec, Snapshot, SolverFailed
from solvers.config import member_values
from solvers.configs.gray_scott import GrayScottConfig
from solvers.numerics.reaction import Reaction
from solvers.numerics.spots import State, spots
from solvers.numerics.turns import Turns
from solvers.petsc import Owned, PETSc, communicator, unique_prefix
from solvers.stepping import Step, fixed_step, restart, snapshot, steps

__all__ = ["GrayScott"]

Box = tuple[slice, slice]
# Given time, x and y: what is added to u_t and v_t.
Source = Callable[
    [float, Float64[np.ndarray, " 1 x"], Float64[np.ndarray, " y 1"]],
    Float64[np.ndarray, " 2 y x"],
]


@final
class GrayScott:
    """The solver of ``kind: gray_scott``.

    The time stepper is made at the first member and kept until ``close``.

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
        self._config = config
        start = spots(config.spots, width=config.spot_width, length=config.length, seed=config.seed)
        self._state = start if state is None else state
        self._source = source
        self._spec = config.spec()
        self._prefix = unique_prefix(config.kind)
        self._dish: _Dish | None = None
        self._turns = Turns()

    @property
    def spec(self) -> FieldSpec:
        """Two channels, the concentrations of u and v."""
        return self._spec

    @property
    def max_snapshots(self) -> int:
        """The initial state and one snapshot per solver step."""
        return self._config.max_snapshots

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: ``F`` and ``k``.
            comm: The mpi4py or PETSc communicator to run on. With several ranks every one of them
                must call, and each yields its own ``box(comm)``.

        Raises:
            SolverFailed: A step failed, or a value is not finite.
            ValueError: Wrong parameter names, or PETSc options that PETSc does not take.
        """
        values = member_values(self._config.parameters(), parameters)
        dish = self._dish_on(comm)
        snapshots = dish.member(feed=values["F"], kill=values["k"])
        return self._member(snapshots, self._turns.begin())

    def box(self, comm: object) -> Box:
        """Where this mpi_rank's part of a snapshot lies in the whole grid ``(y, x)``."""
        return self._dish_on(comm).box

    def close(self) -> None:
        """Destroy time stepper, matrix and vectors. Safe to call twice."""
        self._turns.begin()
        if self._dish is not None:
            self._dish.close()
            self._dish = None

    def _member(self, snapshots: Iterator[Snapshot], turn: int) -> Iterator[Snapshot]:
        for step in range(self.max_snapshots):
            self._turns.check(turn, step=step)
            try:
                yield next(snapshots)
            except SolverFailed as failure:
                if isinstance(failure.__cause__, PETSc.Error):
                    self.close()  # PETSc stopped half way: no member may use this stepper again
                raise

    def _dish_on(self, comm: object) -> "_Dish":
        if self._dish is not None and not self._dish.is_on(comm):
            self.close()
        if self._dish is None:
            start, source = self._state, self._source
            self._dish = _Dish(self._config, start, source, comm=comm, prefix=self._prefix)
        return self._dish


@final
class _Dish:
    """The discretised reaction on one communicator: all that is kept from member to member."""

    def __init__(
        self,
        config: GrayScottConfig,
        state: State,
        source: Source | None,
        *,
        comm: object,
        prefix: str,
    ) -> None:
        self._config, self._source = config, source
        (ny, nx), (hy, hx) = config.grid, config.spec().spacing
        self._running: Generator[Snapshot, None, None] = (_ for _ in ())
        self._owned = Owned()
        try:
            self._da = self._owned(
                PETSc.DMDA().create(
                    sizes=(nx, ny),
                    dof=2,
                    boundary_type=("periodic", "periodic"),
                    stencil_width=1,
                    stencil_type=PETSc.DMDA.StencilType.STAR,  # type: ignore[arg-type]  # the stub's type
                    comm=communicator(comm),
                )
            )
            (west, east), (south, north) = self._da.getRanges()
            self.box: Box = (slice(south, north), slice(west, east))
            self._points = (north - south, east - west)
            j, i = np.ogrid[self.box]
            self._x, self._y = i * hx, j * hy
            self._reaction = Reaction(
                self._points,
                diffusion=(config.diffusion_u, config.diffusion_v),
                spacing=(hy, hx),
            )
            self._set_up(state, prefix)
        except BaseException:
            self._owned.close()
            raise

    def _set_up(self, state: State, prefix: str) -> None:
        self._now = self._owned(self._da.createGlobalVec())
        # The same for every member.
        self._initial = self._owned(self._now.duplicate())
        self._initial.setArray(np.moveaxis(state(self._x, self._y), 0, -1).ravel())  # type: ignore[arg-type]  # the stub's type
        self._with_ghosts = self._owned(self._da.createLocalVec())
        self._ts = ts = self._owned(PETSc.TS().create(self._da.comm))
        ts.setDM(self._da)
        ts.setType(PETSc.TS.Type.RK)
        ts.setRKType(PETSc.TS.RKType.RK4)
        ts.setRHSFunction(self._rates, self._owned(self._now.duplicate()))
        ts.setSolution(self._now)
        fixed_step(ts, prefix=prefix, options=self._config.petsc_options, prepare=self._prepare)

    def _prepare(self) -> None:
        """An implicit scheme takes a trial step: options inside a preconditioner are read there."""
        ts = self._ts
        if not ts.isImplicit():
            return
        self._columns = self._reaction.columns().astype(PETSc.IntType)
        matrix = self._owned(self._da.createMat())
        ts.setRHSJacobian(self._jacobian, matrix, matrix)
        self._begin(feed=0.0, kill=0.0)
        ts.setMaxSteps(1)
        ts.setErrorIfStepFails(False)  # a member will say it, with the reason
        ts.solve()

    def is_on(self, comm: object) -> bool:
        """Whether ``comm`` is the communicator that this was built for."""
        return bool(self._da.getComm() == communicator(comm))

    def close(self) -> None:
        """Destroy time stepper, matrix and vectors."""
        self._running.close()
        self._owned.close()

    def member(self, *, feed: float, kill: float) -> Iterator[Snapshot]:
        """The snapshots of one member, which end when the next one begins."""
        self._running.close()  # it gives the stepper back its limits, now and not when collected
        self._running = self._run(feed=feed, kill=kill)
        return self._running

    def _run(self, *, feed: float, kill: float) -> Generator[Snapshot, None, None]:
        self._begin(feed=feed, kill=kill)
        for step in steps(self._ts):
            yield self._snapshot(step)

    def _begin(self, *, feed: float, kill: float) -> None:
        self._reaction.choose(feed=feed, kill=kill)
        self._initial.copy(self._now)
        self._ts.setMaxSteps(self._config.steps)
        restart(self._ts, dt=self._config.dt)

    def _snapshot(self, step: Step) -> Snapshot:
        """The newest state, u and v taken apart."""
        time = step.number * self._config.dt  # PETSc's own is a sum, with its rounding
        side_by_side = step.state.array_r.reshape(*self._points, 2)
        fields = side_by_side.transpose(2, 0, 1)
        return snapshot(step.number, time, step.state, fields, step.effort)

    def _rates(self, ts: PETSc.TS, time: float, state: PETSc.Vec, rates: PETSc.Vec) -> None:
        """The right-hand side; with ghosts there is a neighbour on every side."""
        self._da.globalToLocal(state, self._with_ghosts)
        ny, width = self._reaction.shape
        near = self._with_ghosts.array_r.reshape(ny + 2, width + 4)
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
        """Derivatives of ``_rates``: six entries a row."""
        columns = self._columns
        entries = self._reaction.entries(state.array_r.reshape(self._reaction.shape))
        starts = np.arange(0, columns.size + 1, columns.shape[1], dtype=PETSc.IntType)
        matrix.setValuesLocalIJV(starts, columns.ravel(), entries.ravel(), rowmap=columns[:, 0])  # type: ignore[arg-type]
        matrix.assemble()
