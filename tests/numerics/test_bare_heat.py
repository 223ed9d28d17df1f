"""The bare loop of the benchmarks does the same work as the solver it is compared with."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from solvers.configs.heat import HeatConfig
from solvers.pdes.heat import Heat
from solvers.petsc import self_communicator

pytestmark = pytest.mark.petsc

VALUES = {"initial": 450.0, "west": 120.0, "east": 480.0, "south": 200.0, "north": 330.0}


def test_the_bare_loop_ends_in_the_solvers_state(project: Path) -> None:
    spec = importlib.util.spec_from_file_location("bare", project / "benchmarks" / "bare_heat.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    config = HeatConfig(grid=(12, 20), steps=9, dt=0.02, length=(0.8, 1.3))
    bare = module.BareHeat(config)
    assert bare.run(VALUES) > 0.0
    solver = Heat(config)
    *_, last = solver.run(VALUES, self_communicator())
    np.testing.assert_array_equal(last.fields[0], bare.temperature().astype(np.float32))
    solver.close()
