"""A small solver of a user's own, as text, and studies that use it; no PETSc in it."""

from pathlib import Path
from textwrap import dedent
from typing import Any

SOLVER = dedent(
    '''
    import numpy as np
    from solvers.base import FieldSpec, Parameter, Snapshot


    class Decay:
        """A profile that decays: u_t = -rate u."""

        parameters = [Parameter(name="rate", unit="1/s", low=1, high=2, description="of decay")]

        def __init__(self, grid: tuple[int, int] = (4, 6), steps: int = 7, dt: float = 0.1):
            self.steps, self.dt = steps, dt
            self.spec = FieldSpec(names=("u",), units=("K",), shape=grid, spacing=(0.5, 0.25))

        def run(self, parameters, comm):
            for step in range(self.steps + 1):
                time = step * self.dt
                value = np.exp(-parameters["rate"] * time)
                yield Snapshot(step, time, np.full(self.spec.sample_shape, value))
    '''
).lstrip()


def written(folder: Path, old: str = "", new: str = "", *, name: str = "decay.py") -> Path:
    """The solver in a file, with ``old`` replaced by ``new``."""
    assert old in SOLVER
    path = folder / name
    path.write_text(SOLVER.replace(old, new) if old else SOLVER, encoding="utf-8")
    return path


def study_tree(solver: object, **sections: Any) -> dict[str, Any]:
    """A study of it as plain dicts."""
    tree: dict[str, Any] = {
        "name": "decay",
        "solver": solver,
        "parameters": {"rate": {"uniform": [1, 2]}},
        "ensemble": {"members": 6, "validation": 2, "max_failed_fraction": 0.1},
        "reservoir": {"capacity": 40, "watermark": 8, "max_reuse": 4},
        "trainer": {"ranks": 1, "batch": 4},
    }
    return tree | sections
