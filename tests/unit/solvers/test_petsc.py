"""How PETSc starts, who destroys its objects, and how its failures are told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.petsc import (
    Owned,
    PETSc,
    linear_solver,
    require_finite,
    require_finite_everywhere,
    scoped_options,
    self_communicator,
    solve,
    unique_prefix,
    vector_over,
)

pytestmark = pytest.mark.petsc


class Fake:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def destroy(self) -> None:
        self.log.append(self.name)
        if self.name == "broken":
            raise RuntimeError("cannot be destroyed")


def diagonal(entries: list[float], owned: Owned) -> PETSc.Mat:
    size = len(entries)
    matrix = owned(PETSc.Mat().createAIJ((size, size), nnz=1, comm=self_communicator()))
    for row, entry in enumerate(entries):
        matrix.setValue(row, row, entry)
    matrix.assemble()
    return matrix


def test_owned_objects_are_destroyed_once_and_the_newest_first() -> None:
    log: list[str] = []
    with Owned() as owned:
        for name in ("matrix", "solver", "vector"):
            assert owned(Fake(name, log)).name == name
    owned.close()
    assert log == ["vector", "solver", "matrix"]


def test_one_that_cannot_be_destroyed_does_not_keep_the_others_alive() -> None:
    log: list[str] = []
    owned = Owned()
    for name in ("matrix", "broken", "vector"):
        owned(Fake(name, log))
    with pytest.raises(RuntimeError, match="cannot be destroyed"):
        owned.close()
    assert log == ["vector", "broken", "matrix"]


def test_prefixes_are_unique() -> None:
    assert len({unique_prefix("heat") for _ in range(10)}) == 10


def test_options_hold_inside_the_block_and_for_the_prefix_alone() -> None:
    with scoped_options("mine_", "-ksp_type cg -ksp_rtol 1e-3"):
        assert PETSc.Options("mine_").getString("ksp_type") == "cg"
        assert PETSc.Options("mine_").getReal("ksp_rtol") == 1e-3
        assert "ksp_type" not in PETSc.Options().getAll()
    assert not any(name.startswith("mine_") for name in PETSc.Options().getAll())


def test_an_option_that_nobody_looked_at_is_refused_and_forgotten() -> None:
    with pytest.raises(ValueError, match=r"did not use -ksp_tpye: correct the spelling"):
        linear("-ksp_tpye cg")
    assert not any("tpye" in name for name in PETSc.Options().getAll())


def test_options_are_forgotten_when_the_block_fails() -> None:
    with pytest.raises(RuntimeError, match="other"), scoped_options("mine_", "-a 1"):
        raise RuntimeError("other")
    assert "mine_a" not in PETSc.Options().getAll()


def linear(options: str) -> tuple[str, str]:
    with Owned() as owned:
        ksp = linear_solver(
            diagonal([1.0, 2.0], owned), prefix=unique_prefix("t"), options=options, owned=owned
        )
        return str(ksp.getType()), str(ksp.pc.getType())


def test_one_rank_factorises_and_options_override_it() -> None:
    assert linear("") == ("preonly", "lu")
    assert linear("-ksp_type cg -pc_type jacobi") == ("cg", "jacobi")


def test_a_solver_that_petsc_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PC type nonsense\. Choose another"):
        linear("-pc_type nonsense")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-ksp_type cg -pc_type none -ksp_max_it 1", r"DIVERGED_ITS after 1 iterations"),
        ("-ksp_type cg -pc_type none -ksp_max_it 1 -ksp_error_if_not_converged", "DIVERGED_ITS"),
        ("-ksp_type cg -pc_type none -ksp_divtol 1.01 -ksp_max_it 9", r"DIVERGED_"),
    ],
)
def test_a_failed_solve_gives_petscs_reason(options: str, reason: str) -> None:
    entries = [1.0, 3.0, -4.0] if "divtol" in options else [1.0, 3.0, 4.0]
    with Owned() as owned:
        ksp = linear_solver(
            diagonal(entries, owned), prefix=unique_prefix("t"), options=options, owned=owned
        )
        rhs, solution = (
            vector_over(values, comm=self_communicator(), owned=owned)
            for values in (np.array([1.0, 2.0, 3.0]), np.zeros(3))
        )
        with pytest.raises(SolverFailed, match=rf"at solver step 4, time 0\.25 s: .*{reason}"):
            solve(ksp, rhs, solution, step=4, time=0.25)


def test_a_vector_over_an_array_is_one_memory_for_petsc_and_numpy() -> None:
    values = np.arange(6.0).reshape(1, 2, 3)
    with Owned() as owned:
        vector = vector_over(values, comm=self_communicator(), owned=owned)
        vector.scale(2.0)
        np.testing.assert_array_equal(values, 2 * np.arange(6.0).reshape(1, 2, 3))
        assert vector.norm() == pytest.approx(2 * np.sqrt(55.0))
        values[:] = 0.0
        vector.stateIncrease()
        assert vector.norm() == 0.0, "PETSc was not told of the change"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e200])
def test_a_value_that_float32_cannot_hold_is_refused(bad: float) -> None:
    for shape in ((2, 3, 5), (2, 96, 144)):  # one part, and several with a rest
        values = np.full(shape, 300.0)
        require_finite(values, step=3, time=0.5)
        for place in (0, values.size // 2, values.size - 1):
            values.flat[place] = bad
            with pytest.raises(
                SolverFailed, match=rf"step 3, time 0\.5 s: 1 of {values.size} values are NaN, inf"
            ):
                require_finite(values, step=3, time=0.5)
            values.flat[place] = 300.0


def test_every_value_that_float32_can_hold_is_accepted() -> None:
    require_finite(np.full((1, 3, 5), 3.4e38), step=0, time=0.0)


def everywhere(values: np.ndarray) -> None:
    with Owned() as owned:
        vector = vector_over(values, comm=self_communicator(), owned=owned)
        require_finite_everywhere(vector, values, step=3, time=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e200])
def test_a_field_of_all_mpi_ranks_is_refused_for_the_same_values(bad: float) -> None:
    everywhere(np.full((2, 3, 5), 300.0))
    everywhere(np.full((2, 3, 5), -3.4e38))
    for place in (0, 14, 29):
        values = np.full((2, 3, 5), 300.0)
        values.flat[place] = bad
        with pytest.raises(SolverFailed, match=r"step 3, time 0\.5 s: 1 of 30 values are NaN, inf"):
            everywhere(values)


def test_petsc_installs_no_signal_handler_and_reads_no_petscrc(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / ".petscrc").write_text("-from_the_working_directory\n")
    program = (
        "import solvers.petsc as p, re, sys\n"
        "caught = int(re.search(r'SigCgt:\\s*(\\w+)', open('/proc/self/status').read())[1], 16)\n"
        "print([s for s in (4, 6, 7, 8, 11, 15) if caught >> (s - 1) & 1])\n"
        "print(sorted(p.PETSc.Options().getAll()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-ksp_type", "cg"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(project), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    handlers, options = done.stdout.splitlines()
    assert handlers == "[]"
    assert options == "['no_signal_handler', 'skip_petscrc']"
