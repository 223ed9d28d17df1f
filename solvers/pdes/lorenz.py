"""The Lorenz system: three ordinary differential equations, the smallest solver on a PETSc TS.

Equation:    x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z, dimensionless.
Domain:      0 < t <= steps * dt; the grid is a single point.
Initial:     x, y and z at time 0 are parameters.
Time:        classical Runge-Kutta, fourth order; ``petsc_options: "-ts_type bdf"`` and all other
             types of TS work too, with the Jacobian that they need.
Stability:   dt * lambda < 2.78 with lambda the largest rate, about 22 for the classical values:
             dt < 0.12. A larger step ends as a field that is not finite.
Behaviour:   rho < 1: the origin attracts. Up to 24.74 (sigma = 10, beta = 8/3): two steady states
             x = y = +-sqrt(beta (rho - 1)), z = rho - 1 attract. Above: the butterfly, chaotic;
             neighbours part like exp(0.9 t).
Good values: sigma = 10, rho = 28, beta = 8/3; 1000 steps of 0.01 are about 13 turns.
Source:      Lorenz, J. Atmos. Sci. 20 (1963) 130; Sparrow, The Lorenz Equations (1982).

It runs on one mpi_rank: there is one point.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

import numpy as np

from solvers.base import Snapshot
from solvers.configs.lorenz import LorenzConfig
from solvers.pdes.base import BuiltOnce
from solvers.petsc import Owned, PETSc, communicator, unique_prefix
from solvers.stepping import fixed_step, restart, snapshot, steps


@final
class Lorenz(BuiltOnce["_System"]):
    """The solver of ``kind: lorenz``.

    Args:
        config: Time step and number of steps.
    """

    def __init__(self, config: LorenzConfig) -> None:
        super().__init__(config, partial(_System, config))

    def _begin(self, system: "_System", values: dict[str, float]) -> Callable[[int], Snapshot]:
        return partial(system.snapshot, values)


@final
class _System:
    """The TS on one communicator: all that is kept from member to member."""

    def __init__(self, config: LorenzConfig, comm: object, owned: Owned) -> None:
        self._config = config
        self._values: Mapping[str, float] = {}
        sizes, comm = (3, 3), communicator(comm)
        self._state, rate = (owned(PETSc.Vec().createMPI(sizes, comm=comm)) for _ in range(2))
        matrix = owned(PETSc.Mat().createAIJ((sizes, sizes), nnz=3, comm=comm))
        self._ts = owned(PETSc.TS().create(comm))
        self._ts.setType(PETSc.TS.Type.RK)
        self._ts.setRKType(PETSc.TS.RKType.RK4)
        self._ts.setRHSFunction(self._rate, rate)
        self._ts.setRHSJacobian(self._jacobian, matrix)
        self._ts.setSolution(self._state)
        fixed_step(self._ts, prefix=unique_prefix(config.kind), options=config.petsc_options)

    def snapshot(self, values: Mapping[str, float], step: int) -> Snapshot:
        """That step's state, computed from the one before."""
        if step == 0:
            self._begin(values)
            self._steps = steps(self._ts)
        # A state on its way to infinity is told by the snapshot, not by NumPy.
        with np.errstate(all="ignore"):
            number, _, state, effort = next(self._steps)
        fields = state.array_r.reshape(3, -1)
        return snapshot(number, step * self._config.dt, state, fields, effort)

    def _begin(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._state.setArray([values["x"], values["y"], values["z"]])
        self._state.assemble()
        restart(self._ts, dt=self._config.dt)
        self._ts.setMaxSteps(self._config.steps)

    def _rate(self, _ts: PETSc.TS, _time: float, state: PETSc.Vec, rate: PETSc.Vec) -> None:
        sigma, rho, beta = (self._values[name] for name in ("sigma", "rho", "beta"))
        x, y, z = state.array_r.reshape(3, -1)
        rate.setArray(np.concatenate([sigma * (y - x), x * (rho - z) - y, x * y - beta * z]))  # type: ignore[arg-type]

    def _jacobian(
        self, _ts: PETSc.TS, _time: float, state: PETSc.Vec, _matrix: PETSc.Mat, used: PETSc.Mat
    ) -> None:
        sigma, rho, beta = (self._values[name] for name in ("sigma", "rho", "beta"))
        for x, y, z in state.array_r.reshape(3, -1).T:
            rows = [[-sigma, sigma, 0.0], [rho - z, -1.0, -x], [y, x, -beta]]
            used.setValues([0, 1, 2], [0, 1, 2], rows)  # type: ignore[arg-type]
        used.assemble()
