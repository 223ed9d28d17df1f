"""The bare loops of ``benchmarks/wrapper_overhead.py`` do the same work as their solvers."""

import numpy as np
import pytest

from benchmarks.wrapper_overhead import CASES, made
from solvers.petsc import self_communicator

pytestmark = pytest.mark.petsc


@pytest.mark.parametrize("kind", list(CASES))
def test_the_bare_loop_ends_in_the_solvers_state(kind: str) -> None:
    changed: dict[str, object] = {"steps": 5} if "steps" in CASES[kind].settings else {}
    if grid := CASES[kind].settings.get("grid"):
        changed["grid"] = [32, 40] if len(grid) == 2 else [380]  # type: ignore[arg-type]
    solver, (_, values, bare, channel) = made(kind, **changed), CASES[kind]
    *_, last = solver.run(values, self_communicator())
    for _ in range(2):  # and again, in the objects that the first loop has left behind
        state = bare(solver, values)()
        # PETSc's time is a sum and the solver's a product; only burgers sees the difference.
        close = 1e-12 if kind == "burgers" else 0.0
        np.testing.assert_allclose(
            last.fields[channel].ravel(), state.astype(np.float32), rtol=close
        )
    *_, after = solver.run(values, self_communicator())
    np.testing.assert_array_equal(after.fields, last.fields)
    solver.close()
