"""Which member may go on."""

import pytest

from solvers.numerics.turns import Turns


def test_the_newest_member_goes_on() -> None:
    turns = Turns()
    turn = turns.begin()
    turns.check(turn, step=0)
    turns.check(turn, step=5)


def test_an_older_member_stops() -> None:
    turns = Turns()
    older = turns.begin()
    turns.check(turns.begin(), step=0)
    with pytest.raises(RuntimeError, match="stopped at solver step 3: its solver was closed or"):
        turns.check(older, step=3)
