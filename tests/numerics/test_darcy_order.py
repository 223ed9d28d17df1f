"""Darcy flow against manufactured and exact solutions: fitted orders, layers, what flows out."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from solvers.base import Snapshot, SolverFailed
from solvers.configs.darcy import DarcyConfig
from solvers.pdes.darcy import Darcy, Field
from solvers.petsc import self_communicator
from tests.numerics.fitted_order import assert_order

pytestmark = pytest.mark.petsc

Array = NDArray[np.float64]
LENGTH = (0.8, 1.3)  # (y, x)
KY, KX = np.pi / np.array(LENGTH)  # of half a wave
KINDS: list[dict[str, Any]] = [
    {"kind": "two_phase", "modes": 6},
    {"kind": "voronoi", "cells": 9, "contrast": 1e4},
    {"kind": "lognormal", "modes": 6, "log_std": 1.5},
]
GRIDS = [(12, 20), (24, 40), (48, 80)]


def solved(
    grid: tuple[int, int], *, coefficient: Field | None = None, source: Field | None = None,
    forcing: float = 1.0, seed: float = 3.0, petsc_options: str = "",
    length: tuple[float, float] = LENGTH, drawn: dict[str, Any] = KINDS[0],
) -> Snapshot:  # fmt: skip
    config = DarcyConfig.model_validate(
        {"grid": grid, "length": length, "petsc_options": petsc_options, "coefficient": drawn}
    )
    solver = Darcy(config, coefficient=coefficient, source=source)
    *_, last = solver.run({"forcing": forcing, "seed": seed}, self_communicator())
    solver.close()
    return last


def points(grid: tuple[int, int]) -> tuple[Array, Array]:
    """``(1, x)`` and ``(y, 1)``."""
    (ny, nx), (ly, lx) = grid, LENGTH
    return (np.arange(nx)[None, :] + 0.5) * lx / nx, (np.arange(ny)[:, None] + 0.5) * ly / ny


def root_mean_square(error: Array) -> float:
    return float(np.sqrt(np.mean(error**2)))


def smooth(x: Array, y: Array) -> Array:
    return np.asarray(np.exp(0.8 * np.sin(2 * KX * x + 1) * np.cos(KY * y)))


def hill(x: Array, y: Array) -> Array:
    return np.asarray(np.sin(KX * x) * np.sin(2 * KY * y))


def source_of_the_hill(x: Array, y: Array) -> Array:
    """-div(a grad p) = -a (lap p + grad log a . grad p)."""
    log_x = 1.6 * KX * np.cos(2 * KX * x + 1) * np.cos(KY * y)
    log_y = -0.8 * KY * np.sin(2 * KX * x + 1) * np.sin(KY * y)
    p_x = KX * np.cos(KX * x) * np.sin(2 * KY * y)
    p_y = 2 * KY * np.sin(KX * x) * np.cos(2 * KY * y)
    lap = -(KX**2 + 4 * KY**2) * hill(x, y)
    return np.asarray(-smooth(x, y) * (lap + log_x * p_x + log_y * p_y))


def test_second_order_for_a_smooth_coefficient() -> None:
    errors = []
    for grid in GRIDS:
        found = solved(grid, coefficient=smooth, source=source_of_the_hill)
        errors.append(root_mean_square(found.fields[0] - hill(*points(grid))))
    assert_order(2.0, [1 / ny for ny, _ in GRIDS], errors)


# Layers across x, with a jump at a face of every grid: 1000 between 0.39 m and 0.91 m, else 1.
INNER = (0.3 * LENGTH[1], 0.7 * LENGTH[1])


def layered(x: Array, y: Array) -> Array:
    a = np.where((x > INNER[0]) & (x < INNER[1]), 1000.0, 1.0)
    return np.asarray(a + 0 * y)


def ramp(x: Array, top: float) -> Array:
    """Pressure through the layers in series, from 0 at both walls to its largest at ``top``."""

    def resistance(at: Array | float) -> Array:
        inside = np.clip(at, *INNER) - INNER[0]
        return np.asarray((at - inside) + inside / 1000.0)

    up, whole = resistance(x), resistance(LENGTH[1])
    peak = resistance(top)
    return np.asarray(np.minimum(up / peak, (whole - up) / (whole - peak)))


@pytest.mark.parametrize("grid", [(4, 10), (7, 30), (12, 20)])
def test_layers_in_series_are_exact_on_any_grid(grid: tuple[int, int]) -> None:
    # Along x the pressure is linear in every layer, with a kink at one point, where the source is;
    # along y it is half a wave, an eigenfunction of the stencil.
    (x, y), column = points(grid), grid[1] // 5
    hy, hx = LENGTH[0] / grid[0], LENGTH[1] / grid[1]
    top = float(x[0, column])
    wave, shape = np.sin(KY * y), ramp(x, top)
    rate = (2 / hy * np.sin(KY * hy / 2)) ** 2
    left, right = (ramp(np.array(top + side * 1e-6), top) for side in (-1, 1))
    inflow = (2 - left - right) / 1e-6 / hx  # a = 1 there

    def source(x: Array, y: Array) -> Array:
        at_top = np.abs(x - top) < hx / 2
        return np.asarray((layered(x, y) * rate * ramp(x, top) + inflow * at_top) * np.sin(KY * y))

    assert x[0, column] < INNER[0]
    found = solved(grid, coefficient=layered, source=source)
    np.testing.assert_allclose(found.fields[0], wave * shape, rtol=2e-6, atol=1e-7)


def test_second_order_across_jumps_at_faces() -> None:
    middle = LENGTH[1] / 2

    def halves(x: Array, y: Array) -> Array:
        return np.asarray(np.where(x < middle, 1.0, 20.0) + 0 * y)

    def pressure(x: Array, y: Array) -> Array:
        # In the middle it is 0 and a p_x the same on both sides.
        return np.asarray(np.sin(2 * KX * x) / halves(x, y) * np.sin(KY * y))

    def source(x: Array, y: Array) -> Array:
        return np.asarray((4 * KX**2 + KY**2) * halves(x, y) * pressure(x, y))

    errors = []
    for grid in GRIDS:
        found = solved(grid, coefficient=halves, source=source)
        errors.append(root_mean_square(found.fields[0] - pressure(*points(grid))))
    assert_order(2.0, [1 / ny for ny, _ in GRIDS], errors)


def test_the_known_maximum_of_the_unit_square() -> None:
    # a = f = 1: 0.0736713 in the middle, from the double sine series.
    odd = np.arange(1, 400, 2)
    signs = (-1.0) ** ((odd - 1) / 2)
    series = np.outer(signs / odd, signs / odd) / (odd[:, None] ** 2 + odd**2)
    exact = 16 / np.pi**4 * series.sum()
    found = solved(
        (101, 101), coefficient=lambda x, y: np.ones((y.size, x.size)), length=(1.0, 1.0)
    )
    assert found.fields[0].max() == pytest.approx(exact, rel=2e-4)
    assert exact == pytest.approx(0.07367, abs=1e-5)


@pytest.mark.parametrize("drawn", KINDS, ids=lambda settings: str(settings["kind"]))
def test_what_flows_in_flows_out(drawn: dict[str, Any]) -> None:
    grid = (24, 40)
    p, a = solved(grid, drawn=drawn, forcing=1.5).fields.astype(np.float64)
    hy, hx = LENGTH[0] / grid[0], LENGTH[1] / grid[1]
    out = hx / (hy / 2) * (a[0] * p[0] + a[-1] * p[-1]).sum()
    out += hy / (hx / 2) * (a[:, 0] * p[:, 0] + a[:, -1] * p[:, -1]).sum()
    assert out == pytest.approx(1.5 * LENGTH[0] * LENGTH[1], rel=1e-5)
    assert p.min() > 0.0
    assert a.max() / a.min() > 3.0


@pytest.mark.parametrize("options", ["-ksp_type cg -pc_type gamg", "-ksp_type cg -pc_type icc"])
@pytest.mark.parametrize("drawn", KINDS, ids=lambda settings: str(settings["kind"]))
def test_the_choice_of_solver_does_not_show(drawn: dict[str, Any], options: str) -> None:
    expected = solved((24, 40), drawn=drawn)
    found = solved((24, 40), drawn=drawn, petsc_options=options)
    assert found.iterations > expected.iterations == 1
    np.testing.assert_allclose(found.fields, expected.fields, rtol=1e-5)


def test_the_pressure_is_linear_in_the_forcing() -> None:
    one, two = (solved((12, 20), forcing=f).fields for f in (0.5, -1.5))
    np.testing.assert_allclose(two[0], -3 * one[0], rtol=1e-5)
    np.testing.assert_array_equal(two[1], one[1])


def test_a_coefficient_that_overflows_is_refused() -> None:
    config = DarcyConfig.model_validate(
        {"grid": [12, 20], "coefficient": {"kind": "lognormal", "modes": 5, "log_std": None}}
    )
    solver = Darcy(config)
    values = {"forcing": 1.0, "seed": 1.0, "log_std": 1e4}
    with pytest.raises(SolverFailed, match="field is not finite at solver step 0"):
        next(solver.run(values, self_communicator()))
    with pytest.raises(SolverFailed, match="log_std=-1: must be at least 0"):
        solver.run(values | {"log_std": -1.0}, self_communicator())
    assert len(list(solver.run(values | {"log_std": 1.0}, self_communicator()))) == 2
    solver.close()
