"""Random fields: what a seed gives, on which grid it is seen, and its statistics."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from solvers.base import SolverFailed
from solvers.configs.random_fields import AnyFieldConfig
from solvers.numerics.random_fields import Boundary, RandomField, draw

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x)
KINDS: list[dict[str, Any]] = [
    {"kind": "gaussian", "modes": 7, "mean": 3.0, "std": 2.0},
    {"kind": "lognormal", "modes": 7, "median": 3.0, "log_std": 0.5},
    {"kind": "two_phase", "modes": 7, "low": 3.0, "contrast": 4.0},
    {"kind": "voronoi", "cells": 9, "low": 3.0, "contrast": 4.0},
    {"kind": "sines", "amplitude": 0.5, "waves": 3, "terms": 4},
]
SMOOTH = [KINDS[0], KINDS[1], KINDS[4]]
ADAPTER: TypeAdapter[AnyFieldConfig] = TypeAdapter(AnyFieldConfig)
BOUNDARIES: tuple[Boundary, ...] = ("periodic", "neumann")


def config(settings: dict[str, Any]) -> AnyFieldConfig:
    return ADAPTER.validate_python(settings)


def field(
    settings: dict[str, Any],
    seed: float = 3.0,
    *,
    boundary: Boundary = "periodic",
    length: tuple[float, ...] = LENGTH,
) -> RandomField:
    return draw(config(settings), seed, length=length, boundary=boundary)


def points(*counts: int, length: tuple[float, ...] = LENGTH) -> list[Array]:
    """Centres of equal cells along each axis."""
    return [(np.arange(n) + 0.5) * size / n for n, size in zip(counts, length, strict=True)]


@pytest.fixture(params=KINDS, ids=lambda settings: str(settings["kind"]))
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(params=BOUNDARIES)
def boundary(request: pytest.FixtureRequest) -> Boundary:
    return request.param  # type: ignore[no-any-return]


def test_a_seed_gives_the_same_field_and_another_seed_another(
    settings: dict[str, Any], boundary: Boundary
) -> None:
    grid = points(24, 40)
    first = field(settings, 7.0, boundary=boundary)(*grid)
    np.testing.assert_array_equal(field(settings, 7.9, boundary=boundary)(*grid), first)
    assert not np.allclose(field(settings, 8.0, boundary=boundary)(*grid), first)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [1.1786970294241952, 4.112765724124181]),
        (1, [1.9027240045383986, 3.962217010320044]),
        (2, [3.0, 12.0]),
        (3, [3.1884306819602246, 3.746092616375685]),
        (4, [0.11490752756944597, 0.061682781376269064]),
    ],
)
def test_a_seed_gives_the_same_field_for_ever(index: int, expected: list[float]) -> None:
    # Golden values: studies are repeated years later.
    values = field(KINDS[index], 7.0)(np.array([0.1]), np.array([0.2, 1.1]))
    np.testing.assert_allclose(values[0], expected, rtol=1e-12)


def test_a_part_of_a_grid_shows_a_part_of_the_field(
    settings: dict[str, Any], boundary: Boundary
) -> None:
    drawn, (y, x) = field(settings, boundary=boundary), points(24, 40)
    part = drawn(y[5:11], x[17:])
    np.testing.assert_allclose(part, drawn(y, x)[5:11, 17:], rtol=1e-12, atol=1e-12)


def test_a_finer_grid_shows_the_same_field(settings: dict[str, Any], boundary: Boundary) -> None:
    drawn = field(settings, boundary=boundary)
    coarse, fine = drawn(*points(8, 10)), drawn(*points(24, 30))
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, rtol=1e-12, atol=1e-12)


def test_a_periodic_field_repeats(settings: dict[str, Any]) -> None:
    drawn, (y, x) = field(settings), points(9, 14)
    expected = drawn(y, x)
    np.testing.assert_allclose(drawn(y + LENGTH[0], x), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(drawn(y, x - 2 * LENGTH[1]), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", SMOOTH, ids=lambda settings: str(settings["kind"]))
def test_between_walls_there_is_no_slope_across_them(settings: dict[str, Any]) -> None:
    drawn, (y, x), step = field(settings, boundary="neumann"), points(9, 14), 1e-4
    for wall in (0.0, LENGTH[1]):
        beside = drawn(y, np.array([wall - step, wall + step]))
        np.testing.assert_allclose(beside[:, 0], beside[:, 1], rtol=1e-10, atol=1e-10)
    for wall in (0.0, LENGTH[0]):
        beside = drawn(np.array([wall - step, wall + step]), x)
        np.testing.assert_allclose(beside[0], beside[1], rtol=1e-10, atol=1e-10)
    periodic = field(settings)(y, np.array([-0.05, 0.05]))
    assert not np.allclose(periodic[:, 0], periodic[:, 1], rtol=1e-3)


@pytest.mark.parametrize("counts", [(30,), (12, 20), (6, 10, 8)])
def test_a_box_has_one_to_three_dimensions(
    settings: dict[str, Any], boundary: Boundary, counts: tuple[int, ...]
) -> None:
    length = (0.8, 1.3, 1.0)[: len(counts)]
    values = field(settings, boundary=boundary, length=length)(*points(*counts, length=length))
    assert values.shape == counts
    assert values.std() > 0.0


@pytest.mark.parametrize("seed", [-1.0, 2.0**53, np.nan])
def test_a_seed_without_a_whole_part_is_refused(settings: dict[str, Any], seed: float) -> None:
    with pytest.raises(SolverFailed, match=r"seed=\S+: need 0 <= seed < 2\^53"):
        field(settings, seed)


# Gaussian fields: the series against its own sums.

GAUSSIAN = {"kind": "gaussian", "length_scale": 0.15, "smoothness": 2.0, "modes": 6}


def draws(settings: dict[str, Any], boundary: Boundary, grid: list[Array], number: int) -> Array:
    return np.stack([field(settings, seed, boundary=boundary)(*grid) for seed in range(number)])


def eigenvalues(settings: dict[str, Any], boundary: Boundary) -> tuple[Array, Array]:
    """Of the covariance, and the wave numbers they belong to, ``(wave, 2)``; without the constant.

    The sum over complex waves for a periodic box, over cosines for one between walls.
    """
    n, scale = settings["modes"], 2 * np.pi if boundary == "periodic" else np.pi
    whole = np.arange(-n if boundary == "periodic" else 0, n + 1)
    pairs = np.stack(np.meshgrid(whole, whole, indexing="ij")).reshape(2, -1).T
    pairs = pairs[pairs.any(axis=1)]
    waves = scale * pairs / LENGTH
    found = (np.sum(waves**2, axis=1) + settings["length_scale"] ** -2.0) ** -settings["smoothness"]
    return found, waves


def test_mean_and_standard_deviation_are_those_of_the_settings(boundary: Boundary) -> None:
    settings = GAUSSIAN | {"mean": 3.0, "std": 2.0}
    number = 400
    values = draws(settings, boundary, points(14, 14), number)
    np.testing.assert_allclose(values.mean(axis=(1, 2)), 3.0, rtol=1e-12)  # of every draw
    variances = ((values - 3.0) ** 2).mean(axis=(1, 2))
    error = variances.std() / np.sqrt(number)
    assert abs(variances.mean() - 4.0) < 4 * error < 0.4


def test_correlations_of_a_periodic_field_are_those_of_the_series() -> None:
    found, waves = eigenvalues(GAUSSIAN, "periodic")
    grid, number = points(14, 28), 600
    values = draws(GAUSSIAN, "periodic", grid, number)
    for shift in ((0, 1), (0, 5), (1, 0), (2, 3), (7, 14)):
        distance = np.array(shift) * [LENGTH[0] / 14, LENGTH[1] / 28]
        expected = np.sum(found * np.cos(waves @ distance)) / found.sum()
        measured = (values * np.roll(values, shift, (1, 2))).mean(axis=(1, 2))
        error = measured.std() / np.sqrt(number)
        assert abs(measured.mean() - expected) < 4 * error < 0.1, shift


def test_the_variance_between_walls_is_that_of_the_series_at_every_point() -> None:
    found, waves = eigenvalues(GAUSSIAN, "neumann")
    y, x = np.array([0.0, 0.31, 0.8]), np.array([0.0, 0.2, 0.65])
    number = 1500
    values = draws(GAUSSIAN, "neumann", [y, x], number)
    functions = [np.where(k > 0, np.sqrt(2), 1) * np.cos(np.outer(p, k))
                 for p, k in zip((y, x), waves.T, strict=True)]  # fmt: skip
    expected = np.einsum("k,yk,xk->yx", found, functions[0] ** 2, functions[1] ** 2) / found.sum()
    # The variance of an estimated variance v is 2 v^2 / number.
    np.testing.assert_allclose(
        (values**2).mean(axis=0) / expected, 1.0, atol=5 * (2 / number) ** 0.5
    )
    assert expected[0, 0] > 1.5 * expected[1, 1], "walls double the variance"


def test_in_a_large_box_correlations_fall_like_materns() -> None:
    # In a plane, smoothness 2 is nu = 1: (r / l) K_1(r / l), with K_1 as an integral.
    length, scale = (20.0, 20.0), 0.5
    n = 60
    settings = GAUSSIAN | {"modes": n, "length_scale": scale}
    whole = 2 * np.pi / 20 * np.arange(-n, n + 1)
    found = (whole[:, None] ** 2 + whole**2 + scale**-2.0) ** -2.0
    for distance in (0.25, 0.5, 1.0, 2 * np.sqrt(2) * scale):
        t = np.linspace(0.0, 12.0, 4001)
        bessel = np.sum(np.exp(-distance / scale * np.cosh(t)) * np.cosh(t)) * (t[1] - t[0])
        bessel -= 0.5 * np.exp(-distance / scale) * (t[1] - t[0])
        matern = distance / scale * bessel
        assert np.sum(found * np.cos(whole * distance)) / found.sum() == pytest.approx(
            matern, abs=0.01
        )
    assert 0.05 < matern < 0.2  # at sqrt(8 nu) length scales
    values = np.stack(
        [field(settings, seed, length=length)(*points(40, 40, length=length)) for seed in range(20)]
    )
    measured = (values * np.roll(values, 1, 2)).mean()  # a distance of one length scale
    assert measured == pytest.approx(1.0 * 0.6019, abs=0.05)


def test_more_modes_add_detail_to_the_same_field(boundary: Boundary) -> None:
    grid = points(30, 40)
    few, many = (field(GAUSSIAN | {"modes": n}, boundary=boundary)(*grid) for n in (6, 12))
    assert np.corrcoef(few.ravel(), many.ravel())[0, 1] > 0.98


def test_scales_change_nothing_else() -> None:
    grid = points(14, 20)
    unit = field(GAUSSIAN)(*grid)
    np.testing.assert_allclose(field(GAUSSIAN | {"mean": 2.0, "std": 3.0})(*grid), 2 + 3 * unit)
    log = {key: value for key, value in GAUSSIAN.items() if key != "kind"}
    values = field({"kind": "lognormal", "median": 2.0, "log_std": 0.7} | log)(*grid)
    np.testing.assert_allclose(values, 2 * np.exp(0.7 * unit))
    phases = field({"kind": "two_phase", "low": 3.0, "contrast": 4.0} | log)(*grid)
    np.testing.assert_array_equal(phases, np.where(unit > 0, 12.0, 3.0))


# The others.


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_larger_phase_has_its_share_of_the_box(share: float) -> None:
    settings = {"kind": "two_phase", "length_scale": 0.1, "modes": 8, "share": share}
    values = draws(settings, "periodic", points(20, 20), 200)
    np.testing.assert_array_equal(np.unique(values), [1.0, 4.0])
    shares = (values > 2).mean(axis=(1, 2))
    assert abs(shares.mean() - share) < 4 * shares.std() / np.sqrt(200) + 0.01


def test_cells_are_constant_and_within_the_contrast() -> None:
    settings = {"kind": "voronoi", "cells": 12, "low": 0.5, "contrast": 1000.0}
    many = [np.unique(field(settings, seed)(*points(60, 60))) for seed in range(40)]
    assert all(len(values) <= 12 for values in many)
    assert np.mean([len(values) for values in many]) > 11
    values = np.concatenate(many)
    assert 0.5 <= values.min() < 0.6
    assert 400 < values.max() <= 500
    logs = np.log(values / 0.5) / np.log(1000)
    assert np.mean(logs) == pytest.approx(0.5, abs=4 / np.sqrt(12 * values.size))


def test_every_point_of_a_cell_is_nearest_to_its_centre(boundary: Boundary) -> None:
    settings = {"kind": "voronoi", "cells": 5}
    rng = np.random.default_rng(3)  # as the field draws: first the centres, then the values
    centres = rng.random((5, 2)) * LENGTH
    worth = 100.0 ** rng.random(5)
    y, x = points(17, 23)
    apart = [np.abs(p[:, None] - c) for p, c in zip((y, x), centres.T, strict=True)]
    if boundary == "periodic":
        apart = [np.minimum(d, size - d) for d, size in zip(apart, LENGTH, strict=True)]
    nearest = np.argmin(apart[0][:, None] ** 2 + apart[1][None] ** 2, axis=-1)
    np.testing.assert_allclose(field(settings, boundary=boundary)(y, x), worth[nearest])


def test_sines_have_few_waves_and_bounded_amplitudes() -> None:
    settings = {"kind": "sines", "amplitude": 0.5, "waves": 3, "terms": 4}
    for seed in range(20):
        values = field(settings, seed)(*points(32, 32))
        spectrum = np.fft.rfft2(values) / values.size
        assert abs(values.mean()) < 1e-14
        assert np.abs(values).max() <= 2.0
        rest = np.abs(spectrum)
        rest[np.ix_([-3, -2, -1, 0, 1, 2, 3], range(4))] = 0.0
        assert rest.max() < 1e-14
        assert np.count_nonzero(np.abs(spectrum[:, 1:]) > 1e-12) <= 4


def test_sines_between_walls_are_cosines() -> None:
    y, x = points(40, 40)
    values = field({"kind": "sines", "waves": 2, "terms": 3}, boundary="neumann")(y, x)
    cosines = [np.cos(np.pi * np.outer(np.arange(3), p / size))
               for p, size in zip((y, x), LENGTH, strict=True)]  # fmt: skip
    basis = np.einsum("ky,lx->klyx", *cosines).reshape(9, -1)
    weights, *_ = np.linalg.lstsq(basis.T, values.ravel(), rcond=None)
    np.testing.assert_allclose(weights @ basis, values.ravel(), atol=1e-12)
    assert abs(weights[0]) < 1e-12, "the constant"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gaussian", "length_scale": 0}, "length_scale: Input should be greater than 0"),
        ({"kind": "gaussian", "smoothness": 1.0}, "smoothness: Input should be greater than 1"),
        ({"kind": "gaussian", "smoothness": 11}, "should be less than or equal to 10"),
        ({"kind": "gaussian", "modes": 0}, "modes: Input should be greater than or equal to 1"),
        ({"kind": "gaussian", "modes": 513}, "should be less than or equal to 512"),
        ({"kind": "gaussian", "std": -1.0}, "std: Input should be greater than or equal to 0"),
        ({"kind": "gaussian", "sdt": 1.0}, "sdt: Extra inputs are not permitted"),
        ({"kind": "lognormal", "median": 0}, "median: Input should be greater than 0"),
        ({"kind": "lognormal", "log_std": -1}, "should be greater than or equal to 0"),
        ({"kind": "two_phase", "contrast": 0.5}, "should be greater than or equal to 1"),
        ({"kind": "two_phase", "share": 1.0}, "share: Input should be less than 1"),
        ({"kind": "two_phase", "low": 0.0}, "low: Input should be greater than 0"),
        ({"kind": "voronoi", "cells": 0}, "cells: Input should be greater than or equal to 1"),
        ({"kind": "sines", "waves": 0}, "waves: Input should be greater than or equal to 1"),
        ({"kind": "sines", "terms": 1001}, "terms: Input should be less than or equal to 1000"),
        ({"kind": "sines", "amplitude": -1}, "should be greater than or equal to 0"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    (model,) = [m for m in AnyFieldConfig.__args__ if m().kind == settings["kind"]]
    with pytest.raises(ValidationError) as caught:
        model.model_validate(settings)
    (error,) = caught.value.errors()
    assert message in f"{error['loc'][-1]}: {error['msg']}"
