"""What a solver promises: the only vocabulary shared by every PDE in this folder.

A solver turns physical parameters into a lazily computed sequence of snapshots. It knows nothing
of Ray, of the reservoir, or of training.

Invariants every implementation keeps (``tests/contract/test_solver_contract.py`` checks each for
every registered solver):

1. ``snapshot.step`` counts 0, 1, 2, ... and ``snapshot.time`` strictly increases; the initial state
   comes first.
2. ``snapshot.fields`` has exactly the shape and dtype that ``spec`` announces.
3. The array belongs to the receiver: the solver never writes to it again.
4. The same parameters give the same snapshots, however many members ran before.
5. A failed or non-finite solve raises ``SolverFailed`` and is never yielded.
6. ``close()`` destroys every PETSc object, and may be called twice.
7. Channels named in ``spec.inputs`` are the last ones and the same in every snapshot of a member.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32


class SolverFailed(Exception):
    """A member that cannot be completed: a diverged solve or a non-finite field.

    The message says what failed, at which step and time, and PETSc's reason.
    """


class SolverKilled(SolverFailed):
    """What computed a member was ended from outside: another attempt may go well."""


class SolverBug(SolverFailed):
    """A Python exception in somebody's own solver.

    Attributes:
        story: The traceback through their files.
        passing: Whether another attempt may go well. Otherwise the same parameters would raise it
            at the same line again.
    """

    def __init__(self, message: str, story: str = "", passing: bool = False) -> None:
        super().__init__(message, story, passing)
        self.story, self.passing = story, passing

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One physical input of a solver.

    Attributes:
        name: As it is written under ``parameters:`` in a study.
        unit: SI unit, ``"1"`` when dimensionless.
        low: Lower end of the range the solver is meant for.
        high: Upper end of that range.
        description: What it is, in a few words.
        seed: Whether it only names a random draw: nothing can be learnt from its value, so it is
            no input of a surrogate. The field that it draws is one (``FieldSpec.inputs``).
    """

    name: str
    unit: str
    low: float
    high: float
    description: str
    seed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSpec:
    """Names, units and grid of what a solver yields.

    Attributes:
        names: One name per channel, e.g. ``("temperature",)``; order is the channel order.
        units: One SI unit per channel.
        shape: Grid points ``(x,)``, ``(y, x)`` or ``(z, y, x)``, without channels.
        spacing: Grid spacing in metres, one per axis of ``shape``.
        inputs: The last of ``names``, as far as they are given and not computed: a random
            coefficient, a bottom profile. They are what an operator is learnt from.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.units) != len(self.names):
            raise ValueError(f"one unit per channel: names={self.names}, units={self.units}")
        if len(self.spacing) != len(self.shape):
            raise ValueError(
                f"one spacing per grid axis: shape={self.shape}, spacing={self.spacing}"
            )
        if self.inputs != self.names[len(self.names) - len(self.inputs) :]:
            raise ValueError(f"inputs={self.inputs} must be the last of names={self.names}")

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of ``Snapshot.fields``: ``(channel, *grid)``."""
        return (len(self.names), *self.shape)


class Snapshot(NamedTuple):
    """The fields of one member at one time, and what it took to get there from the last one."""

    step: int
    time: float  # seconds
    fields: Float32[np.ndarray, " channel *grid"]
    iterations: int = 0  # of linear solvers, or else of nonlinear ones, or else explicit steps
    refused: int = 0  # steps that were tried, and tried again with a smaller one


@runtime_checkable
class Solver(Protocol):
    """One PDE on one grid, reused for many members."""

    @property
    def spec(self) -> FieldSpec:
        """What every snapshot will look like."""
        ...

    @property
    def max_snapshots(self) -> int:
        """Most snapshots one member yields, the initial state included."""
        ...

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: A value for each of the solver's parameters, in its unit.
            comm: The mpi4py or PETSc communicator to run on; never ``COMM_WORLD`` by default.

        Raises:
            SolverFailed: The member cannot be completed.
        """
        ...

    def close(self) -> None:
        """Free what the solver holds. Safe to call twice."""
        ...


@runtime_checkable
class Distributed(Protocol):
    """A solver that runs on several mpi_ranks, each of which yields its own box of the fields."""

    def box(self, comm: object) -> tuple[slice, ...]:
        """Where this mpi_rank's part of a snapshot lies in the grid of ``spec``; collective."""
        ...
