"""Random sums of sines: seeds, scale, mean, means over cells."""

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.numerics.sines import Sines

LENGTH = 16.0
X = np.linspace(0.0, LENGTH, 64, endpoint=False)


def drawn(seed: float = 3.0, amplitude: float = 0.5, waves: int = 3) -> Sines:
    return Sines.draw(seed, amplitude=amplitude, frequency=0.4, waves=waves, terms=5, length=LENGTH)


def test_it_is_the_sum_that_the_docstring_says() -> None:
    sines, time = drawn(), 1.7
    expected = sum(
        a * np.sin(w * time + k * X + phi)
        for a, w, k, phi in zip(
            sines.amplitudes, sines.frequencies, sines.wavenumbers, sines.phases, strict=True
        )
    )
    np.testing.assert_allclose(sines.on(X)(time), expected, atol=1e-13)


def test_a_seed_gives_the_same_sum_for_ever() -> None:
    # A golden value: studies are repeated years later.
    np.testing.assert_allclose(
        drawn(7.0).on(np.array([0.0, 1.0]))(0.5),
        [0.13623498769335102, -0.5539790590535589],
        rtol=1e-12,
    )


def test_the_whole_part_of_a_seed_counts() -> None:
    np.testing.assert_array_equal(drawn(3.0).phases, drawn(3.99).phases)
    assert not np.array_equal(drawn(3.0).phases, drawn(4.0).phases)


@pytest.mark.parametrize("seed", [-1.0, -0.5, 2.0**53, np.nan])
def test_a_seed_without_a_whole_part_is_refused(seed: float) -> None:
    with pytest.raises(SolverFailed, match=r"seed=\S+: need 0 <= seed < 2\^53"):
        drawn(seed)


def test_amplitude_scales_and_changes_nothing_else() -> None:
    np.testing.assert_allclose(drawn(amplitude=1.5).on(X)(2.0), 3.0 * drawn().on(X)(2.0))


def test_the_mean_over_the_line_is_zero() -> None:
    assert abs(drawn().on(X)(2.3).mean()) < 1e-15


def test_draws_keep_to_their_ranges() -> None:
    many = [drawn(seed) for seed in range(300)]
    amplitudes, frequencies, phases = (
        np.concatenate([getattr(sines, name) for sines in many])
        for name in ("amplitudes", "frequencies", "phases")
    )
    waves = np.concatenate([sines.wavenumbers for sines in many]) * LENGTH / (2 * np.pi)
    for values, low, high in (
        (amplitudes, -0.5, 0.5),
        (frequencies, -0.4, 0.4),
        (phases, 0.0, 2 * np.pi),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    np.testing.assert_allclose(np.unique(waves.round(9)), [1.0, 2.0, 3.0])


def test_means_over_cells() -> None:
    sines, h = drawn(), 0.5
    points, weights = np.polynomial.legendre.leggauss(6)
    inside = sines.on((X[:, None] + points * h / 2).ravel())(1.1).reshape(64, 6)
    np.testing.assert_allclose(sines.averaged(h).on(X)(1.1), inside @ weights / 2, atol=1e-13)
