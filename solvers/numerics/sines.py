"""Random sums of travelling sines on a periodic line: smooth initial states and forcings.

    delta(t, x) = amplitude * sum_j A_j sin(omega_j t + 2 pi l_j x / length + phi_j)

with A in [-1, 1], omega in [-1, 1] * frequency, l in {1, ..., waves}, phi in [0, 2 pi), all uniform
(arXiv:2202.03376 has amplitude 0.5, frequency 0.4, waves 3 and five terms).

1. A seed gives the same sum on every machine, whatever the grid and the number of mpi_ranks.
2. The sum has mean zero over the line at any time.
3. Amplitude scales the sum and changes nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
from jaxtyping import Float64

from solvers.base import SolverFailed

Terms = Float64[np.ndarray, " terms"]

# Above it neighbouring whole numbers are no longer different floats.
LARGEST_SEED = 2.0**53


def generator(seed: float) -> np.random.Generator:
    """The random numbers of a seed, of which the whole part counts.

    Raises:
        SolverFailed: The seed is negative or too large to have a whole part of its own.
    """
    if not 0.0 <= seed < LARGEST_SEED:
        raise SolverFailed(
            f"seed={seed:g}: need 0 <= seed < 2^53 = {LARGEST_SEED:.0f}. Draw it uniformly "
            "from a range such as [0, 1000000]; its whole part counts"
        )
    return np.random.default_rng(int(seed))


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sines:
    """One sum, ready to be evaluated.

    Attributes:
        amplitudes: Amplitude of each term, in the unit of the field.
        frequencies: Angular frequency of each term [rad/s].
        wavenumbers: Angular wavenumber of each term [rad/m].
        phases: Phase of each term at time 0 and x = 0 [rad].
    """

    amplitudes: Terms
    frequencies: Terms
    wavenumbers: Terms
    phases: Terms

    @classmethod
    def draw(
        cls,
        seed: float,
        *,
        amplitude: float,
        frequency: float,
        waves: int,
        terms: int,
        length: float,
    ) -> Self:
        """The sum of a seed, of which the whole part counts.

        Raises:
            SolverFailed: The seed is negative or too large to have a whole part of its own.
        """
        rng = generator(seed)
        return cls(
            amplitudes=amplitude * rng.uniform(-1.0, 1.0, terms),
            frequencies=frequency * rng.uniform(-1.0, 1.0, terms),
            wavenumbers=2 * np.pi / length * rng.integers(1, waves + 1, terms),
            phases=rng.uniform(0.0, 2 * np.pi, terms),
        )

    def on(self, x: Float64[np.ndarray, " x"]) -> Callable[[float], Float64[np.ndarray, " x"]]:
        """The sum at points ``x`` [m] as a function of time [s]; the sines of x are kept."""
        places = np.outer(self.wavenumbers, x)
        shapes = np.concatenate([np.cos(places), np.sin(places)])

        def at(time: float) -> Float64[np.ndarray, " x"]:
            angles = self.frequencies * time + self.phases
            weights = np.concatenate([np.sin(angles), np.cos(angles)])
            return np.asarray((weights.reshape(2, -1) * self.amplitudes).ravel() @ shapes)

        return at

    def averaged(self, width: float) -> Self:
        """The sum whose value at a point is this one's mean over ``width`` around that point."""
        damping = np.sinc(self.wavenumbers * width / (2 * np.pi))
        return replace(self, amplitudes=self.amplitudes * damping)
