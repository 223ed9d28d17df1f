from dataclasses import replace

import pytest

from pipeline.stats import MemberCounts, ReservoirStats, StudyStats
from pipeline.watch import Watch
from trainers.base import TrainStats

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


def test_time_left_is_production_then_drain() -> None:
    watch = Watch(samples_expected=300)
    observe(watch, 8.0, EMPTY)
    stats = observe(watch, 10.0, replace(EMPTY, inserted=100, held=50, drawn=200))
    # 200 samples to come at 10/s, then 50 held ones at 100 draws/s.
    assert stats.remaining_seconds == pytest.approx(20.0 + 0.5)
