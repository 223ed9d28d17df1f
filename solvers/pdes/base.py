"""What all PDEs of this folder do alike: they build once, and run one member at a time.

1. What lies on a communicator is built when it is first asked for, and anew for another one.
2. A member that goes on after the next one began, or after ``close``, gets a ``RuntimeError``.
3. A failed member takes what was built along, because PETSc may have stopped anywhere: the next
   member starts from nothing.
4. Half of it is destroyed too, when building fails.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar, final

from solvers.base import Snapshot, SolverFailed
from solvers.config import AnySolverConfig, member_values
from solvers.numerics.stencil import Slices
from solvers.petsc import Owned, PETSc, communicator

__all__ = ["BuiltOnce", "OneMemberAtATime", "PdeSolver"]


@final
class OneMemberAtATime:
    """Numbers the members of one solver, of which the newest alone may go on."""

    def __init__(self) -> None:
        self._newest = 0

    def begin(self) -> int:
        """End every member so far, and give the number of a new one."""
        self._newest += 1
        return self._newest

    def check(self, member: int, *, step: int) -> None:
        """Refuse to go on when ``member`` has ended.

        Raises:
            RuntimeError: The solver was closed or runs another member.
        """
        if member != self._newest:
            raise RuntimeError(
                f"this member stopped at solver step {step}: its solver was closed or given the "
                "next member; use one solver per member that runs at the same time"
            )


_Built = TypeVar("_Built")


class BuiltOnce(ABC, Generic[_Built]):
    """A solver with its equations on a communicator, which it keeps from member to member.

    Args:
        config: The settings, of which ``spec`` and ``max_snapshots`` are attributes.
        build: Discretises the equations, given a communicator and who destroys the PETSc objects;
            collective. They are built at the first member and kept until ``close``.
    """

    def __init__(self, config: AnySolverConfig, build: Callable[[object, Owned], _Built]) -> None:
        self.spec, self.max_snapshots = config.spec(), config.max_snapshots
        self._parameters, self._build = config.parameters(), build
        self._built: tuple[PETSc.Comm, _Built] | None = None
        self._owned, self._members = Owned(), OneMemberAtATime()

    @abstractmethod
    def _begin(self, built: _Built, values: dict[str, float]) -> Callable[[int], Snapshot]:
        """Check a member's parameters, and give what computes its snapshots 0, 1, 2, ... in turn.

        Raises:
            SolverFailed: A value cannot be used.
        """

    @final
    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the initial state, then one snapshot per solver step.

        Args:
            parameters: A value for each of those that the config announces, in its unit.
            comm: The mpi4py or PETSc communicator to run on. With several ranks every one of them
                must call, and each yields its own ``box(comm)``.

        Raises:
            SolverFailed: A solve diverged, a value is not finite, or a parameter makes no sense.
            ValueError: Wrong parameter names, or PETSc options that PETSc does not take.
        """
        values = member_values(self._parameters, parameters)
        take = self._begin(self._on(comm), values)
        return self._snapshots(take, self._members.begin())

    @final
    def close(self) -> None:
        """End the member, and destroy what was built. Safe to call twice."""
        self._members.begin()
        self._built = None
        self._owned.close()

    def _on(self, comm: object) -> _Built:
        """What is built on ``comm``; collective."""
        if self._built is not None and self._built[0] != communicator(comm):
            self.close()
        if self._built is None:
            try:
                own = self._owned(communicator(comm).duplicate())  # the caller may free theirs
                self._built = own, self._build(comm, self._owned)
            except BaseException:
                self._owned.close()
                raise
        return self._built[1]

    def _snapshots(self, take: Callable[[int], Snapshot], member: int) -> Iterator[Snapshot]:
        for step in range(self.max_snapshots):
            self._members.check(member, step=step)
            try:
                newest = take(step)
            except SolverFailed:
                self.close()
                raise
            yield newest


class _Spread(Protocol):
    box: Slices


_BuiltInBoxes = TypeVar("_BuiltInBoxes", bound=_Spread)


class PdeSolver(BuiltOnce[_BuiltInBoxes]):
    """The same on a grid: of several mpi_ranks each yields its own box (``Distributed``)."""

    @final
    def box(self, comm: object) -> Slices:
        """Where this mpi_rank's part of a snapshot lies in the whole grid."""
        return self._on(comm).box
