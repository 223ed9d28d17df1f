"""The line under burgers and kuramoto_sivashinsky: one factorisation, Courant steps, turns, limits.

What both solvers promise alike is tested on both.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.burgers import BurgersConfig
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.numerics.periodic_line import MOST_STEPS, PeriodicLine
from solvers.pdes.burgers import Burgers
from solvers.pdes.kuramoto_sivashinsky import KuramotoSivashinsky
from solvers.petsc import Owned, PETSc, self_communicator

pytestmark = pytest.mark.petsc

OnLine = Burgers | KuramotoSivashinsky
VALUES = {"amplitude": 0.5, "seed": 3.0}
BURGERS = VALUES | {"alpha": 1.0, "beta": 0.1, "gamma": 0.2}
STENCIL = np.array([0.0, 0.0, -4.0, 8.0, -4.0, 0.0, 0.0])  # -u_xx with a spacing of 1/2


def made(kind: str, **settings: object) -> tuple[OnLine, dict[str, float]]:
    common = {"grid": [20], "steps": 4, "dt": 0.1, "length": 13.0} | settings
    if kind == "burgers":
        return Burgers(BurgersConfig.model_validate(common)), BURGERS
    return KuramotoSivashinsky(KuramotoSivashinskyConfig.model_validate(common)), VALUES


@pytest.fixture(params=["burgers", "kuramoto_sivashinsky"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[OnLine, dict[str, float]]]:
    solver, values = made(request.param)
    yield solver, values
    solver.close()


@pytest.fixture
def line() -> Iterator[PeriodicLine]:
    with Owned() as owned:
        yield PeriodicLine(12, "", self_communicator(), owned)


def test_a_member_ends_when_the_next_one_begins(pair: tuple[OnLine, dict[str, float]]) -> None:
    solver, values = pair
    first = solver.run(values, self_communicator())
    next(first)
    solver.run(values, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)


def test_a_member_that_never_began_leaves_the_next_one_alone(
    pair: tuple[OnLine, dict[str, float]],
) -> None:
    solver, values = pair
    never = solver.run(values, self_communicator())
    second = solver.run(values, self_communicator())
    next(second)
    with pytest.raises(RuntimeError, match="stopped at solver step 0"):
        next(never)
    assert next(second).step == 1


def test_a_member_ends_when_its_solver_is_closed(pair: tuple[OnLine, dict[str, float]]) -> None:
    solver, values = pair
    snapshots = solver.run(values, self_communicator())
    next(snapshots)
    solver.close()
    with pytest.raises(RuntimeError, match="stopped at solver step 1"):
        next(snapshots)


def test_another_communicator_is_set_up_anew(pair: tuple[OnLine, dict[str, float]]) -> None:
    solver, values = pair
    (*_, expected) = solver.run(values, self_communicator())
    other = PETSc.COMM_SELF.duplicate()
    (*_, computed) = solver.run(values, other)
    np.testing.assert_array_equal(computed.fields, expected.fields)
    solver.close()
    other.destroy()


def test_one_rank_owns_the_whole_line(pair: tuple[OnLine, dict[str, float]]) -> None:
    assert pair[0].box(self_communicator()) == (slice(0, 20),)


@pytest.mark.parametrize("kind", ["burgers", "kuramoto_sivashinsky"])
@pytest.mark.parametrize(
    "options", ["-ksp_type gmres -pc_type ilu -ksp_rtol 1e-10", "-snes_type newtonls"]
)
def test_the_choice_of_linear_solver_does_not_show(kind: str, options: str) -> None:
    fields = []
    for petsc_options in ("", options):
        solver, values = made(kind, petsc_options=petsc_options)
        (*_, last) = solver.run(values, self_communicator())
        fields.append(last.fields)
        solver.close()
    np.testing.assert_allclose(fields[0], fields[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["burgers", "kuramoto_sivashinsky"])
def test_options_inside_a_preconditioner_are_read(kind: str) -> None:
    solver, values = made(kind, petsc_options="-pc_type redundant -redundant_pc_type lu")
    assert next(solver.run(values, self_communicator())).step == 0
    solver.close()
    solver, values = made(kind, petsc_options="-pc_type redundant -rebundant_pc_type lu")
    with pytest.raises(ValueError, match="did not use -rebundant_pc_type"):
        solver.run(values, self_communicator())


def test_a_failed_member_does_not_spoil_the_next(pair: tuple[OnLine, dict[str, float]]) -> None:
    solver, values = pair
    expected = [s.fields for s in solver.run(values, self_communicator())]
    with pytest.raises(SolverFailed, match=r"too fast at solver step 1, time 0\.1 s"):
        list(solver.run(values | {"amplitude": 1e9}, self_communicator()))
    computed = [s.fields for s in solver.run(values, self_communicator())]
    np.testing.assert_array_equal(computed, expected)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_burgers_coefficients_are_not_negative(name: str) -> None:
    solver, values = made("burgers")
    with pytest.raises(SolverFailed, match=rf"{name}=-0.1: need {name} >= 0"):
        solver.run(values | {name: -0.1}, self_communicator())


def still(_time: float, ghosted: np.ndarray) -> np.ndarray:
    """N = 0."""
    return np.zeros(len(ghosted) - 6)


def test_members_with_equal_stencils_share_a_factorisation(line: PeriodicLine) -> None:
    before = line.factorisations
    for member in range(3):
        line.set_linear(STENCIL)
        line.start(np.arange(12.0) + member, still, dt=0.1)
        for step in range(1, 4):
            line.advance(step, dt=0.1, courant=lambda _u: 0.0)
    assert line.factorisations == before + 1
    line.set_linear(2 * STENCIL)
    line.advance(4, dt=0.1, courant=lambda _u: 0.0)
    assert line.factorisations == before + 2


def steps_taken(line: PeriodicLine, courant: float) -> int:
    stages: list[float] = []

    def explicit(time: float, ghosted: np.ndarray) -> np.ndarray:
        stages.append(time)
        return still(time, ghosted)

    line.set_linear(STENCIL)
    line.start(np.ones(12), explicit, dt=0.1)
    line.advance(1, dt=0.1, courant=lambda _u: courant)
    assert max(stages) == pytest.approx(0.1)
    return len(stages) // 4


@pytest.mark.parametrize(("courant", "count"), [(0.0, 1), (0.8, 1), (0.81, 2), (8.0, 10)])
def test_the_courant_number_sets_the_steps(line: PeriodicLine, courant: float, count: int) -> None:
    assert steps_taken(line, courant) == count


def test_too_fast_a_state_is_refused(line: PeriodicLine) -> None:
    for courant in (0.8 * MOST_STEPS + 1, np.nan, np.inf):
        with pytest.raises(SolverFailed, match=r"too fast at solver step 1, time 0\.1 s: magn"):
            steps_taken(line, courant)


def test_the_courant_number_is_told_the_largest_magnitude(line: PeriodicLine) -> None:
    seen: list[float] = []

    def courant(largest: float) -> float:
        seen.append(largest)
        return 0.0

    line.start(np.linspace(-7.0, 5.0, 12), still, dt=0.1)
    line.advance(1, dt=0.1, courant=courant)
    assert seen == [7.0]


def test_neighbours_are_those_round_the_line(line: PeriodicLine) -> None:
    seen: list[np.ndarray] = []

    def explicit(_time: float, ghosted: np.ndarray) -> np.ndarray:
        seen.append(ghosted.copy())
        return np.zeros(12)

    line.start(np.arange(12.0), explicit, dt=0.1)
    line.advance(1, dt=0.1, courant=lambda _u: 0.0)
    np.testing.assert_array_equal(seen[0], [9, 10, 11, *range(12), 0, 1, 2])


def test_the_linear_part_is_the_stencil(line: PeriodicLine) -> None:
    # A mode on the line is an eigenvector: backward in time it decays at the stencil's symbol.
    x = line.cells(0.5)
    mode = np.cos(2 * np.pi * x / 6.0)
    line.set_linear(STENCIL)
    line.start(mode, still, dt=0.01)
    for step in range(1, 11):
        line.advance(step, dt=0.01, courant=lambda _u: 0.0)
    rate = 8 - 8 * np.cos(np.pi / 6)
    np.testing.assert_allclose(line.values, mode * np.exp(-0.1 * rate), atol=1e-7)
