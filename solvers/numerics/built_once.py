"""Keeps what a solver builds on a communicator from member to member, and lets one member use it.

1. It is built when it is first asked for, and built anew for another communicator.
2. A member that goes on after the next one began, or after ``close``, gets a ``RuntimeError``.
3. A failed member takes it along, because PETSc may have stopped anywhere: the next member starts
   from nothing.
4. Half of it is destroyed too, when building fails.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, final

from solvers.base import Snapshot, SolverFailed
from solvers.petsc import Owned, PETSc, communicator

__all__ = ["BuiltOnce", "Turns"]

_Built = TypeVar("_Built")


@final
class Turns:
    """Numbers the members of one solver."""

    def __init__(self) -> None:
        self._newest = 0

    def begin(self) -> int:
        """End every turn so far, and start a new one."""
        self._newest += 1
        return self._newest

    def check(self, turn: int, *, step: int) -> None:
        """Refuse to go on when ``turn`` has ended.

        Raises:
            RuntimeError: The solver was closed or runs another member.
        """
        if turn != self._newest:
            raise RuntimeError(
                f"this member stopped at solver step {step}: its solver was closed or given the "
                "next member; use one solver per member that runs at the same time"
            )


@final
class BuiltOnce(Generic[_Built]):
    """What one solver has built, if it has.

    Args:
        make: Builds it, given a communicator and who destroys the PETSc objects; collective.
        snapshots: Length of a member.
    """

    def __init__(self, make: Callable[[object, Owned], _Built], *, snapshots: int) -> None:
        self._make, self._snapshots = make, snapshots
        self._built: tuple[PETSc.Comm, _Built] | None = None
        self._owned = Owned()
        self._turns = Turns()

    def on(self, comm: object) -> _Built:
        """It, built on ``comm``; collective."""
        if self._built is not None and self._built[0] != communicator(comm):
            self.close()
        if self._built is None:
            try:
                own = self._owned(communicator(comm).duplicate())  # the caller may free theirs
                self._built = own, self._make(comm, self._owned)
            except BaseException:
                self._owned.close()
                raise
        return self._built[1]

    def member(self, take: Callable[[int], Snapshot]) -> Iterator[Snapshot]:
        """End the member before, and yield what ``take`` makes of steps 0, 1, 2, ..."""
        return self._member(take, self._turns.begin())

    def _member(self, take: Callable[[int], Snapshot], turn: int) -> Iterator[Snapshot]:
        for step in range(self._snapshots):
            self._turns.check(turn, step=step)
            try:
                newest = take(step)
            except SolverFailed:
                self.close()
                raise
            yield newest

    def close(self) -> None:
        """End the member, and destroy what was built. Safe to call twice."""
        self._turns.begin()
        self._built = None
        self._owned.close()
