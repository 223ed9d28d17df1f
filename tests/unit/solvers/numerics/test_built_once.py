"""What a solver builds: once a communicator, for one member at a time, and never by halves."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from solvers.base import Snapshot, SolverFailed
from solvers.numerics.built_once import BuiltOnce
from solvers.petsc import Owned, PETSc, self_communicator

pytestmark = pytest.mark.petsc


class Thing:
    """Something that lies on a communicator."""

    def __init__(self, log: list[str], comm: object, owned: Owned) -> None:
        self.log = log
        owned(self)
        log.append("built")

    def destroy(self) -> None:
        self.log.append("destroyed")


def take(step: int) -> Snapshot:
    return Snapshot(step, float(step), np.zeros((1, 1), np.float32))


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def things(log: list[str]) -> Iterator[BuiltOnce[Thing]]:
    built = BuiltOnce(lambda comm, owned: Thing(log, comm, owned), snapshots=3)
    yield built
    built.close()


def test_it_is_built_when_it_is_first_asked_for_and_kept(
    things: BuiltOnce[Thing], log: list[str]
) -> None:
    assert log == []
    first = things.on(self_communicator())
    for _ in range(2):
        assert [s.step for s in things.member(take)] == [0, 1, 2]
        assert things.on(self_communicator()) is first
    assert log == ["built"]


def test_it_outlives_the_communicator_that_it_was_built_on(
    things: BuiltOnce[Thing], log: list[str]
) -> None:
    other = PETSc.COMM_SELF.tompi4py().Dup()
    first = things.on(other)
    other.Free()
    assert things.on(self_communicator()) is first, "the same ranks in the same order"
    assert log == ["built"]


@pytest.mark.parametrize("end", ["close", "member"])
def test_a_member_that_goes_on_after_its_end_is_told_so(things: BuiltOnce[Thing], end: str) -> None:
    older = things.member(take)
    next(older)
    things.close() if end == "close" else things.member(take)
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(older)


def test_a_member_that_is_complete_ends_even_after_the_next_one_began(
    things: BuiltOnce[Thing],
) -> None:
    older = things.member(take)
    assert [next(older).step for _ in range(3)] == [0, 1, 2]
    things.member(take)
    assert list(older) == []


@pytest.mark.parametrize(
    ("error", "left"), [(SolverFailed, ["built", "destroyed"]), (ValueError, ["built"])]
)
def test_a_failed_member_takes_it_along(
    things: BuiltOnce[Thing], log: list[str], error: type[Exception], left: list[str]
) -> None:
    def fail(step: int) -> Snapshot:
        raise error("no")

    things.on(self_communicator())
    with pytest.raises(error):
        list(things.member(fail))
    assert log == left


def test_half_of_it_is_destroyed_when_building_fails(log: list[str]) -> None:
    def half(comm: object, owned: Owned) -> Thing:
        Thing(log, comm, owned)
        raise ValueError("no")

    make: Callable[[object, Owned], Thing] = half
    things = BuiltOnce(make, snapshots=3)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            things.on(self_communicator())
    assert log == ["built", "destroyed"] * 2


def test_closing_twice_destroys_once(things: BuiltOnce[Thing], log: list[str]) -> None:
    things.on(self_communicator())
    things.close()
    things.close()
    assert log == ["built", "destroyed"]
