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

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np

from solvers.base import FieldSpec, Snapshot, SolverFailed
from solvers.config import member_values
from solvers.configs.lorenz import LorenzConfig
from solvers.numerics.turns import Turns
from solvers.petsc import Owned, PETSc, communicator, unique_prefix
from solvers.stepping import fixed_step, restart, stream


@final
class Lorenz:
    """The solver of ``kind: lorenz``.

    Args:
        config: Time step and number of steps.
    """

    def __init__(self, config: LorenzConfig) -> None:
        self._config = config
        self._prefix = unique_prefix(config.kind)
        self._system: _System | None = None
        self._turns = Turns()

    @property
    def spec(self) -> FieldSpec:
        """Three channels, x, y and z, at one point."""
        return self._config.spec()

    @property
    def max_snapshots(self) -> int:
        """The initial state and one snapshot per solver step."""
        return self._config.max_snapshots

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: ``sigma``, ``rho``, ``beta``, and the initial ``x``, ``y`` and ``z``.
            comm: The mpi4py or PETSc communicator to run on, of one rank.

        Raises:
            SolverFailed: A solve diverged, or a value is not finite.
            ValueError: Wrong parameter names, or PETSc options that PETSc does not take.
        """
        values = member_values(self._config.parameters(), parameters)
        system = self._system_on(comm)
        return self._member(system, values, self._turns.begin())

    def close(self) -> None:
        """Destroy the TS with its vectors and matrix. Safe to call twice."""
        self._turns.begin()
        if self._system is not None:
            self._system.close()
            self._system = None

    def _member(self, system: "_System", values: dict[str, float], turn: int) -> Iterator[Snapshot]:
        self._turns.check(turn, step=0)
        system.start(values, self._config)
        snapshots = stream(system.ts, lambda state: state.array_r.reshape(3, -1))
        try:
            for step in range(self.max_snapshots):
                self._turns.check(turn, step=step)
                # A state on its way to infinity is told by the snapshot, not by NumPy.
                with np.errstate(all="ignore"):
                    snapshot = next(snapshots)
                yield snapshot._replace(time=step * self._config.dt)
        except SolverFailed:
            self.close()  # PETSc may have stopped anywhere: the next member starts from nothing
            raise

    def _system_on(self, comm: object) -> "_System":
        if self._system is not None and not self._system.is_on(comm):
            self.close()
        if self._system is None:
            self._system = _System(
                comm=comm, prefix=self._prefix, options=self._config.petsc_options
            )
        return self._system


@final
class _System:
    """The TS on one communicator: all that is kept from member to member."""

    def __init__(self, *, comm: object, prefix: str, options: str) -> None:
        self._comm = communicator(comm)
        self._owned = Owned()
        self._values: Mapping[str, float] = {}
        sizes = (3, 3)
        try:
            self._state, rate = (
                self._owned(PETSc.Vec().createMPI(sizes, comm=self._comm)) for _ in range(2)
            )
            matrix = self._owned(PETSc.Mat().createAIJ((sizes, sizes), nnz=3, comm=self._comm))
            self.ts = self._owned(PETSc.TS().create(self._comm))
            self.ts.setType(PETSc.TS.Type.RK)
            self.ts.setRKType(PETSc.TS.RKType.RK4)
            self.ts.setRHSFunction(self._rate, rate)
            self.ts.setRHSJacobian(self._jacobian, matrix)
            self.ts.setSolution(self._state)
            fixed_step(self.ts, prefix=prefix, options=options)
        except BaseException:
            self._owned.close()
            raise

    def is_on(self, comm: object) -> bool:
        """Whether ``comm`` is the communicator that this was built for."""
        return bool(self._comm == communicator(comm))

    def close(self) -> None:
        """Destroy the TS with its vectors and matrix."""
        self._owned.close()

    def start(self, values: Mapping[str, float], config: LorenzConfig) -> None:
        """Set coefficients and initial state of a member."""
        self._values = values
        self._state.setArray([values["x"], values["y"], values["z"]])
        self._state.assemble()
        restart(self.ts, dt=config.dt)
        self.ts.setMaxSteps(config.steps)

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
