"""What only the cavity solver promises: Newton's method, when it is renewed and how it fails."""

import traceback
from collections.abc import Iterator

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.cavity import CavityConfig
from solvers.numerics.newton import solve_newton
from solvers.pdes.cavity import Cavity
from solvers.petsc import PETSc, self_communicator

pytestmark = pytest.mark.petsc

CONFIG = CavityConfig(grid=(12, 20), steps=6, dt=0.05, length=(0.8, 1.3))
VALUES = {"reynolds": 120.0, "lid_speed": 1.4}


@pytest.fixture
def solver() -> Iterator[Cavity]:
    built = Cavity(CONFIG)
    yield built
    built.close()


def last(config: CavityConfig, values: dict[str, float] = VALUES) -> np.ndarray:
    solver = Cavity(config)
    *_, snapshot = solver.run(values, self_communicator())
    solver.close()
    return snapshot.fields


def test_a_member_ends_when_the_next_one_begins(solver: Cavity) -> None:
    first = solver.run(VALUES, self_communicator())
    next(first)
    solver.run(VALUES, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)


def test_the_initial_state_is_at_rest(solver: Cavity) -> None:
    first = next(solver.run(VALUES, self_communicator()))
    np.testing.assert_array_equal(first.fields, np.zeros((3, 12, 20), np.float32))


def test_the_lid_drags_the_fluid_below_it(solver: Cavity) -> None:
    *_, snapshot = solver.run(VALUES, self_communicator())
    u, v, vorticity = snapshot.fields
    assert 0.0 < u[-1].max() < VALUES["lid_speed"]
    assert u[0].max() <= 0.0
    assert v[6, 0] > 0.0 > v[6, -1]
    assert vorticity[-1, 10] < 0.0


def test_one_rank_owns_the_whole_grid(solver: Cavity) -> None:
    assert solver.box(self_communicator()) == (slice(0, 12), slice(0, 20))


def test_another_communicator_is_set_up_anew(solver: Cavity) -> None:
    (*_, expected) = solver.run(VALUES, self_communicator())
    other = PETSc.COMM_SELF.duplicate()
    (*_, computed) = solver.run(VALUES, other)
    np.testing.assert_array_equal(computed.fields, expected.fields)
    solver.close()
    other.destroy()


@pytest.mark.parametrize("name", ["reynolds", "lid_speed"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_parameters_are_positive(solver: Cavity, name: str, value: float) -> None:
    with pytest.raises(SolverFailed, match=rf"{name}={value:g} .*: must be positive; meant for \["):
        solver.run(VALUES | {name: value}, self_communicator())


@pytest.mark.parametrize(
    "options",
    [
        "-ksp_type gmres -pc_type ilu",
        "-snes_mf_operator -ksp_type gmres",
        "-snes_linesearch_type bt",
    ],
)
@pytest.mark.parametrize("mode", ["steady", "unsteady"])
def test_the_choice_of_solver_does_not_show(mode: str, options: str) -> None:
    config = CONFIG.model_copy(update={"mode": mode})
    computed = last(config.model_copy(update={"petsc_options": options}))
    np.testing.assert_allclose(computed, last(config), rtol=1e-6, atol=2e-6)


def test_old_factorisations_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = last(CONFIG)
    monkeypatch.setattr("solvers.pdes.cavity._QUICK", 0)  # a new one in every step
    np.testing.assert_allclose(last(CONFIG), expected, rtol=1e-6, atol=1e-6)


def test_an_old_factorisation_that_fails_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, calls = last(CONFIG), []

    def fails_at_first(*args: object, **keywords: object) -> int:
        calls.append(keywords["step"])
        if calls.count(4) == 1 and keywords["step"] == 4:
            args[1].set(np.nan)  # type: ignore[attr-defined]
            raise SolverFailed("as if the old factorisation would not do")
        return solve_newton(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr("solvers.pdes.cavity.solve_newton", fails_at_first)
    np.testing.assert_allclose(last(CONFIG), expected, rtol=1e-6, atol=1e-6)
    assert calls == [1, 1, 2, 3, 4, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-snes_max_it 1", r"DIVERGED_MAX_IT after 1 iterations"),
        (
            "-ksp_type gmres -pc_type none -ksp_max_it 1",
            r"DIVERGED_LINEAR_SOLVE after 0 iterations \(KSP DIVERGED_ITS: -ksp_type gmres -pc_",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["steady", "unsteady"])
def test_a_diverged_solve_names_petscs_reasons(mode: str, options: str, reason: str) -> None:
    config = CONFIG.model_copy(update={"mode": mode, "petsc_options": options})
    solver = Cavity(config)
    with pytest.raises(SolverFailed, match=rf"nonlinear solve failed at solver step 1.*: {reason}"):
        list(solver.run(VALUES, self_communicator()))
    solver.close()


def test_options_that_petsc_does_not_know_are_refused() -> None:
    solver = Cavity(CONFIG.model_copy(update={"petsc_options": "-snes_tpye newtontr"}))
    before = set(PETSc.Options().getAll())
    with pytest.raises(ValueError, match=r"did not use -snes_tpye"):
        solver.run(VALUES, self_communicator())
    solver = Cavity(CONFIG.model_copy(update={"petsc_options": "-ksp_type gmers"}))
    with pytest.raises(ValueError, match=r"PETSc cannot set up this nonlinear solver: .*gmers"):
        solver.run(VALUES, self_communicator())
    assert set(PETSc.Options().getAll()) == before


def test_a_state_that_overflows_fails() -> None:
    solver = Cavity(CONFIG, source=lambda x, y, t: np.full((12, 20), np.inf))
    with pytest.raises(SolverFailed, match=r"solver step 1, time 0\.05 s: DIVERGED_F"):
        list(solver.run(VALUES, self_communicator()))
    solver.close()


def test_a_source_that_raises_shows_where() -> None:
    def wrong(x: np.ndarray, y: np.ndarray, time: float) -> np.ndarray:
        raise ZeroDivisionError("in the source")

    solver = Cavity(CONFIG, source=wrong)
    with pytest.raises(ZeroDivisionError, match="in the source") as caught:
        list(solver.run(VALUES, self_communicator()))
    assert "in wrong" in "".join(traceback.format_exception(caught.value))
    solver.close()
