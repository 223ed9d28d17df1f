"""Burgers' equation with diffusion, dispersion and a forcing, on a periodic line.

Equation:    u_t + (alpha u^2 - beta u_x + gamma u_xx)_x = delta(t, x), dimensionless;
             delta = amplitude * sum_j A_j sin(omega_j t + 2 pi l_j x / length + phi_j), where the
             member's seed draws A in [-1, 1], omega in [-0.4, 0.4], l in {1, 2, 3} and phi.
Domain:      0 <= x < length; 0 < t <= steps * dt.
Boundary:    periodic.
Initial:     u(0, x) = delta(0, x).
Grid:        cell centres, x_i = (i + 1/2) h with h = length / cells; fields[0, i] is the mean of u
             over cell i.
Space:       finite volumes. alpha: WENO-Z reconstruction, Godunov's flux; fifth order. beta: sixth
             order; gamma: fourth order (central differences over seven cells). So fifth order, and
             fourth with gamma.
Time:        ARKIMEX 3: alpha and delta explicit, beta and gamma implicit; third order.
             Why: alpha makes shocks, which a linear scheme would ring at; gamma would keep an
             explicit step below 0.37 h^3 / gamma (0.0015 for 100 cells on 16, gamma = 1).
Stability:   every interval dt has as many steps as 2 alpha max|u| dt / h <= 0.8 asks for; beta and
             gamma set no limit. alpha and beta must not be negative.
Behaviour:   the mean of u stays 0. alpha alone (E1) steepens every slope into a shock within a
             time of 1 / (2 alpha max|u_x|); beta rounds it to a width of beta / (alpha max|u|)
             (E2); gamma sends out wave trains behind it (E3, Korteweg and de Vries).
Good values: amplitude = 0.5, 100 cells on 16, 250 steps of 0.016. E1: alpha = 1, beta = gamma = 0.
             E2: alpha = 1, beta in [0, 0.2], gamma = 0. E3: alpha in [0, 3], beta in [0, 0.4],
             gamma in [0, 1].
Source:      Brandstetter, Worrall, Welling, arXiv:2202.03376 (the family); Borges et al., J.
             Comput. Phys. 227 (2008) 3191 (WENO-Z); Kennedy, Carpenter, Appl. Numer. Math. 44
             (2003) 139 (ARKIMEX 3).

On several mpi_ranks each one yields its own box of the field.
"""

from collections.abc import Callable
from functools import partial
from typing import final

import numpy as np
from jaxtyping import Float64

from solvers.base import Snapshot, SolverFailed
from solvers.configs.burgers import BurgersConfig
from solvers.numerics.periodic_line import Explicit, PeriodicLine, Stencil
from solvers.numerics.sines import Sines
from solvers.pdes.base import PdeSolver

# Derivatives over seven cells, from the third neighbour on the left to the third on the right.
_SECOND = np.array([2.0, -27.0, 270.0, -490.0, 270.0, -27.0, 2.0]) / 180
_THIRD = np.array([1.0, -8.0, 13.0, 0.0, -13.0, 8.0, -1.0]) / 8

Sides = Float64[np.ndarray, " 2 faces"]


@final
class Burgers(PdeSolver[PeriodicLine]):
    """The solver of ``kind: burgers``.

    Args:
        config: Grid, time, and how forcings are drawn.
    """

    def __init__(self, config: BurgersConfig) -> None:
        super().__init__(config, partial(PeriodicLine, config.grid[0], config.petsc_options))
        self._config = config

    def _begin(self, line: PeriodicLine, values: dict[str, float]) -> Callable[[int], Snapshot]:
        for name in ("alpha", "beta"):
            if values[name] < 0.0:
                raise SolverFailed(
                    f"{name}={values[name]:g}: need {name} >= 0. Draw it from a range above 0"
                    + (", or mirror the line (x to -x, u to -u)" if name == "alpha" else "")
                )
        (h,), dt, alpha = self.spec.spacing, self._config.dt, values["alpha"]
        delta = (
            Sines.draw(
                values["seed"],
                amplitude=values["amplitude"],
                frequency=self._config.frequency,
                waves=self._config.waves,
                terms=self._config.terms,
                length=self._config.length,
            )
            .averaged(h)
            .on(line.cells(h))
        )

        def snapshot(step: int) -> Snapshot:
            if step == 0:
                line.set_linear(linear_stencil(values["beta"], values["gamma"], h))
                line.start(delta(0.0), advection(alpha, h, delta), dt=dt)
            else:
                line.advance(step, dt=dt, courant=lambda u: 2 * alpha * u * dt / h)
            return line.snapshot(step, step * dt)

        return snapshot


def linear_stencil(beta: float, gamma: float, h: float) -> Stencil:
    """Stencil of -beta u_xx + gamma u_xxx, which is on the left side of the equation."""
    return np.asarray(-beta / h**2 * _SECOND + gamma / h**3 * _THIRD)


def advection(
    alpha: float, h: float, delta: Callable[[float], Float64[np.ndarray, " x"]]
) -> Explicit:
    """-(alpha u^2)_x + delta on cells of width ``h``, ``alpha`` not negative."""

    def rate(time: float, ghosted: Float64[np.ndarray, " _ghosted"]) -> Float64[np.ndarray, " x"]:
        if alpha == 0.0:
            return delta(time)  # nothing moves
        # The right side of a face is the left side of the mirrored line.
        left, right = weno(np.stack([ghosted, ghosted[::-1]]))
        # Godunov's flux of a convex function whose minimum is at 0.
        flux = np.maximum(np.maximum(left, 0.0), -np.minimum(right[::-1], 0.0)) ** 2
        return np.asarray(delta(time) - alpha / h * (flux[1:] - flux[:-1]))

    return rate


def weno(means: Float64[np.ndarray, " 2 _ghosted"]) -> Sides:
    """Values at the right end of each cell but the outer two and three, from cell means; WENO-Z."""
    far, near, here, next_, last = (means[:, k : k + means.shape[1] - 5] for k in range(5))
    bend = (far - 2 * near + here, near - 2 * here + next_, here - 2 * next_ + last)
    slope = (far - 4 * near + 3 * here, near - next_, 3 * here - 4 * next_ + last)
    rough = [13 / 12 * b * b + 0.25 * s * s for b, s in zip(bend, slope, strict=True)]
    tau = np.abs(rough[0] - rough[2])
    # 1e-40: only against 0 / 0, where the state is constant.
    first, second, third = (
        share * (1.0 + (tau / (r + 1e-40)) ** 2)
        for share, r in zip((0.1, 0.6, 0.3), rough, strict=True)
    )
    return np.asarray(
        (
            first * (2 * far - 7 * near + 11 * here)
            + second * (-near + 5 * here + 2 * next_)
            + third * (2 * here + 5 * next_ - last)
        )
        / (6 * (first + second + third))
    )
