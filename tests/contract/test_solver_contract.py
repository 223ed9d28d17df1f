"""Every solver in SOLVERS keeps the promises of ``solvers.base``; a new kind adds one line here."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from solvers.base import Parameter, Snapshot, Solver, SolverFailed
from solvers.config import AnySolverConfig
from solvers.petsc import self_communicator
from solvers.registry import SOLVERS, build

pytestmark = pytest.mark.petsc

# Small and with unequal axes; `diverging` makes the solver's own solve fail. A second line for a
# kind says after it what is special.
SETTINGS: dict[str, dict[str, object]] = {
    "heat": {"grid": [12, 20], "steps": 7, "dt": 0.02, "length": [0.8, 1.3]},
    "heat 1-D": {"grid": [20], "steps": 7, "dt": 0.02, "source": "gaussian"},
    "heat 3-D": {
        "grid": [5, 6, 8],
        "steps": 7,
        "dt": 0.02,
        "length": [0.5, 0.8, 1.3],
        "source": "gaussian",
        "source_field": True,
    },
    "burgers": {"grid": [20], "steps": 7, "dt": 0.02},
    "kuramoto_sivashinsky": {"grid": [24], "steps": 7, "dt": 0.02, "length": 12.0},
    "wave": {"grid": [12, 20], "steps": 7, "dt": 0.02, "length": [0.8, 1.3]},
    "gray_scott": {
        "grid": [12, 20],
        "steps": 7,
        "dt": 2.0,
        "length": [0.3, 0.5],
        "spots": 2,
    },
    "cavity": {"grid": [12, 20], "steps": 7, "dt": 0.02, "length": [0.8, 1.3]},
    "navier_stokes": {
        "grid": [12, 20],
        "steps": 7,
        "dt": 0.5,
        "length": [0.8, 1.3],
        "initial": {"kind": "gaussian", "modes": 5},
    },
    "darcy": {"grid": [12, 20], "length": [0.8, 1.3], "coefficient": {"kind": "voronoi"}},
    "lorenz": {"steps": 7, "dt": 0.02},
    "shallow_water": {"grid": [12, 20], "steps": 7, "dt": 0.5, "length": [8.0, 13.0]},
}
DIVERGING: dict[str, dict[str, object]] = {
    "heat": {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
    "heat 1-D": {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
    "heat 3-D": {"petsc_options": "-ksp_max_it 1"},
    "burgers": {"petsc_options": "-ksp_type gmres -pc_type none -ksp_max_it 1"},
    "kuramoto_sivashinsky": {"petsc_options": "-ksp_type gmres -pc_type none -ksp_max_it 1"},
    "wave": {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
    "gray_scott": {"petsc_options": "-ts_type cn -ksp_max_it 1 -pc_type none"},
    "cavity": {"petsc_options": "-snes_max_it 1"},
    "navier_stokes": {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
    "darcy": {"petsc_options": "-ksp_type cg -pc_type none -ksp_max_it 1"},
    "lorenz": {"petsc_options": "-ts_type theta -snes_max_it 1 -snes_rtol 1e-14"},
    "shallow_water": {"dt": 50.0},
}
REASON = {
    "heat": "DIVERGED_ITS",
    "heat 1-D": "DIVERGED_ITS",
    "heat 3-D": "DIVERGED_ITS",
    "burgers": "DIVERGED_NONLINEAR_SOLVE",
    "kuramoto_sivashinsky": "DIVERGED_NONLINEAR_SOLVE",
    "wave": "DIVERGED_ITS",
    "gray_scott": ".*DIVERGED_LINEAR_SOLVE",
    "cavity": "DIVERGED_MAX_IT",
    "navier_stokes": ".*DIVERGED_ITS",
    "darcy": ".*DIVERGED_ITS",
    "lorenz": "DIVERGED_NONLINEAR_SOLVE",
    "shallow_water": "dt=50 s needs [0-9]+ substeps, more than max_substeps=200",
}

# Those that solve no system have no entry.
ITERATIVE = {
    "heat": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "heat 1-D": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "heat 3-D": "-ksp_rtol 1e-3",
    "burgers": "-ksp_type gmres -pc_type jacobi -ksp_rtol 1e-3",
    "kuramoto_sivashinsky": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "wave": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "gray_scott": "-ts_type cn -ksp_type gmres -pc_type jacobi",
    "cavity": "-ksp_type gmres -pc_type ilu -ksp_rtol 1e-3",
    "navier_stokes": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "darcy": "-ksp_type cg -pc_type jacobi -ksp_rtol 1e-3",
    "lorenz": "-ts_type theta -ksp_type gmres -pc_type jacobi -ksp_rtol 1e-3",
}

Values = dict[str, float]


def made(kind: str, **changed: object) -> AnySolverConfig:
    return SOLVERS[kind.partition(" ")[0]].model_validate(SETTINGS[kind] | changed)


def values_at(parameters: tuple[Parameter, ...], shares: list[float]) -> Values:
    """Parameters at the given shares of their ranges, reused in turn."""
    return {
        p.name: p.low + shares[index % len(shares)] * (p.high - p.low)
        for index, p in enumerate(parameters)
    }


@pytest.fixture(params=list(SETTINGS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def solver(kind: str) -> Iterator[Solver]:
    built = build(made(kind))
    yield built
    built.close()


@pytest.fixture
def one(kind: str) -> Values:
    return values_at(made(kind).parameters(), [0.5, 0.1, 0.9, 0.3])


@pytest.fixture
def another(kind: str) -> Values:
    return values_at(made(kind).parameters(), [0.0, 1.0, 0.7])


def member(solver: Solver, values: Values) -> list[Snapshot]:
    return list(solver.run(values, self_communicator()))


def assert_same(left: list[Snapshot], right: list[Snapshot]) -> None:
    assert [(s.step, s.time) for s in left] == [(s.step, s.time) for s in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.fields, b.fields)


def test_every_kind_is_covered() -> None:
    assert SETTINGS.keys() == DIVERGING.keys() == REASON.keys()
    assert SETTINGS.keys() == ITERATIVE.keys() | {"shallow_water"}
    # A foreign program runs in other processes: tests/integration/test_program.py.
    # Somebody's own class: tests/integration/test_own_solver.py.
    kinds = {kind.partition(" ")[0] for kind in SETTINGS}
    assert SOLVERS.keys() == kinds | {"program", "own"}


def test_steps_count_up_and_time_increases_from_the_initial_state(
    solver: Solver, one: Values
) -> None:
    snapshots = member(solver, one)
    assert [s.step for s in snapshots] == list(range(solver.max_snapshots))
    assert snapshots[0].time == 0.0
    assert all(a.time < b.time for a, b in pairwise(snapshots))


def test_snapshots_come_one_by_one(solver: Solver, one: Values) -> None:
    snapshots = solver.run(one, self_communicator())
    assert next(snapshots).step == 0
    assert next(snapshots).step == 1


def test_fields_have_exactly_the_announced_shape_and_dtype(solver: Solver, one: Values) -> None:
    for snapshot in member(solver, one):
        assert snapshot.fields.shape == solver.spec.sample_shape
        assert snapshot.fields.dtype == np.float32
        assert snapshot.fields.flags.c_contiguous


def test_channels_that_are_given_are_the_same_in_every_snapshot(
    solver: Solver, one: Values
) -> None:
    given = len(solver.spec.inputs)
    snapshots = [s.fields[len(s.fields) - given :] for s in member(solver, one)]
    for fields in snapshots:
        np.testing.assert_array_equal(fields, snapshots[0])


def test_the_config_announces_what_the_solver_does(kind: str, solver: Solver) -> None:
    assert solver.spec == made(kind).spec()
    assert solver.max_snapshots == made(kind).max_snapshots


def test_the_receiver_owns_the_array(solver: Solver, one: Values, another: Values) -> None:
    snapshots, copies = [], []
    for snapshot in solver.run(one, self_communicator()):
        snapshots.append(snapshot)
        copies.append(snapshot.fields.copy())
    member(solver, another)
    for snapshot, copy in zip(snapshots, copies, strict=True):
        np.testing.assert_array_equal(snapshot.fields, copy)


def test_the_receiver_may_write_to_the_array(solver: Solver, one: Values) -> None:
    expected = member(solver, one)
    for snapshot, untouched in zip(solver.run(one, self_communicator()), expected, strict=True):
        np.testing.assert_array_equal(snapshot.fields, untouched.fields)
        snapshot.fields[:] = np.nan


def test_the_same_parameters_give_the_same_snapshots_in_any_member(
    kind: str, solver: Solver, one: Values, another: Values
) -> None:
    first = member(solver, one)
    between = [member(solver, another) for _ in range(3)]
    assert not np.array_equal(first[-1].fields, between[0][-1].fields)
    assert_same(member(solver, one), first)
    fresh = build(made(kind))
    assert_same(member(fresh, one), first)
    fresh.close()


def test_a_member_given_up_half_way_leaves_no_trace(
    solver: Solver, one: Values, another: Values
) -> None:
    expected = member(solver, one)
    given_up = solver.run(another, self_communicator())
    for _ in range(min(3, solver.max_snapshots - 1)):
        next(given_up)
    assert_same(member(solver, one), expected)


@pytest.mark.parametrize("kind", list(ITERATIVE))
def test_iterative_solves_do_not_remember_the_last_member(
    kind: str, one: Values, another: Values
) -> None:
    solver = build(made(kind, petsc_options=ITERATIVE[kind]))
    first = member(solver, one)
    member(solver, another)
    assert_same(member(solver, one), first)
    solver.close()


def test_a_diverged_solve_fails_with_petscs_reason(kind: str, one: Values) -> None:
    solver = build(made(kind, **DIVERGING[kind]))
    yielded: list[Snapshot] = []
    with pytest.raises(SolverFailed, match=rf"solver step 1, time [0-9.]+ s: {REASON[kind]}"):
        yielded.extend(solver.run(one, self_communicator()))  # keeps what came before the failure
    assert [s.step for s in yielded] == [0]
    with pytest.raises(SolverFailed, match=REASON[kind]):  # and the next member says so too
        member(solver, one)
    solver.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_value_that_cannot_be_computed_with_fails_and_yields_nothing(
    solver: Solver, one: Values, value: float
) -> None:
    expected = member(solver, one)
    for name in one:
        yielded: list[Snapshot] = []
        with pytest.raises(SolverFailed, match=name):
            yielded.extend(solver.run(one | {name: value}, self_communicator()))
        assert yielded == []
    assert_same(member(solver, one), expected)


def test_parameters_are_exactly_those_announced(solver: Solver, one: Values) -> None:
    name = next(iter(one))
    with pytest.raises(ValueError, match=rf"missing: \['{name}'\]"):
        solver.run({n: v for n, v in one.items() if n != name}, self_communicator())
    with pytest.raises(ValueError, match=r"unknown: \['colour'\]"):
        solver.run(one | {"colour": 1.0}, self_communicator())


def test_close_may_be_called_twice_and_before_any_member(
    kind: str, solver: Solver, one: Values
) -> None:
    build(made(kind)).close()
    member(solver, one)
    solver.close()
    solver.close()


def test_every_petsc_object_is_destroyed(kind: str, project: Path) -> None:
    script = Path(__file__).with_name("count_petsc_objects.py")
    done = subprocess.run(
        [sys.executable, str(script), made(kind).kind, json.dumps(SETTINGS[kind])],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[0])
    objects = {when: count for when, (count, _) in counts.items()}
    assert objects["after 2"] > objects["before"], "the count sees nothing"
    assert counts["after 100"] == counts["after 2"]
    assert counts["closed"] == counts["before"]
