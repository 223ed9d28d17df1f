"""What a PDE builds: once a communicator, for one member at a time, and never by halves."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from solvers.base import Snapshot, SolverFailed
from solvers.configs.lorenz import LorenzConfig
from solvers.pdes.base import BuiltOnce
from solvers.petsc import Owned, PETSc, self_communicator

pytestmark = pytest.mark.petsc

CONFIG = LorenzConfig(steps=2, dt=0.1)
VALUES = {parameter.name: parameter.high for parameter in CONFIG.parameters()}


class Thing:
    """Something that lies on a communicator."""

    def __init__(self, log: list[str], owned: Owned) -> None:
        self.log = log
        owned(self)
        log.append("built")

    def destroy(self) -> None:
        self.log.append("destroyed")


def take(step: int) -> Snapshot:
    return Snapshot(step, float(step), np.zeros((1, 1), np.float32))


class Things(BuiltOnce[Thing]):
    """Three snapshots a member, or what ``take`` makes of it."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(CONFIG, lambda comm, owned: Thing(log, owned))
        self.take, self.seen = take, list[Thing]()

    def _begin(self, built: Thing, values: dict[str, float]) -> Callable[[int], Snapshot]:
        self.seen.append(built)
        return self.take

    def member(self, comm: object | None = None) -> Iterator[Snapshot]:
        return self.run(VALUES, self_communicator() if comm is None else comm)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def things(log: list[str]) -> Iterator[Things]:
    things = Things(log)
    yield things
    things.close()


def test_it_is_built_when_it_is_first_asked_for_and_kept(things: Things, log: list[str]) -> None:
    assert log == []
    for _ in range(2):
        assert [s.step for s in things.member()] == [0, 1, 2]
    first, second = things.seen
    assert first is second
    assert log == ["built"]


def test_it_outlives_the_communicator_that_it_was_built_on(things: Things, log: list[str]) -> None:
    other = PETSc.COMM_SELF.tompi4py().Dup()
    things.member(other)
    other.Free()
    things.member()
    first, second = things.seen
    assert first is second, "the same ranks in the same order"
    assert log == ["built"]


@pytest.mark.parametrize("end", ["close", "member"])
def test_a_member_that_goes_on_after_its_end_is_told_so(things: Things, end: str) -> None:
    older = things.member()
    next(older)
    things.close() if end == "close" else things.member()
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(older)


def test_a_member_that_is_complete_ends_even_after_the_next_one_began(things: Things) -> None:
    older = things.member()
    assert [next(older).step for _ in range(3)] == [0, 1, 2]
    things.member()
    assert list(older) == []


@pytest.mark.parametrize(
    ("error", "left"), [(SolverFailed, ["built", "destroyed"]), (ValueError, ["built"])]
)
def test_a_failed_member_takes_it_along(
    things: Things, log: list[str], error: type[Exception], left: list[str]
) -> None:
    def fail(step: int) -> Snapshot:
        raise error("no")

    things.take = fail
    with pytest.raises(error):
        list(things.member())
    assert log == left


def test_half_of_it_is_destroyed_when_building_fails(log: list[str]) -> None:
    class Half(Thing):
        def __init__(self, comm: object, owned: Owned) -> None:
            super().__init__(log, owned)
            raise ValueError("no")

    class Halves(BuiltOnce[Half]):
        def _begin(self, built: Half, values: dict[str, float]) -> Callable[[int], Snapshot]:
            raise AssertionError

    things = Halves(CONFIG, Half)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            things.run(VALUES, self_communicator())
    assert log == ["built", "destroyed"] * 2


def test_closing_twice_destroys_once(things: Things, log: list[str]) -> None:
    things.member()
    things.close()
    things.close()
    assert log == ["built", "destroyed"]
