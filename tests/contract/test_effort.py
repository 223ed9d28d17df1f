"""Iterations and refused steps of a snapshot are PETSc's own; a new kind is covered by its name."""

from pathlib import Path

import pytest

from solvers.base import Snapshot
from solvers.petsc import self_communicator
from solvers.registry import build
from tests.contract.test_solver_contract import ITERATIVE, Values, made, values_at

pytestmark = pytest.mark.petsc

COUNTED = ("heat", "wave", "burgers", "kuramoto_sivashinsky", "gray_scott", "cavity", "lorenz")


def counted(kind: str, members: int, log: Path) -> tuple[list[Snapshot], int]:
    """The last member's snapshots, and how many iterations PETSc's monitor wrote down."""
    options = f"{ITERATIVE[kind]} -ksp_monitor ascii:{log}"
    solver = build(made(kind, petsc_options=options))
    for _ in range(members):
        snapshots = list(solver.run(values_of(kind), self_communicator()))
    solver.close()
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return snapshots, sum("KSP" in words and words[0] != "0" for words in lines)


def values_of(kind: str) -> Values:
    return values_at(made(kind).parameters(), [0.5, 0.1, 0.9, 0.3])


@pytest.mark.parametrize("kind", COUNTED)
def test_iterations_are_those_that_petsc_counts(kind: str, tmp_path: Path) -> None:
    _, one = counted(kind, 1, tmp_path / "one")
    snapshots, two = counted(kind, 2, tmp_path / "two")  # the set-up may iterate, too
    assert snapshots[0].iterations == 0
    assert all(s.iterations > 0 for s in snapshots[1:])
    assert sum(s.iterations for s in snapshots) == two - one
    assert all(s.refused == 0 for s in snapshots)


@pytest.mark.parametrize("kind", COUNTED)
def test_a_member_counts_from_its_own_start(kind: str) -> None:
    solver = build(made(kind, petsc_options=ITERATIVE[kind]))
    runs = [
        [s.iterations for s in solver.run(values_of(kind), self_communicator())] for _ in range(2)
    ]
    solver.close()
    assert runs[0] == runs[1]


def test_nonlinear_iterations_count_where_no_linear_system_is_solved() -> None:
    solver = build(made("lorenz", petsc_options="-ts_type theta -snes_type anderson"))
    snapshots = list(solver.run(values_of("lorenz"), self_communicator()))
    solver.close()
    assert all(s.iterations > 1 for s in snapshots[1:])


def test_an_explicit_scheme_iterates_nothing() -> None:
    solver = build(made("gray_scott"))
    snapshots = list(solver.run(values_of("gray_scott"), self_communicator()))
    solver.close()
    assert [s.iterations for s in snapshots] == [0] * solver.max_snapshots
