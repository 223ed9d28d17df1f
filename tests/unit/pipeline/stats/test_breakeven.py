import pytest

from pipeline.stats.breakeven import Cost, breakeven, queries_to_pay
from trainers.results import QueryTime

QUERY = QueryTime(
    device="cpu", snapshots=41, alone_seconds=0.5, batch=64, batched_seconds=0.25
)  # fmt: skip


def test_queries_are_the_cost_over_what_each_of_them_saves() -> None:
    assert queries_to_pay(100.0, 2.5, 0.5) == 50
    assert queries_to_pay(101.0, 2.5, 0.5) == 51
    assert queries_to_pay(0.0, 2.5, 0.5) == 0


@pytest.mark.parametrize("cost", [7.3, 99.9, 1234.5])
def test_it_is_the_first_query_that_pays(cost: float) -> None:
    member, query = 1.7, 0.013
    count = queries_to_pay(cost, member, query)
    assert count is not None
    assert count * member >= cost + count * query
    assert (count - 1) * member < cost + (count - 1) * query


@pytest.mark.parametrize("member_seconds", [0.5, 0.49, 0.0])
def test_a_surrogate_that_is_not_faster_never_pays(member_seconds: float) -> None:
    assert queries_to_pay(100.0, member_seconds, 0.5) is None


def test_solvers_and_ranks_are_paid_back_together() -> None:
    cost = Cost(solver_seconds=60.0, trainer_seconds=30.0, member_seconds=2.0)
    paid = breakeven(cost, QUERY)
    assert paid is not None
    assert paid.cost_seconds == 90.0
    assert (paid.member_seconds, paid.query_seconds, paid.queries) == (2.0, 0.5, 60)
    assert (paid.batched_query_seconds, paid.batched_queries) == (0.25, 52)


def test_many_at_once_may_pay_where_one_alone_does_not() -> None:
    cost = Cost(solver_seconds=60.0, trainer_seconds=30.0, member_seconds=0.4)
    paid = breakeven(cost, QUERY)
    assert paid is not None
    assert (paid.queries, paid.batched_queries) == (None, 600)


def test_what_is_not_known_yet_is_no_guess() -> None:
    assert breakeven(Cost(solver_seconds=60.0, trainer_seconds=30.0), QUERY) is None
    assert breakeven(Cost(member_seconds=2.0), None) is None
