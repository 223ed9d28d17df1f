"""Random fields over a box in one, two or three dimensions, drawn by a seed, evaluated anywhere.

gaussian     mean + scale * g, where the covariance of g is (-lap + tau^2)^(-smoothness) on the box,
             tau = 1 / length_scale, as a series of its eigenfunctions with at most `modes` waves
             (between walls: half waves) along each axis. The constant is left out, so every draw
             has mean `mean` over the box. `scale` follows from `std`: the mean over the box of the
             variance of the truncated series is std^2. Far from walls, in a box that is large
             against length_scale, this is the Matern family with nu = smoothness - dimensions / 2;
             correlations fall to about 0.1 at a distance of sqrt(8 nu) length_scale.
lognormal    median * exp(log_std * g), g a Gaussian field with std 1.
two_phase    low * contrast where g is above the value that a share `share` of a normal
             distribution exceeds, low elsewhere.
voronoi      `cells` random points; everywhere the value of the nearest one, whose logarithm is
             uniform between those of low and low * contrast.
sines        amplitude * sum_j A_j sin(2 pi (l_j . x / length) + phi_j), A in [-1, 1], whole numbers
             l in {-waves, ..., waves} along each axis without l = 0, phi in [0, 2 pi), all uniform.
             Between walls: amplitude * sum_j A_j sin(phi_j) prod cos(pi l_j x / length).

The solver says what happens at the ends of the box: `periodic`, or `neumann`: walls without a slope
across them.

1. A seed gives the same field on every machine, whatever the grid and the number of mpi_ranks.
2. A periodic field has the period of the box, and one between walls has no slope there.
3. ``mean``, ``std``, ``low`` and the like scale a field and change nothing else.
4. More modes add detail to the field of a seed; the long waves keep their shape.

Source: Lindgren, Rue, Lindstroem, J. R. Stat. Soc. B 73 (2011) 423 (Matern fields and -lap +
tau^2); Lord, Powell, Shardlow, An Introduction to Computational Stochastic PDEs (2014), chapter 7.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Complex128, Float64

from solvers.configs.random_fields import (
    AnyFieldConfig,
    GaussianFieldConfig,
    LognormalFieldConfig,
    SinesFieldConfig,
    TwoPhaseFieldConfig,
    VoronoiFieldConfig,
)
from solvers.numerics.sines import generator

__all__ = ["Boundary", "RandomField", "draw"]

Boundary = Literal["periodic", "neumann"]
Points = Float64[np.ndarray, " _points"]
# Given the coordinates along each axis [m], in the order of the grid's axes: (y, x) in a plane.
RandomField = Callable[..., Float64[np.ndarray, " *grid"]]


def draw(
    config: AnyFieldConfig, seed: float, *, length: tuple[float, ...], boundary: Boundary
) -> RandomField:
    """The field of a seed, of which the whole part counts.

    Args:
        config: Which field. What is null there is the caller's to fill in first.
        seed: At least 0, below 2^53.
        length: Size of the box along each axis of the grid [m].
        boundary: What happens at the ends of every axis.

    Returns:
        A function of one array of coordinates [m] per axis, which gives the values in float64 on
        the grid that they span.

    Raises:
        SolverFailed: The seed is out of range.
    """
    rng = generator(seed)
    match config:
        case GaussianFieldConfig(mean=mean, std=std):
            series = _gaussian(config, rng, length, boundary)
            return lambda *points: mean + std * series(*points)
        case LognormalFieldConfig(median=median, log_std=log_std):
            assert log_std is not None
            series = _gaussian(config, rng, length, boundary)
            return lambda *points: median * _exp(log_std * series(*points))
        case TwoPhaseFieldConfig(low=low, contrast=contrast, share=share):
            assert contrast is not None
            series = _gaussian(config, rng, length, boundary)
            threshold = -NormalDist().inv_cdf(share)
            return lambda *points: np.where(series(*points) > threshold, low * contrast, low)
        case VoronoiFieldConfig():
            return _voronoi(config, rng, length, boundary)
        case SinesFieldConfig():
            return _sines(config, rng, length, boundary)
        case _:
            assert_never(config)


def _gaussian(
    config: GaussianFieldConfig | LognormalFieldConfig | TwoPhaseFieldConfig,
    rng: np.random.Generator,
    length: tuple[float, ...],
    boundary: Boundary,
) -> RandomField:
    """A Gaussian field with mean 0 and standard deviation 1: coefficients of products of waves."""
    # Along an axis: 1, cos and sin of one wave, cos and sin of two waves, ...; between walls the
    # cosines of half waves. All but the first have mean square 1/2, hence the sqrt(2).
    pair, turn = (2, 2 * np.pi) if boundary == "periodic" else (1, np.pi)
    waves = (np.arange(pair * config.modes + 1) + pair - 1) // pair
    every = np.stack(np.meshgrid(*[waves] * len(length), indexing="ij")).reshape(len(length), -1)
    squared = sum((turn * k / size) ** 2 for k, size in zip(every, length, strict=True))
    # Relative to tau^2, so that no power of it can overflow.
    variance = (1 + squared * config.length_scale**2) ** -config.smoothness
    variance[0] = 0.0
    # Long waves are drawn first: those of a series with more modes are then the same.
    order = np.argsort(every.max(axis=0), kind="stable")
    coefficients = np.empty(order.size)
    coefficients[order] = rng.standard_normal(order.size)
    coefficients *= np.sqrt(variance / variance.sum())
    shape = [waves.size] * len(length)

    def field(*points: Points) -> Float64[np.ndarray, " *_grid"]:
        bases = [_waves(p * turn / size, config.modes, boundary)
                 for p, size in zip(points, length, strict=True)]  # fmt: skip
        return _spanned(coefficients.reshape(shape), bases)

    return field


def _waves(angle: Points, modes: int, boundary: Boundary) -> Float64[np.ndarray, " wave _points"]:
    """Orthonormal functions of one coordinate, given as the angle of the longest wave."""
    angles = np.outer(np.arange(modes + 1), angle)
    basis = np.asarray(np.sqrt(2) * np.cos(angles))
    basis[0] = 1.0
    if boundary == "neumann":
        return basis
    both = np.empty((2 * modes + 1, angle.size))
    both[0], both[1::2], both[2::2] = 1.0, basis[1:], np.sqrt(2) * np.sin(angles[1:])
    return both


def _spanned(
    coefficients: Float64[np.ndarray, " *_waves"], bases: Sequence[Float64[np.ndarray, " _wave _p"]]
) -> Float64[np.ndarray, " *_grid"]:
    """Sum of coefficients times products of one function per axis, an axis after the other."""
    values = coefficients
    for basis in bases:  # the first axis goes, and its points become the last one
        values = np.tensordot(values, basis, axes=(0, 0))
    return np.ascontiguousarray(values)


def _exp(exponent: Float64[np.ndarray, " *grid"]) -> Float64[np.ndarray, " *_grid"]:
    with np.errstate(over="ignore"):  # what overflows is refused as a snapshot
        return np.asarray(np.exp(exponent))


def _voronoi(
    config: VoronoiFieldConfig,
    rng: np.random.Generator,
    length: tuple[float, ...],
    boundary: Boundary,
) -> RandomField:
    assert config.contrast is not None
    centres = rng.random((config.cells, len(length))) * length
    values = config.low * config.contrast ** rng.random(config.cells)

    def field(*points: Points) -> Float64[np.ndarray, " *_grid"]:
        shape = tuple(p.size for p in points)
        nearest, found = np.full(shape, np.inf), np.empty(shape)
        for centre, value in zip(centres, values, strict=True):  # bounded memory: one cell a time
            squares = [
                _distance(p, at, size, boundary) ** 2
                for p, at, size in zip(points, centre, length, strict=True)
            ]
            distance = sum(np.ix_(*squares), np.zeros(shape))
            closer = distance < nearest
            nearest[closer], found[closer] = distance[closer], value
        return found

    return field


def _distance(points: Points, at: float, size: float, boundary: Boundary) -> Points:
    apart = np.abs(points - at)
    return np.minimum(apart % size, -apart % size) if boundary == "periodic" else apart


def _sines(
    config: SinesFieldConfig,
    rng: np.random.Generator,
    length: tuple[float, ...],
    boundary: Boundary,
) -> RandomField:
    amplitudes = config.amplitude * rng.uniform(-1.0, 1.0, config.terms)
    phases = rng.uniform(0.0, 2 * np.pi, config.terms)
    waves = np.stack([_not_zero(rng, config.waves, len(length)) for _ in range(config.terms)])
    weights = amplitudes * np.exp(1j * phases)

    def field(*points: Points) -> Float64[np.ndarray, " *_grid"]:
        # sin(a + b + phi) is the imaginary part of a product with a factor per axis.
        product: Complex128[np.ndarray, " terms _rest"] = weights[:, None]
        for p, k, size in zip(points[:-1], waves.T, length, strict=False):
            factor = _turning(np.outer(k, p / size), boundary)
            product = (product[:, :, None] * factor[:, None, :]).reshape(config.terms, -1)
        last = _turning(np.outer(waves[:, -1], points[-1] / length[-1]), boundary)
        return np.asarray((product.T @ last).imag).reshape([p.size for p in points])

    return field


def _turning(
    turns: Float64[np.ndarray, " terms _points"], boundary: Boundary
) -> Complex128[np.ndarray, " terms _points"]:
    if boundary == "periodic":
        return np.asarray(np.exp(2j * np.pi * turns))
    return np.asarray(np.cos(np.pi * turns) + 0j)


def _not_zero(
    rng: np.random.Generator, most: int, axes: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Whole numbers of waves along each axis, drawn again while all are 0."""
    while True:
        waves = rng.integers(-most, most + 1, axes)
        if waves.any():
            return waves
