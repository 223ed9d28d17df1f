"""Turns the parts' counters into one ``StudyStats``: rates, who waits for whom, time left.

1. Rates are over the last ``WINDOW_SECONDS``, so that they follow the study without flickering.
2. A side is said to wait when it stood still for more than ``WAITING_SHARE`` of that window.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

from pipeline.stats.breakeven import Cost, breakeven
from pipeline.stats.stats import MemberCounts, Phase, ReservoirStats, StudyStats, Waiting
from trainers.results import QueryTime, TrainStats

WINDOW_SECONDS = 5.0
WAITING_SHARE = 0.1


class _Reading(NamedTuple):
    at: float
    inserted: int
    drawn: int
    solver_blocked: float
    trainer_blocked: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What solvers have done so far.

    Attributes:
        attempt_seconds: Of all attempts at members, those under way included.
        solve_seconds: Inside the solver, sum over completed members.
        completed: Members that are behind it.
    """

    attempt_seconds: float = 0.0
    solve_seconds: float = 0.0
    completed: int = 0


@final
class Watch:
    """Keeps the last few readings of a study.

    Args:
        samples_expected: Training samples the ensemble yields when no member fails.
        simulates: Whether all members are simulated; where some come from a record, nobody knows
            what a member takes.
    """

    def __init__(self, *, samples_expected: int, simulates: bool = True) -> None:
        self._expected, self._simulates = samples_expected, simulates
        # Two readings a second are taken; the bound only matters if somebody reads much faster.
        self._readings: deque[_Reading] = deque([_Reading(0.0, 0, 0, 0.0, 0.0)], maxlen=256)

    def observe(
        self,
        *,
        at: float,
        members: MemberCounts,
        reservoirs: Sequence[ReservoirStats],
        ranks: Sequence[TrainStats],
        solver_wait_seconds: float,
        effort: Effort = Effort(),
        over: Phase | None = None,
    ) -> StudyStats:
        """Combine what the parts say.

        Args:
            at: Seconds since the study's start.
            members: How far the ensemble is.
            reservoirs: One per rank.
            ranks: Newest report of each rank.
            solver_wait_seconds: Sum over finished attempts.
            effort: Of the solvers.
            over: ``"done"`` or ``"failed"`` once the study has ended.
        """
        newest = _Reading(
            at,
            sum(r.inserted for r in reservoirs),
            sum(r.drawn for r in reservoirs),
            sum(r.solver_blocked_seconds for r in reservoirs),
            sum(r.trainer_blocked_seconds for r in reservoirs),
        )
        self._readings.append(newest)
        while len(self._readings) > 2 and at - self._readings[0].at > WINDOW_SECONDS:
            self._readings.popleft()
        oldest = self._readings[0]
        span = max(at - oldest.at, 1e-9)
        inserted_rate = (newest.inserted - oldest.inserted) / span
        drawn_rate = (newest.drawn - oldest.drawn) / span
        query, cost = query_of(ranks), _cost(effort, trainer_seconds=at * len(reservoirs))
        if not self._simulates:
            cost = replace(cost, member_seconds=None)
        return StudyStats(
            elapsed_seconds=at,
            phase=over or _phase(reservoirs, ranks),
            members=members,
            reservoirs=tuple(reservoirs),
            ranks=tuple(ranks),
            samples_expected=self._expected,
            samples_inserted_per_second=inserted_rate,
            samples_drawn_per_second=drawn_rate,
            reuse_mean=newest.drawn / newest.inserted if newest.inserted else 0.0,
            waiting=_waiting(oldest, newest, span * max(len(reservoirs), 1)),
            solver_wait_seconds=solver_wait_seconds,
            remaining_seconds=_remaining(self._expected, newest, reservoirs, drawn_rate),
            cost=cost,
            breakeven=breakeven(cost, query),
        )


def _cost(effort: Effort, *, trainer_seconds: float) -> Cost:
    solved = effort.completed > 0
    return Cost(
        solver_seconds=effort.attempt_seconds,
        trainer_seconds=trainer_seconds,
        member_seconds=effort.solve_seconds / effort.completed if solved else None,
    )


def query_of(ranks: Sequence[TrainStats]) -> QueryTime | None:
    """The first that a rank has measured."""
    results = (rank.validation for rank in ranks if rank.validation is not None)
    return next((result.query for result in results if result.query is not None), None)


def _phase(reservoirs: Sequence[ReservoirStats], ranks: Sequence[TrainStats]) -> Phase:
    if not any(r.inserted or r.validation_held for r in reservoirs):
        return "starting"
    if not any(rank.train_step for rank in ranks) and not any(r.drawn for r in reservoirs):
        return "filling"
    if all(r.production_ended for r in reservoirs):
        return "draining"
    return "training"


def _waiting(oldest: _Reading, newest: _Reading, span: float) -> Waiting:
    solvers = (newest.solver_blocked - oldest.solver_blocked) / span
    trainer = (newest.trainer_blocked - oldest.trainer_blocked) / span
    if max(solvers, trainer) < WAITING_SHARE:
        return "nobody"
    return "solvers" if solvers >= trainer else "trainer"


def _remaining(
    expected: int, newest: _Reading, reservoirs: Sequence[ReservoirStats], drawn_rate: float
) -> float | None:
    """Seconds until the last sample is stored at the mean rate so far, and the draws due then."""
    if not newest.inserted or not drawn_rate:
        return None
    if all(r.production_ended for r in reservoirs):
        return sum(r.due for r in reservoirs) / drawn_rate
    production = max(expected - newest.inserted, 0) * newest.at / newest.inserted
    return production + sum(r.due for r in reservoirs) / drawn_rate
