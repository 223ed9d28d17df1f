"""What a study may say about ``kind: gray_scott``, and what it is told when that is refused."""

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.gray_scott import GrayScottConfig
from solvers.pdes.gray_scott import GrayScott
from solvers.petsc import self_communicator
from tests.refusals import refusal

PEARSON = {"F": 0.04, "k": 0.06}
SMALL = GrayScottConfig(grid=(12, 20), length=(0.3, 0.5), steps=4, spots=2)


def initial(config: GrayScottConfig) -> np.ndarray:
    solver = GrayScott(config)
    fields = next(solver.run(PEARSON, self_communicator())).fields
    solver.close()
    return fields


def test_a_step_past_the_limit_is_refused_with_the_limit_and_what_to_do() -> None:
    message = refusal(GrayScottConfig, {"grid": [64, 64], "dt": 1.5})
    assert "dt=1.5 is unstable" in message
    assert "= 0.734 (hy=0.00781, hx=0.00781, D=2e-05). Reduce dt or the grid" in message
    assert "hy=0.0156, hx=0.00781" in refusal(GrayScottConfig, {"grid": [32, 64], "dt": 2.0})
    assert "D=0.0005" in refusal(GrayScottConfig, {"diffusion_v": 5e-4})
    # Diffusion alone would allow 3.19; with the reaction u becomes a checkerboard from t=192 on.
    assert "dt=4 is unstable" in refusal(
        GrayScottConfig, {"grid": [32, 32], "length": [0.5, 0.5], "dt": 4.0}
    )


@pytest.mark.parametrize("options", ["-ts_type cn", "-ts_rk_type 3bs"])
def test_another_scheme_has_another_limit(options: str) -> None:
    assert GrayScottConfig(grid=(128, 128), dt=1.5, petsc_options=options).dt == 1.5


def test_what_is_announced() -> None:
    config = GrayScottConfig(grid=(24, 40), length=(1.2, 4.0), steps=7, dt=0.5)
    spec = config.spec()
    assert (spec.names, spec.units) == (("u", "v"), ("1", "1"))
    assert spec.sample_shape == (2, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_feed_and_kill_tell_members_apart() -> None:
    assert [(p.name, p.unit) for p in GrayScottConfig().parameters()] == [("F", "1"), ("k", "1")]
    assert all(p.low < PEARSON[p.name] < p.high for p in GrayScottConfig().parameters())


@pytest.mark.petsc
def test_the_spots_follow_from_the_seed_alone() -> None:
    coarse = initial(SMALL)
    fine = initial(SMALL.model_copy(update={"grid": (24, 40)}))
    np.testing.assert_array_equal(fine[:, ::2, ::2], coarse)
    assert not np.allclose(initial(SMALL.model_copy(update={"seed": 1})), coarse)


@pytest.mark.petsc
def test_the_spots_have_pearsons_concentrations() -> None:
    u, v = initial(GrayScottConfig(spots=1))
    np.testing.assert_allclose(u, 1 - 2 * v, atol=1e-6)
    assert v.min() < 1e-3
    assert 0.24 < v.max() <= 0.25


@pytest.mark.petsc
def test_options_that_would_change_the_times_or_are_not_used_are_refused() -> None:
    for options, message in (
        ("-ts_dt 3", "-ts_dt would change the times"),
        ("-ts_type no_such_scheme", "Unknown TS type: no_such_scheme"),
        ("-ts_type cn -mg_levels_ksp_type cg", "did not use -mg_levels_ksp_type"),
        ("-ts_tpye cn", "did not use -ts_tpye"),
    ):
        solver = GrayScott(SMALL.model_copy(update={"petsc_options": options}))
        with pytest.raises(ValueError, match=message):
            solver.run(PEARSON, self_communicator())
        solver.close()


@pytest.mark.petsc
def test_options_inside_a_preconditioner_are_used() -> None:
    options = "-ts_type cn -pc_type gamg -mg_levels_ksp_type richardson -mg_levels_pc_type sor"
    solver = GrayScott(SMALL.model_copy(update={"petsc_options": options}))
    assert len(list(solver.run(PEARSON, self_communicator()))) == 5
    solver.close()


@pytest.mark.petsc
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-ksp_max_it 1 -pc_type none", "SNES DIVERGED_LINEAR_SOLVE .* KSP DIVERGED_"),
        ("-snes_max_it 1 -snes_rtol 1e-14", "SNES DIVERGED_MAX_IT after 1 iterations"),
    ],
)
def test_an_implicit_step_that_diverges_fails_with_petscs_reasons(
    options: str, reason: str
) -> None:
    solver = GrayScott(SMALL.model_copy(update={"petsc_options": f"-ts_type cn {options}"}))
    for _ in range(2):
        snapshots = solver.run(PEARSON, self_communicator())
        assert next(snapshots).step == 0
        with pytest.raises(SolverFailed, match=f"solver step 1, time 0.5 s: .*{reason}"):
            next(snapshots)
    solver.close()


@pytest.mark.petsc
def test_a_member_ends_when_the_next_one_begins_or_its_solver_is_closed() -> None:
    solver = GrayScott(SMALL)
    first = solver.run(PEARSON, self_communicator())
    next(first)
    second = solver.run(PEARSON, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)
    assert [next(second).step for _ in range(3)] == [0, 1, 2]
    solver.close()
    with pytest.raises(RuntimeError, match="stopped at solver step 3"):
        next(second)


@pytest.mark.petsc
def test_a_field_that_blows_up_fails_without_a_warning() -> None:
    solver = GrayScott(SMALL.model_copy(update={"steps": 200}))
    with pytest.raises(SolverFailed, match=r"not finite at solver step \d+, time"):
        list(solver.run({"F": -3.0, "k": 0.0}, self_communicator()))
    assert len(list(solver.run(PEARSON, self_communicator()))) == 201
    solver.close()
