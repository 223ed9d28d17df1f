"""Arakawa's advection term: what it conserves, and that it is of second order."""

import numpy as np
from numpy.typing import NDArray

from solvers.numerics.arakawa import jacobian
from tests.numerics.fitted_order import assert_order

Array = NDArray[np.float64]


def periodic(a: Array, b: Array, area: float = 0.01) -> Array:
    """J of two fields on a periodic grid."""
    return jacobian(np.pad(a, 1, mode="wrap"), np.pad(b, 1, mode="wrap"), area=area)


def random_fields() -> tuple[Array, Array]:
    a, b = np.random.default_rng(3).normal(size=(2, 12, 20))
    return a, b


def test_sums_of_itself_and_of_its_products_with_either_field_are_zero() -> None:
    a, b = random_fields()
    j = periodic(a, b)
    size = np.abs(j).sum()
    for product in (j, a * j, b * j):
        assert abs(product.sum()) < 1e-14 * size


def test_it_changes_sign_with_the_order_of_its_arguments() -> None:
    a, b = random_fields()
    np.testing.assert_allclose(periodic(a, b), -periodic(b, a), atol=1e-12)
    np.testing.assert_allclose(periodic(a, a), 0.0, atol=1e-12)


def test_it_is_exact_for_linear_fields_and_has_the_sign_it_says() -> None:
    y, x = np.mgrid[0:5, 0:7] * np.array([0.2, 0.5]).reshape(2, 1, 1)
    a, b = 2 * x + 3 * y, 5 * x - 4 * y
    np.testing.assert_allclose(jacobian(a, b, area=0.1), np.full((3, 5), 2 * -4 - 3 * 5))


def test_it_is_of_second_order() -> None:
    errors, grids = [], [(12, 20), (24, 40), (48, 80)]
    for ny, nx in grids:
        y, x = np.arange(ny)[:, None] * 2 * np.pi / ny, np.arange(nx)[None, :] * 2 * np.pi / nx
        a, b = np.sin(x + 2 * y), np.cos(2 * x) * np.sin(y)
        exact = np.cos(x + 2 * y) * (np.cos(2 * x) * np.cos(y) + 4 * np.sin(2 * x) * np.sin(y))
        found = periodic(a, b, area=4 * np.pi**2 / (ny * nx))
        errors.append(float(np.sqrt(np.mean((found - exact) ** 2))))
    assert_order(2.0, [1 / ny for ny, _ in grids], errors)
