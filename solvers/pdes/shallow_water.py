"""Water over an uneven bottom: a dam that breaks, or a tsunami that runs out and floods a beach.

Equation:    h_t + (h u)_x + (h v)_y = 0
             (h u)_t + (h u^2 + g h^2 / 2)_x + (h u v)_y = -g h b_x
             (h v)_t + (h u v)_x + (h v^2 + g h^2 / 2)_y = -g h b_y
             depth h [m], velocity (u, v) [m/s] (h u and h v [m^2/s] are streamed: they are 0 where
             it is dry), gravity g [m/s^2]; the bottom b(x, y) [m] is given, and the last channel.
Domain:      0 < x < length x, 0 < y < length y; 0 < t <= steps * dt.
Boundary:    walls: reflecting (the mirror image of water and bottom lies beyond). Or periodic.
Initial:     at rest, h = max(surface - b, 0). dam: the surface is level_left for x < dam_position,
             and level_right beyond. hump: it is level + height * exp(-r^2 / (2 width^2)), r the
             distance from (x, y). It is dry where the bottom is higher. Where the boundary is
             periodic the distance is the shortest one, and the two ends of a dam are a second dam.
Bottom:      flat: b = 0. bump: a Gaussian hill, as the hump. slope: 0 up to x = bottom_start, from
             there a straight line to bottom_height at the east wall.
Grid:        cell centres, x_i = (i + 1/2) hx, y_j = (j + 1/2) hy, with h = length / cells; a wall
             is the outer face of the first or last cell. fields[channel, j, i] belongs to
             (x_i, y_j): row 0 is south, column 0 is west.
Space:       finite volumes, MUSCL with van Leer's limiter for depth, surface and velocities,
             hydrostatic reconstruction, HLL fluxes. Second order where the solution is smooth
             (mean error; at extrema the limiter costs an order), first order at shocks.
Time:        Heun's method in the form of Shu and Osher (two stages, SSP). Second order. Between
             two snapshots there are as many equal steps as the fastest wave asks for, chosen
             anew after each; ``Snapshot.iterations`` counts them, and ``Snapshot.refused`` those
             that the second stage found too long. The last one ends at the snapshot's time.
Stability:   step <= 1/2 / (a_x / hx + a_y / hy), with the fastest waves a = max(|u| + sqrt(g h)),
             for both stages: then no depth becomes negative. A member that needs more than
             `max_substeps` steps between two snapshots fails.
Behaviour:   waves run at sqrt(g h), steepen into bores and slow down over shoals. Mass is conserved
             to round-off, and a lake at rest stays at rest, also around dry islands. Energy is
             lost in bores only (and little to the scheme). Water thinner than `thin` slows down
             artificially.
Good values: widths of at least 3 cells, `thin` about 1e-4 of the depth, dt about 5 steps long:
             100 m x 100 m, 64 x 64 cells, 1 m of water, 100 snapshots of 0.25 s.
Source:      Audusse, Bouchut, Bristeau, Klein, Perthame, SIAM J. Sci. Comput. 25 (2004) 2050;
             Shu, Osher, J. Comput. Phys. 77 (1988) 439; Stoker, Water Waves (1957), section 10.8.

PETSc spreads the grid and exchanges ghosts; the fluxes are NumPy
(``solvers.numerics.hydrostatic``). On several mpi_ranks each one yields its own box of the fields,
and all take the same steps.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Literal, final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.numerics.hydrostatic import GHOSTS, Sweep, factor_of_velocity
from solvers.numerics.stencil import slices_of, spread
from solvers.numerics.still_water import Start, X, Y, at_rest
from solvers.pdes.base import PdeSolver
from solvers.petsc import Owned, PETSc, vector_over
from solvers.stepping import NO_EFFORT, Effort, snapshot

__all__ = ["ShallowWater"]

# Of step * (a_x / hx + a_y / hy): where depths stay positive, and what is aimed at, because the
# second stage may be faster than the first.
_LIMIT = 0.5
_COURANT = 0.45

Rates = Float64[np.ndarray, "3 y x"]
# Given time [s], x and y: what is added to the rates of depth and discharges.
Source = Callable[[float, X, Y], Rates]


@final
class ShallowWater(PdeSolver["_Basin"]):
    """The solver of ``kind: shallow_water``.

    Args:
        config: Grid, time, and which water over which bottom.
        start: Given x and y of the cell centres [m], depth [m], both discharges [m^2/s] and bottom
            [m] at time 0, ``(4, y, x)``; by default what the parameters say.
        source: Given time [s], x and y, what to add to the rates of the first three,
            ``(3, y, x)``; none by default.
    """

    def __init__(
        self,
        config: ShallowWaterConfig,
        *,
        start: Start | None = None,
        source: Source | None = None,
    ) -> None:
        super().__init__(config, partial(_Basin, config, source))
        self._config, self._start = config, start

    def _begin(self, basin: "_Basin", values: dict[str, float]) -> Callable[[int], Snapshot]:
        start = at_rest(self._config, values) if self._start is None else self._start
        return partial(basin.snapshot, start)


@final
class _Basin:
    """The discretised basin on one communicator: all that is kept from member to member.

    PETSc's vectors lie over NumPy's arrays, one per field: ghosts arrive where the fluxes read.
    """

    def __init__(
        self, config: ShallowWaterConfig, source: Source | None, comm: object, owned: Owned
    ) -> None:
        self._config, self._source = config, source
        self._hy, self._hx = config.spec().spacing
        ny, nx = config.grid
        ends: Literal["periodic", "ghosted"] = (
            "periodic" if config.boundary == "periodic" else "ghosted"
        )
        self._da = spread(config.grid, comm, owned, reach=GHOSTS, ends=ends)
        (west, east), (south, north) = self._da.getRanges()
        self.box = slices_of(self._da)
        j, i = np.ogrid[self.box]
        self._x, self._y = (i + 0.5) * self._hx, (j + 0.5) * self._hy
        walled = config.boundary == "walls"
        self._west, self._east = walled and west == 0, walled and east == nx
        self._south, self._north = walled and south == 0, walled and north == ny
        self._allocate((north - south, east - west), owned)

    def _allocate(self, shape: tuple[int, int], owned: Owned) -> None:
        self._fields = np.zeros((4, *shape))  # depth, discharges, bottom: what is streamed
        self._stage, self._first, self._second = np.zeros((3, 3, *shape))
        ghosted = (shape[0] + 2 * GHOSTS, shape[1] + 2 * GHOSTS)
        # Depth, surface, velocities, and the bottom, with ghosts.
        self._near = np.zeros((5, *ghosted))
        self._factor, self._scratch = np.zeros((2, *ghosted))
        self._fastest = np.zeros(2)
        over = partial(vector_over, comm=self._da.comm, owned=owned)
        self._whole, self._waves = over(self._fields), over(self._fastest)
        self._of_fields, self._of_stage = ([*map(over, a)] for a in (self._fields, self._stage))
        self._of_near = [*map(partial(over, comm=PETSc.COMM_SELF), self._near)]
        self._waves.setBlockSize(2)
        self._sweeps = [
            Sweep(axis=axis, shape=shape, spacing=spacing, gravity=self._config.gravity)
            for axis, spacing in ((1, self._hx), (0, self._hy))
        ]

    def snapshot(self, start: Start, step: int) -> Snapshot:
        """This mpi_rank's box of that step's state, computed from the one before."""
        effort = NO_EFFORT
        if step == 0:
            self._begin(start)
        else:
            effort = self._advance(step)
        self._whole.stateIncrease()  # NumPy has written
        return snapshot(step, step * self._config.dt, self._whole, self._fields, effort)

    def _begin(self, start: Start) -> None:
        """Set the initial state and the bottom of a member."""
        self._fields[:] = start(self._x, self._y)
        self._exchange(self._of_fields[3], 4)
        self._mirror(self._near[4:])

    def _advance(self, step: int) -> Effort:
        """Go to the time of that snapshot; how many steps it took, and how many were too long."""
        end, left = step * self._config.dt, self._config.dt
        state, stage = self._fields[:3], self._stage
        taken = refused = 0
        # A step far past all limits may overflow; what follows is refused.
        with np.errstate(over="ignore", invalid="ignore"):
            while left > 0:
                pace = self._rates(end - left, self._of_fields, self._first)
                parts = self._parts(left * pace / _COURANT, taken=taken, step=step)
                while True:
                    now = left / parts
                    np.multiply(self._first, now, out=stage)
                    stage += state
                    pace = self._rates(end - left + now, self._of_stage, self._second)
                    if now * pace <= _LIMIT:
                        break
                    refused += 1
                    parts = self._parts(2.0 * parts, taken=taken, step=step)
                self._second *= now
                state += stage
                state += self._second
                state *= 0.5
                self._dry()
                taken += 1
                left = left - now if parts > 1 else 0.0
        return Effort(taken, refused)

    def _parts(self, wanted: float, *, taken: int, step: int) -> int:
        """How many steps are left to the next snapshot, when that is few enough.

        Raises:
            SolverFailed: It is not; on all mpi_ranks.
        """
        most, dt = self._config.max_substeps, self._config.dt
        if taken + wanted <= most:  # false for NaN too
            return max(ceil(wanted), 1)
        wave_x, wave_y = self._fastest
        limit = _LIMIT / (wave_x / self._hx + wave_y / self._hy)
        raise SolverFailed(
            f"time step failed at solver step {step}, time {step * dt:g} s: dt={dt:g} s needs "
            f"{taken + wanted:.0f} substeps, more than max_substeps={most}. Depths stay positive "
            f"in steps <= {_LIMIT} / (a_x / hx + a_y / hy) = {limit:.3g} s (fastest waves "
            f"a_x={wave_x:.3g} m/s, a_y={wave_y:.3g} m/s, hx={self._hx:.3g} m, "
            f"hy={self._hy:.3g} m). Reduce dt or the grid, or raise max_substeps"
        )

    def _rates(self, time: float, state: list[PETSc.Vec], rates: Rates) -> float:
        """The right-hand side, and the sum of fastest wave / spacing over x and y, in 1/s."""
        near = self._near
        for row, vec in zip((0, 2, 3), state, strict=False):
            self._exchange(vec, row)
        self._mirror(near[:4])
        np.add(near[0], near[4], out=near[1])
        factor_of_velocity(near[0], thin=self._config.thin, out=self._factor, scratch=self._scratch)
        near[2:4] *= self._factor
        rates[:] = 0.0 if self._source is None else self._source(time, self._x, self._y)
        for index, sweep in enumerate(self._sweeps):
            fastest = sweep.add(near[:4], rates)
            self._fastest[index] = fastest if np.isfinite(fastest) else np.inf
        if self._da.comm.size > 1:
            # All mpi_ranks take the same step, or all fail.
            self._waves.stateIncrease()
            self._fastest[:] = [self._waves.strideMax(index)[1] for index in range(2)]
        return float(self._fastest[0] / self._hx + self._fastest[1] / self._hy)

    def _exchange(self, vec: PETSc.Vec, row: int) -> None:
        vec.stateIncrease()  # NumPy has written
        self._da.globalToLocal(vec, self._of_near[row])

    def _mirror(self, near: Float64[np.ndarray, "row y x"]) -> None:
        """Let the image of the water lie beyond a wall; rows 2 and 3 are turned round there."""
        for there, here, wall, turned in (
            (np.s_[:, :, :2], np.s_[:, :, 3:1:-1], self._west, 2),
            (np.s_[:, :, -2:], np.s_[:, :, -3:-5:-1], self._east, 2),
            (np.s_[:, :2], np.s_[:, 3:1:-1], self._south, 3),
            (np.s_[:, -2:], np.s_[:, -3:-5:-1], self._north, 3),
        ):
            if wall:
                near[there] = near[here]
                near[there][turned : turned + 1] *= -1.0

    def _dry(self) -> None:
        """Take away negative depths (round-off), and discharge that thin water cannot have."""
        depth, thin = self._fields[0], self._config.thin
        if depth.min() >= thin:
            return
        np.maximum(depth, 0.0, out=depth)
        squared = depth * depth
        self._fields[1:3] *= 2 * squared / (squared + np.maximum(squared, thin**2))
