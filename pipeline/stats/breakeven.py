"""What a study costs, and after how many queries of its surrogate it has paid.

    queries = cost / (solver seconds of a member - surrogate seconds of a query)

The cost is the time for which processes were held: each solver for its attempts at members, failed
ones and waiting included, and each rank from the start of the study on. What a query saves is the
time inside the solver alone, without waiting. Seconds of a CPU core and of a GPU count alike.

Invariants (``tests/unit/pipeline/stats/test_breakeven.py``):

1. A surrogate that is not faster than the solver never pays.
2. The number of queries is whole, and the first that pays: one fewer would not.
3. What is not known yet is None, never a guess.
"""

import math
from dataclasses import dataclass

from trainers.results import QueryTime


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a study has taken so far.

    Attributes:
        solver_seconds: Of all attempts at members, those under way included.
        trainer_seconds: Of all ranks.
        member_seconds: Inside the solver, mean over completed members; None before the first.
    """

    solver_seconds: float = 0.0
    trainer_seconds: float = 0.0
    member_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Breakeven:
    """When a study has paid.

    Attributes:
        cost_seconds: Of solvers and ranks together.
        member_seconds: The solver takes for one member.
        query_seconds: The surrogate takes for the same, alone.
        queries: After so many the study has paid; None: never, the solver is not slower.
        batched_query_seconds: The surrogate takes for the same, among many.
        batched_queries: After so many of those it has paid; None: never.
    """

    cost_seconds: float
    member_seconds: float
    query_seconds: float
    queries: int | None
    batched_query_seconds: float
    batched_queries: int | None


def breakeven(cost: Cost, query: QueryTime | None) -> Breakeven | None:
    """When a study has paid that came to ``cost``; None while either side is unknown."""
    if cost.member_seconds is None or query is None:
        return None
    total = cost.solver_seconds + cost.trainer_seconds
    return Breakeven(
        cost_seconds=total,
        member_seconds=cost.member_seconds,
        query_seconds=query.alone_seconds,
        queries=queries_to_pay(total, cost.member_seconds, query.alone_seconds),
        batched_query_seconds=query.batched_seconds,
        batched_queries=queries_to_pay(total, cost.member_seconds, query.batched_seconds),
    )


def queries_to_pay(cost: float, member_seconds: float, query_seconds: float) -> int | None:
    """Queries after which ``cost`` seconds are saved; None where a query saves nothing."""
    saved = member_seconds - query_seconds
    return math.ceil(cost / saved) if saved > 0.0 else None
