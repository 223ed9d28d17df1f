import math
from dataclasses import replace
from typing import Any

import pytest

from pipeline.stats.breakeven import Cost
from pipeline.stats.stats import MemberCounts, ReservoirStats, StudyStats
from pipeline.stats.summary import summarise
from pipeline.stats.watch import Effort, Watch
from tests.errors import made_errors
from tests.strict import strict_json
from trainers.durable import json_text
from trainers.results import QueryTime, TrainStats, ValidationResult

COUNTS = MemberCounts(total=12, waiting=3, running=2, completed=7, failed=0, retries=0)
EMPTY = ReservoirStats(
    rank=0,
    capacity=600,
    held=0,
    unseen=0,
    leased=0,
    inserted=0,
    drawn=0,
    unique=0,
    evicted=0,
    due=0,
    duplicates=0,
    refused=0,
    pending=0,
    bytes_received=0,
    solver_blocked_seconds=0.0,
    trainer_blocked_seconds=0.0,
    validation_held=0,
    production_ended=False,
)
RANK = TrainStats(
    rank=0,
    train_step=0,
    loss=1.0,
    learning_rate=1e-3,
    wait_seconds=0.0,
    first_step_seconds=None,
    validation=None,
)


def observe(watch: Watch, at: float, *reservoirs: ReservoirStats) -> StudyStats:
    return watch.observe(
        at=at, members=COUNTS, reservoirs=reservoirs, ranks=(RANK,), solver_wait_seconds=0.0
    )


def test_rates_are_over_the_last_window_only() -> None:
    watch = Watch(samples_expected=10_000)
    observe(watch, 1.0, EMPTY)
    observe(watch, 10.0, replace(EMPTY, inserted=9000, drawn=900))
    stats = observe(watch, 12.0, replace(EMPTY, inserted=9200, drawn=1100))
    assert stats.samples_inserted_per_second == pytest.approx(100.0)
    assert stats.samples_drawn_per_second == pytest.approx(100.0)
    assert stats.reuse_mean == pytest.approx(1100 / 9200)


@pytest.mark.parametrize(
    ("solver_blocked", "trainer_blocked", "waiting"),
    [(0.05, 0.05, "nobody"), (1.5, 0.2, "solvers"), (0.0, 0.9, "trainer")],
)
def test_who_waits_for_whom(solver_blocked: float, trainer_blocked: float, waiting: str) -> None:
    watch = Watch(samples_expected=10_000)
    observe(watch, 10.0, EMPTY)
    later = replace(
        EMPTY, solver_blocked_seconds=solver_blocked, trainer_blocked_seconds=trainer_blocked
    )
    assert observe(watch, 12.0, later).waiting == waiting


def test_phases_follow_the_study() -> None:
    watch = Watch(samples_expected=100)
    assert observe(watch, 1.0, EMPTY).phase == "starting"
    assert observe(watch, 2.0, replace(EMPTY, inserted=10)).phase == "filling"
    assert observe(watch, 3.0, replace(EMPTY, inserted=10, drawn=4)).phase == "training"
    ended = replace(EMPTY, inserted=10, drawn=4, production_ended=True)
    assert observe(watch, 4.0, ended).phase == "draining"


def test_the_cost_is_of_all_attempts_and_all_ranks() -> None:
    query = QueryTime(device="cpu", snapshots=4, alone_seconds=0.5, batch=8, batched_seconds=0.125)
    measured = ValidationResult(train_step=5, samples=4, one_step=made_errors(), query=query)
    watch, effort = Watch(samples_expected=300), Effort(
        attempt_seconds=70.0, solve_seconds=40.0, completed=16
    )  # fmt: skip
    known: dict[str, Any] = {
        "members": COUNTS,
        "reservoirs": (EMPTY, EMPTY),
        "solver_wait_seconds": 0.0,
    }
    early = watch.observe(at=1.0, ranks=(RANK,), effort=Effort(attempt_seconds=2.0), **known)
    assert early.cost == Cost(solver_seconds=2.0, trainer_seconds=2.0, member_seconds=None)
    assert early.breakeven is None
    before = watch.observe(at=10.0, ranks=(RANK,), effort=effort, **known)
    assert before.cost == Cost(solver_seconds=70.0, trainer_seconds=20.0, member_seconds=2.5)
    assert before.breakeven is None  # nobody has measured the surrogate yet
    ranks = (RANK, replace(RANK, rank=1, validation=measured))
    stats = watch.observe(at=10.0, ranks=ranks, effort=effort, **known)
    assert stats.breakeven is not None
    assert (stats.breakeven.queries, stats.breakeven.batched_queries) == (45, 38)
    faster = replace(query, alone_seconds=0.25)
    summary = summarise("heat", stats, query=faster)
    assert summary.query == faster  # of the finished surrogate
    assert summary.breakeven is not None
    assert summary.breakeven.queries == 40


def test_the_summary_has_errors_of_single_steps_and_of_rollouts() -> None:
    one_step, rollouts = made_errors([0.1, 0.2]), made_errors([0.3, 0.6], relative_l2=0.45)
    result = ValidationResult(train_step=5, samples=4, one_step=one_step, rollout=rollouts)
    stats = observe(Watch(samples_expected=300), 1.0, EMPTY)
    summary = summarise("heat", replace(stats, ranks=(replace(RANK, validation=result),)))
    assert (summary.one_step_spread, summary.rollout_spread) == (one_step.spread, rollouts.spread)
    assert (summary.rollout_mse, summary.rollout_relative_l2) == (4.0, 0.45)
    maps = replace(result, rollout=None)
    summary = summarise("heat", replace(stats, ranks=(replace(RANK, validation=maps),)))
    assert (summary.rollout_spread, summary.rollout_mse) == (None, None)


@pytest.mark.parametrize(("fields", "known"), [(1, True), (2, False)])
def test_the_summary_has_one_mean_squared_error_where_there_is_one_field(
    fields: int, known: bool
) -> None:
    lost = made_errors([math.inf, 0.2], fields=[("u", "m"), ("v", "K")][:fields], mse=math.inf)
    result = ValidationResult(train_step=5, samples=4, one_step=lost, rollout=lost)
    stats = observe(Watch(samples_expected=300), 1.0, EMPTY)
    summary = summarise("heat", replace(stats, ranks=(replace(RANK, validation=result),)))
    assert summary.validation_relative_l2 == (0.05 if known else None)
    assert (summary.validation_mse is not None) == known
    tree = strict_json(json_text(summary.as_json()))
    assert tree["validation_error"] == pytest.approx(0.2)
    assert tree["validation_mse"] is None  # infinite, or of fields of two units
    assert tree["rollout_spread"]["diverged"] == 1
    assert [one["unit"] for one in tree["one_step"]["fields"]] == ["m", "K"][:fields]


def test_time_left_is_production_then_drain() -> None:
    watch = Watch(samples_expected=300)
    observe(watch, 8.0, EMPTY)
    stats = observe(watch, 10.0, replace(EMPTY, inserted=100, due=50, drawn=200))
    # 200 samples to come at 10/s, then 50 draws at 100 draws/s.
    assert stats.remaining_seconds == pytest.approx(20.0 + 0.5)
