"""The Kuramoto-Sivashinsky equation on a periodic line: chaos in one dimension.

Equation:    u_t + u u_x + u_xx + u_xxxx = 0, dimensionless.
Domain:      0 <= x < length; 0 < t <= steps * dt.
Boundary:    periodic.
Initial:     u(0, x) = amplitude * sum_j A_j sin(2 pi l_j x / length + phi_j), where the member's
             seed draws A in [-1, 1], l in {1, ..., waves} and phi.
Grid:        x_i = (i + 1/2) h, h = length / points; fields[0, i] belongs to x_i.
Space:       central differences over seven points, u u_x as (u^2 / 2)_x; fourth order.
Time:        ARKIMEX 3: u u_x explicit, the rest implicit; third order (2.5 to 2.8 is measured
             where dt is large against h^4 / 27, the decay time of the shortest waves).
             Why: u_xxxx would keep an explicit step below h^4 / 11 (0.006 at h = 0.5), and u_xx
             feeds the long waves, which an L-stable scheme must not damp: dt is far below their
             growth time, 4.
Stability:   every interval dt has as many steps as max|u| dt / h <= 0.8 asks for; the linear part
             sets no limit. h <= 0.7 is required, so that the chaos is that of the equation.
Behaviour:   the mean of u stays what it was, near 0. Waves of length 2 pi sqrt(2) = 8.9 grow
             fastest, up to magnitudes of about 3; then humps merge and split. Steady or
             periodic for length under about 22, chaotic above: neighbours part like exp(t / 10),
             more slowly near 22.
Good values: length 64, 128 points, 200 steps of 0.25; the first 30 time units are the way to the
             attractor. 22 with 64 points is the smallest chaotic line. There the root mean square
             of u on the attractor is 1.185, within 0.001; measured with h = 0.34: 1.185, with 0.5:
             1.181 (0.3 % off), with 0.67: 1.180 (0.4 %), with 1, which is refused: 1.201 (1.3 %).
Source:      Kassam, Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214; Cvitanovic, Davidchack,
             Siminos, SIAM J. Appl. Dyn. Syst. 9 (2010) 1 (length 22); Kennedy, Carpenter, Appl.
             Numer. Math. 44 (2003) 139 (ARKIMEX 3).

On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.numerics.periodic_line import Explicit, PeriodicLine, Stencil
from solvers.numerics.sines import Sines
from solvers.pdes.base import PdeSolver

# Derivatives over seven points, from the third neighbour on the left to the third on the right.
_SECOND = np.array([0.0, -1.0, 16.0, -30.0, 16.0, -1.0, 0.0]) / 12
_FOURTH = np.array([-1.0, 12.0, -39.0, 56.0, -39.0, 12.0, -1.0]) / 6


@final
class KuramotoSivashinsky(PdeSolver[PeriodicLine]):
    """The solver of ``kind: kuramoto_sivashinsky``.

    Args:
        config: Grid, time, and how initial states are drawn.
    """

    def __init__(self, config: KuramotoSivashinskyConfig) -> None:
        super().__init__(config, partial(PeriodicLine, config.grid[0], config.petsc_options))
        self._config = config

    def _begin(self, line: PeriodicLine, values: dict[str, float]) -> Callable[[int], Snapshot]:
        (h,), dt = self.spec.spacing, self._config.dt
        initial = Sines.draw(
            values["seed"],
            amplitude=values["amplitude"],
            frequency=0.0,
            waves=self._config.waves,
            terms=self._config.terms,
            length=self._config.length,
        )

        def snapshot(step: int) -> Snapshot:
            if step == 0:
                line.set_linear(linear_stencil(h))
                line.start(initial.on(line.cells(h))(0.0), steepening(h), dt=dt)
            else:
                line.advance(step, dt=dt, courant=lambda u: u * dt / h)
            return line.snapshot(step, step * dt)

        return snapshot


def linear_stencil(h: float) -> Stencil:
    """Stencil of u_xx + u_xxxx, which is on the left side of the equation."""
    return np.asarray(_SECOND / h**2 + _FOURTH / h**4)


def steepening(h: float) -> Explicit:
    """-(u^2 / 2)_x on a line with spacing ``h``."""
    scale = -0.5 / (12 * h)

    def rate(_time: float, ghosted: Float64[np.ndarray, " _ghosted"]) -> Float64[np.ndarray, " x"]:
        energy = scale * ghosted * ghosted
        return np.asarray(8 * (energy[4:-2] - energy[2:-4]) - (energy[5:-1] - energy[1:-5]))

    return rate
