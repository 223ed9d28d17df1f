"""What flows between the cells of shallow water, along one axis: pure NumPy, no memory per call.

Depth h, surface s = h + bottom and both velocities are straight lines in each cell, with van Leer's
limiter. At a face the bottom is the higher one of its two sides, and only the water above it meets
the water of the other side (hydrostatic reconstruction). Mass and momentum flow as HLL says, and
the velocity across is carried by the mass.

1. What a face takes from one cell it gives to the other: mass is conserved to round-off.
2. A bottom pushes by (slope of the surface) g h and the pressure at the faces, and by nothing else:
   a level surface, dry islands included, changes by round-off.
3. Faces of one axis take at most 2 h (fastest wave) / spacing from a cell of depth h: no depth
   becomes negative in a forward Euler step with dt (sum over axes of that quotient) <= 1/2.
4. A cell's rates depend on itself and two neighbours each side, whatever array they are in.

Source: Audusse, Bouchut, Bristeau, Klein, Perthame, SIAM J. Sci. Comput. 25 (2004) 2050; van Leer,
J. Comput. Phys. 32 (1979) 101; Harten, Lax, van Leer, SIAM Rev. 25 (1983) 35.
"""

from typing import final

import numpy as np
from jaxtyping import Float64

__all__ = ["GHOSTS", "Sweep", "factor_of_velocity"]

# Neighbours on either side that a cell's rates depend on.
GHOSTS = 2
# A denominator with it is not 0; nothing physical is so small.
_TINY = 1e-300

State = Float64[np.ndarray, "4 ghosted_y ghosted_x"]
Rates = Float64[np.ndarray, "3 y x"]
Plane = Float64[np.ndarray, " y x"]
Lines = Float64[np.ndarray, "field line cell"]


def factor_of_velocity(depth: Plane, *, thin: float, out: Plane, scratch: Plane) -> None:
    """Write what a discharge is multiplied by to be a velocity into ``out``.

    It is 1 / h, and for h < ``thin`` [m] it is 2 h / (h^2 + thin^2), which ends at 0: dry cells
    have no velocity (Kurganov, Petrova, Commun. Math. Sci. 5 (2007) 133, in a simpler form).
    """
    np.multiply(depth, depth, out=out)
    np.maximum(out, thin**2, out=scratch)
    out += scratch
    np.divide(depth, out, out=out)
    out *= 2


@final
class Sweep:
    """Fluxes along one axis, for all lines at once; holds the memory that they need.

    Args:
        axis: 1 for x (the last one of an array), 0 for y.
        shape: Cells ``(y, x)`` whose rates are wanted.
        spacing: Width of the cells along ``axis`` [m].
        gravity: Acceleration of gravity [m/s^2].
    """

    def __init__(
        self, *, axis: int, shape: tuple[int, int], spacing: float, gravity: float
    ) -> None:
        self._swapped = axis == 0
        self._along, self._across = (2, 3) if axis == 1 else (3, 2)
        self._spacing, self._gravity = spacing, gravity
        lines, cells = shape[::-1] if self._swapped else shape

        def memory(fields: int, length: int) -> Lines:
            """An array in the order of those that are swept: what is near in them is near here."""
            if self._swapped:
                return np.zeros((fields, length, lines)).swapaxes(1, 2)
            return np.zeros((fields, lines, length))

        self._steps, self._sums = memory(4, cells + 3), memory(4, cells + 2)
        self._slopes = memory(4, cells + 2)
        self._left, self._right = memory(4, cells + 1), memory(4, cells + 1)
        self._speeds, self._planes = memory(2, cells + 1), memory(6, cells + 1)
        self._fluxes, self._change = memory(4, cells + 1), memory(1, cells)

    def add(self, state: State, rates: Rates) -> float:
        """Add to ``rates`` what flows along this axis.

        Args:
            state: Depth [m], surface [m], velocities in x and y [m/s], with two more cells on
                every side (those in the corners are not looked at).
            rates: Rates of the depth and of the discharges in x and y, per second.

        Returns:
            The fastest wave's speed [m/s]; NaN or infinite where the state is.
        """
        if self._swapped:
            state, rates = state.swapaxes(1, 2), rates.swapaxes(1, 2)
        state = state[:, GHOSTS:-GHOSTS]
        self._limit(state)
        self._meet(state)
        fastest = self._wave_speeds()
        self._flow()
        self._collect(state, rates)
        return fastest

    def _limit(self, state: Lines) -> None:
        """Half of van Leer's slope times the spacing: a b / (a + b), or 0 at an extremum."""
        np.subtract(state[..., 1:], state[..., :-1], out=self._steps)
        before, after = self._steps[..., :-1], self._steps[..., 1:]
        np.multiply(before, after, out=self._slopes)
        np.maximum(self._slopes, 0.0, out=self._slopes)
        np.add(before, after, out=self._sums)
        self._sums += _TINY
        self._slopes /= self._sums

    def _meet(self, state: Lines) -> None:
        """The two sides of every face, with the depths above the higher one's bottom."""
        left, right = self._left, self._right
        bottom, other = self._planes[:2]
        np.add(state[..., 1:-2], self._slopes[..., :-1], out=left)
        np.subtract(state[..., 2:-1], self._slopes[..., 1:], out=right)
        np.subtract(left[1], left[0], out=bottom)
        np.subtract(right[1], right[0], out=other)
        np.maximum(bottom, other, out=bottom)
        for side in (left, right):
            np.subtract(side[1], bottom, out=side[0])
            np.maximum(side[0], 0.0, out=side[0])

    def _wave_speeds(self) -> float:
        """The slowest and fastest wave of either side, with 0 between them."""
        slowest, fastest = self._speeds
        wave, run = self._planes[:2]
        self._speeds.fill(0.0)
        for side in (self._left, self._right):
            np.multiply(side[0], self._gravity, out=wave)
            np.sqrt(wave, out=wave)
            np.subtract(side[self._along], wave, out=run)
            np.minimum(slowest, run, out=slowest)
            np.add(side[self._along], wave, out=run)
            np.maximum(fastest, run, out=fastest)
        return max(float(fastest.max()), -float(slowest.min()))

    def _flow(self) -> None:
        """Mass; momentum less the pressure of the left and of the right side; the one across.

        With the share a = s+ / (s+ - s-) of the left side, HLL is
        F = F_right - a (F_right - F_left) + a s- (U_right - U_left).
        """
        left, right, (slowest, fastest) = self._left, self._right, self._speeds
        mass, seen_left, seen_right, across = self._fluxes
        share, damping, rise, gain, pressure, term = self._planes
        u_left, u_right = left[self._along], right[self._along]
        np.subtract(fastest, slowest, out=share)
        share += _TINY
        np.divide(fastest, share, out=share)
        np.multiply(share, slowest, out=damping)
        # Differences between right and left, of depth, discharge and pressure.
        np.subtract(right[0], left[0], out=rise)
        np.add(right[0], left[0], out=pressure)
        pressure *= rise
        pressure *= self._gravity / 2
        np.multiply(left[0], u_left, out=term)
        np.multiply(right[0], u_right, out=mass)
        np.multiply(mass, u_right, out=seen_right)
        np.subtract(mass, term, out=gain)
        term *= u_left
        np.subtract(seen_right, term, out=term)
        term += pressure
        term *= share
        seen_right -= term
        np.multiply(damping, gain, out=term)
        seen_right += term
        np.add(seen_right, pressure, out=seen_left)
        gain *= share
        mass -= gain
        rise *= damping
        mass += rise
        np.maximum(mass, 0.0, out=across)
        across *= left[self._across]
        np.minimum(mass, 0.0, out=term)
        term *= right[self._across]
        across += term

    def _collect(self, state: Lines, rates: Rates) -> None:
        """What comes in less what goes out, and the push of the bottom."""
        mass, seen_left, seen_right, across = self._fluxes
        (change,) = self._change
        self._fluxes /= self._spacing
        for row, here, before in (
            (0, mass, mass),
            (self._along - 1, seen_left, seen_right),
            (self._across - 1, across, across),
        ):
            np.subtract(before[:, :-1], here[:, 1:], out=change)
            rates[row] += change
        np.multiply(state[0, :, GHOSTS:-GHOSTS], self._slopes[1, :, 1:-1], out=change)
        change *= 2 * self._gravity / self._spacing
        rates[self._along - 1] -= change
