"""What a study may say about ``kind: navier_stokes``, and what it is told when that is refused."""

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.navier_stokes import NavierStokesConfig
from solvers.numerics.random_fields import draw
from solvers.pdes.navier_stokes import NavierStokes
from solvers.petsc import self_communicator
from tests.refusals import refusal

VALUES = {"viscosity": 1e-3, "forcing": 0.1, "seed": 3.0}
SMALL = NavierStokesConfig.model_validate(
    {"grid": (12, 20), "steps": 4, "dt": 0.1, "initial": {"kind": "gaussian", "modes": 5}}
)


def test_waves_that_the_grid_cannot_hold_are_refused_with_what_to_do() -> None:
    message = refusal(NavierStokesConfig, {"grid": [24, 40]})
    assert "initial.modes=16 does not fit on grid=[24, 40]" in message
    assert "Give at most 12, or a grid of at least 32 points per axis" in message
    assert "initial.waves=7" in refusal(
        NavierStokesConfig, {"grid": [12, 40], "initial": {"kind": "sines", "waves": 7}}
    )


def test_what_is_announced() -> None:
    config = NavierStokesConfig(grid=(32, 40), length=(1.6, 4.0), steps=7, dt=0.5)
    spec = config.spec()
    assert (spec.names, spec.units, spec.inputs) == (("vorticity",), ("1/s",), ())
    assert spec.sample_shape == (1, 32, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)
    names = {p.name: (p.unit, p.seed) for p in config.parameters()}
    assert names == {
        "viscosity": ("m^2/s", False), "forcing": ("1/s^2", False), "seed": ("1", True),
    }  # fmt: skip


def test_the_default_start_is_that_of_the_benchmark() -> None:
    # N(0, 7^(3/2) (-lap + 49)^(-5/2)) on the periodic unit square, without the constant.
    k = 2 * np.pi * np.arange(-200, 201)
    variances = (k[:, None] ** 2 + k**2 + 49.0) ** -2.5
    variances[200, 200] = 0.0
    initial = NavierStokesConfig().initial
    assert initial.kind == "gaussian"
    assert (initial.length_scale, initial.smoothness) == (1 / 7, 2.5)
    assert initial.std == pytest.approx(np.sqrt(7**1.5 * variances.sum()), rel=2e-3)
    kept = variances[
        200 - initial.modes : 201 + initial.modes, 200 - initial.modes : 201 + initial.modes
    ]
    assert kept.sum() > 0.999 * variances.sum()


@pytest.mark.petsc
def test_the_first_snapshot_is_the_field_of_the_seed() -> None:
    solver = NavierStokes(SMALL)
    fields = next(solver.run(VALUES, self_communicator())).fields
    solver.close()
    y, x = np.arange(12) / 12, np.arange(20) / 20
    expected = draw(SMALL.initial, 3.0, length=(1.0, 1.0), boundary="periodic")(y, x)
    np.testing.assert_allclose(fields[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.petsc
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"viscosity": -1e-4}, r"viscosity=-0.0001 m\^2/s: must not be negative"),
        ({"seed": -1.0}, r"seed=-1: need 0 <= seed"),
    ],
)
def test_values_that_cannot_be_computed_with(changed: dict[str, float], message: str) -> None:
    solver = NavierStokes(SMALL)
    with pytest.raises(SolverFailed, match=message):
        solver.run(VALUES | changed, self_communicator())
    solver.close()


@pytest.mark.petsc
def test_options_that_are_not_used_or_not_known_are_refused() -> None:
    for options, message in (
        ("-ksp_tpye cg", "did not use -ksp_tpye"),
        ("-ksp_type no_such_method", "no_such_method"),
    ):
        solver = NavierStokes(SMALL.model_copy(update={"petsc_options": options}))
        with pytest.raises(ValueError, match=message):
            solver.run(VALUES, self_communicator())
        solver.close()


@pytest.mark.petsc
def test_a_member_ends_when_the_next_one_begins_or_its_solver_is_closed() -> None:
    solver = NavierStokes(SMALL)
    first = solver.run(VALUES, self_communicator())
    next(first)
    second = solver.run(VALUES, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)
    assert [next(second).step for _ in range(3)] == [0, 1, 2]
    solver.close()
    with pytest.raises(RuntimeError, match="stopped at solver step 3"):
        next(second)
