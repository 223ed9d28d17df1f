"""What only the heat solver promises: one member at a time, set-up once, options of its own."""

from collections.abc import Iterator

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.heat import HeatConfig
from solvers.pdes.heat import Heat
from solvers.petsc import PETSc, linear_solver, self_communicator

pytestmark = pytest.mark.petsc

CONFIG = HeatConfig(grid=(12, 20), steps=6, dt=0.02, length=(0.8, 1.3))
VALUES = {"initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0}


@pytest.fixture
def solver() -> Iterator[Heat]:
    built = Heat(CONFIG)
    yield built
    built.close()


def test_a_member_ends_when_the_next_one_begins(solver: Heat) -> None:
    first = solver.run(VALUES, self_communicator())
    next(first)
    solver.run(VALUES, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)


def test_a_member_ends_when_its_solver_is_closed(solver: Heat) -> None:
    snapshots = solver.run(VALUES, self_communicator())
    next(snapshots)
    solver.close()
    with pytest.raises(RuntimeError, match="stopped at solver step 1"):
        next(snapshots)


def test_matrix_and_factorisation_are_made_once(
    solver: Heat, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(*args: object, **keywords: object) -> object:
        made.append(args)
        return linear_solver(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr("solvers.pdes.heat.linear_solver", counted)
    for _ in range(3):
        list(solver.run(VALUES, self_communicator()))
    assert len(made) == 1


def test_another_communicator_is_set_up_anew(solver: Heat) -> None:
    (*_, expected) = solver.run(VALUES, self_communicator())
    other = PETSc.COMM_SELF.duplicate()
    (*_, computed) = solver.run(VALUES, other)
    np.testing.assert_array_equal(computed.fields, expected.fields)
    solver.close()
    other.destroy()


def test_one_rank_owns_the_whole_grid(solver: Heat) -> None:
    assert solver.box(self_communicator()) == (slice(0, 12), slice(0, 20))


def test_the_initial_state_is_uniform(solver: Heat) -> None:
    first = next(solver.run(VALUES, self_communicator()))
    np.testing.assert_array_equal(first.fields, np.full((1, 12, 20), 450.0, np.float32))


def test_a_perturbation_is_added_at_the_cell_centres() -> None:
    solver = Heat(CONFIG, perturbation=lambda x, y: 10 * x + y)
    first = next(solver.run(VALUES, self_communicator())).fields
    np.testing.assert_allclose(first[0, 0, 0], 450.0 + 10 * 0.0325 + 0.8 / 24, rtol=1e-6)
    np.testing.assert_allclose(first[0, 11, 19], 450.0 + 10 * 1.2675 + 0.8 * 23 / 24, rtol=1e-6)
    solver.close()


def test_a_source_without_width_fails_the_member() -> None:
    config = HeatConfig(grid=(10,), source="gaussian")
    values = {p.name: p.high for p in config.parameters()}
    solver = Heat(config)
    for width in (0.0, -0.1):
        expected = rf"source_width={width:g} m: .* at least 2 cells \(0.2 m\)"
        with pytest.raises(SolverFailed, match=expected):
            solver.run(values | {"source_width": width}, self_communicator())
    solver.close()


def test_a_source_may_cool() -> None:
    config = HeatConfig(grid=(5, 6, 7), steps=3, source="gaussian")
    values = {p.name: 300.0 for p in config.parameters()}
    spot = {"source_x": 0.5, "source_y": 0.5, "source_z": 0.5, "source_width": 0.1}
    solver = Heat(config)
    *_, last = solver.run(values | spot | {"source_rate": -500.0}, self_communicator())
    solver.close()
    assert last.fields[0, 2].min() < 295.0
    assert last.fields.max() <= 300.0 + 1e-4


def iterations(options: str) -> list[int]:
    solver = Heat(CONFIG.model_copy(update={"petsc_options": options}))
    counts = [snapshot.iterations for snapshot in solver.run(VALUES, self_communicator())]
    solver.close()
    return counts


def test_a_snapshot_says_how_many_iterations_it_took() -> None:
    # The first step has two solves, of which a direct solver takes one iteration each.
    assert iterations("") == [0, 2, *[1] * (CONFIG.steps - 1)]
    start, *few = iterations("-ksp_type cg -pc_type icc")
    _, *many = iterations("-ksp_type cg -pc_type none")
    assert start == 0
    assert all(1 < a < b for a, b in zip(few, many, strict=True))


def test_a_field_that_is_not_finite_is_never_yielded() -> None:
    solver = Heat(CONFIG, perturbation=lambda x, y: np.where(x + y > 2.0, np.nan, 0.0 * (x + y)))
    with pytest.raises(SolverFailed, match=r"field is not finite at solver step 0, time 0 s"):
        next(solver.run(VALUES, self_communicator()))
    solver.close()


def test_a_failed_set_up_leaves_nothing_behind() -> None:
    solver = Heat(CONFIG.model_copy(update={"petsc_options": "-ksp_type cg -pc_tpye icc"}))
    before = set(PETSc.Options().getAll())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"did not use -pc_tpye") as caught:
            solver.run(VALUES, self_communicator())
    assert set(PETSc.Options().getAll()) == before
    # The traceback still holds what was made before the failure: it must be destroyed all the same.
    objects = [
        value
        for entry in caught.traceback
        for value in entry.frame.f_locals.values()
        if isinstance(value, PETSc.Mat | PETSc.KSP)
    ]
    assert objects
    assert not any(map(bool, objects))
    solver.close()
