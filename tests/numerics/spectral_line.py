"""An independent way to solve u_t = L u + N(t, u) on a periodic line: Fourier and Runge-Kutta 4.

The linear part is integrated exactly; products are taken on a grid fine enough that nothing folds
back. Errors are far below what the solvers' float32 snapshots resolve.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def wavenumbers(points: int, length: float) -> Real:
    return np.asarray(2 * np.pi / length * np.arange(points // 2 + 1))


def solve(
    initial: Real,
    *,
    symbol: Complex,
    explicit: Callable[[float, Complex], Complex],
    final: float,
    steps: int,
) -> Complex:
    """The Fourier coefficients (``rfft``) of u at time ``final``."""
    dt, u = final / steps, np.fft.rfft(initial)
    half = np.exp(symbol * dt / 2)
    for step in range(steps):
        t = step * dt
        a = dt * explicit(t, u)
        b = dt * explicit(t + dt / 2, half * (u + a / 2))
        c = dt * explicit(t + dt / 2, half * u + b / 2)
        d = dt * explicit(t + dt, half * (half * u + c))
        u = half * (half * (u + a / 6) + (b + c) / 3) + d / 6
    return np.asarray(u)


def squared(u: Complex) -> Complex:
    """The coefficients of u^2 without aliases of it (the upper third is cut off)."""
    points = 2 * (len(u) - 1)
    kept = np.where(np.arange(len(u)) <= points // 3, u, 0.0)
    return np.asarray(np.fft.rfft(np.fft.irfft(kept) ** 2))


def at_cells(u: Complex, cells: int, *, length: float, means: bool) -> Real:
    """Values at the centres of ``cells`` equal cells, or means over them."""
    k, h = wavenumbers(2 * (len(u) - 1), length), length / cells
    weights = np.where(np.arange(len(u)) == 0, 1.0, 2.0) / (2 * (len(u) - 1))
    if means:
        weights = weights * np.sinc(k * h / (2 * np.pi))
    x = (np.arange(cells) + 0.5) * h
    return np.asarray((np.exp(1j * np.outer(x, k)) @ (weights * u)).real)
