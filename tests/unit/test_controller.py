from collections import Counter

import numpy as np
import pytest

from pipeline.controller import (
    Assignment,
    Broken,
    Controller,
    Decision,
    EndProduction,
    EndValidation,
    MemberCompleted,
    MemberFailed,
    Replace,
    Start,
    Stop,
    TimePassed,
    TrainingEnded,
    WorkerLost,
    WorkerReady,
)
from pipeline.stats import MemberReport


def controller(**changes: float | int | None) -> Controller:
    settings: dict[str, float | int | None] = {
        "validation": 2,
        "members": 5,
        "max_attempts": 3,
        "max_failed_fraction": 0.5,
    }
    return Controller(**(settings | changes))  # type: ignore[arg-type]


def completed(start: Start) -> MemberCompleted:
    report = MemberReport(
        member=start.assignment.member,
        attempt=start.assignment.attempt,
        samples=100,
        bytes_sent=100 * 16384,
        wall_seconds=0.3,
        wait_seconds=0.0,
    )
    return MemberCompleted(start.worker, report)


def starts(decisions: list[Decision]) -> list[Start]:
    return [d for d in decisions if isinstance(d, Start)]


def test_validation_members_are_dispatched_before_training_members() -> None:
    control = controller()
    order: list[Assignment] = []
    pending = starts(control.handle(WorkerReady(0), 0.0))
    while pending:
        order.append(pending[0].assignment)
        pending = starts(control.handle(completed(pending[0]), 1.0))
    assert [a.member for a in order] == list(range(7))
    assert [a.validation for a in order] == [True, True] + [False] * 5


def test_a_worker_runs_one_member_at_a_time() -> None:
    control = controller()
    assert len(starts(control.handle(WorkerReady(4), 0.0))) == 1
    assert starts(control.handle(TimePassed(), 0.0)) == []


def test_every_member_ends_exactly_once_whatever_happens() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        control = controller(validation=3, members=20, max_failed_fraction=1.0)
        running: list[Start] = []
        ended: Counter[int] = Counter()
        endings: Counter[str] = Counter()

        def take(decisions: list[Decision], running: list[Start], endings: Counter[str]) -> None:
            running.extend(starts(decisions))
            endings.update(type(d).__name__ for d in decisions if not isinstance(d, Start))

        for worker in range(3):
            take(control.handle(WorkerReady(worker), 0.0), running, endings)
        while running:
            start = running.pop(rng.integers(len(running)))
            fate = rng.choice(["completed", "failed", "final", "lost"], p=[0.5, 0.3, 0.1, 0.1])
            before = len(control.failures)
            if fate == "completed":
                take(control.handle(completed(start), 1.0), running, endings)
                ended[start.assignment.member] += 1
            elif fate == "lost":
                take(control.handle(WorkerLost(start.worker, "SIGKILL"), 1.0), running, endings)
                take(control.handle(WorkerReady(start.worker), 2.0), running, endings)
            else:
                event = MemberFailed(start.worker, "KSP diverged", final=fate == "final")
                take(control.handle(event, 1.0), running, endings)
            if len(control.failures) > before:
                ended[start.assignment.member] += 1
        assert ended == Counter(range(23))
        assert control.counts.completed + control.counts.failed == 23
        assert endings == {"EndValidation": 1, "EndProduction": 1}


def test_a_failed_attempt_is_tried_again_up_to_max_attempts() -> None:
    control = controller(validation=0, members=1, max_failed_fraction=1.0)
    (start,) = starts(control.handle(WorkerReady(0), 0.0))
    attempts = [start.assignment.attempt]
    for _ in range(2):
        (start,) = starts(control.handle(MemberFailed(0, "diverged", final=False), 1.0))
        attempts.append(start.assignment.attempt)
    assert attempts == [1, 2, 3]
    decisions = control.handle(MemberFailed(0, "diverged", final=False), 2.0)
    assert decisions == [EndProduction()]
    assert control.failures[0].reason == "diverged"
    assert control.failures[0].attempts == 3


def test_a_final_failure_is_not_tried_again() -> None:
    control = controller(validation=0, members=1, max_failed_fraction=1.0)
    control.handle(WorkerReady(0), 0.0)
    control.handle(MemberFailed(0, "viscosity < 0", final=True), 1.0)
    assert control.counts.failed == 1
    assert control.counts.retries == 0


def test_a_lost_idle_worker_changes_nothing() -> None:
    control = controller()
    control.handle(WorkerReady(0), 0.0)
    assert control.handle(WorkerLost(1, "SIGKILL"), 1.0) == []
    assert control.counts.running == 1


def test_validation_ends_after_its_last_member_and_before_production() -> None:
    control = controller(validation=1, members=1)
    (first,) = starts(control.handle(WorkerReady(0), 0.0))
    decisions = control.handle(completed(first), 1.0)
    assert EndValidation() in decisions
    assert EndProduction() not in decisions
    (second,) = starts(decisions)
    assert control.handle(completed(second), 2.0) == [EndProduction()]


def test_without_validation_members_validation_ends_at_once() -> None:
    assert EndValidation() in controller(validation=0).handle(WorkerReady(0), 0.0)


def test_an_overdue_attempt_is_replaced_once() -> None:
    control = controller(member_timeout=10.0)
    control.handle(WorkerReady(0), 0.0)
    assert control.handle(TimePassed(), 10.0) == []
    (decision,) = control.handle(TimePassed(), 10.5)
    assert isinstance(decision, Replace)
    assert "member_timeout=10 s" in decision.reason
    assert control.handle(TimePassed(), 11.0) == []


def test_too_many_failed_members_stop_the_study_with_the_last_reason() -> None:
    control = controller(validation=0, members=4, max_attempts=1, max_failed_fraction=0.25)
    control.handle(WorkerReady(0), 0.0)
    assert starts(control.handle(MemberFailed(0, "diverged", final=False), 1.0))
    (stop,) = control.handle(MemberFailed(0, "diverged again", final=False), 2.0)
    assert isinstance(stop, Stop)
    assert stop.reason is not None
    assert "2 of 4 members failed" in stop.reason
    assert "max_failed_fraction=0.25" in stop.reason
    assert "diverged again" in stop.reason


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Broken("rank 1: loss is not finite"), "rank 1: loss is not finite"),
        (TrainingEnded(), "training ended too early"),
    ],
)
def test_the_study_stops_once(event: Broken | TrainingEnded, reason: str) -> None:
    control = controller()
    control.handle(WorkerReady(0), 0.0)
    assert control.handle(event, 1.0) == [Stop(reason)]
    assert control.handle(event, 2.0) == []


def test_training_that_ends_after_production_is_a_success() -> None:
    control = controller(validation=0, members=1)
    (start,) = starts(control.handle(WorkerReady(0), 0.0))
    control.handle(completed(start), 1.0)
    assert control.handle(TrainingEnded(), 2.0) == [Stop(None)]


def test_after_the_time_for_production_no_training_member_starts() -> None:
    control = controller(validation=1, members=50, production_seconds=10.0)
    (first,) = starts(control.handle(WorkerReady(0), 0.0))
    (second,) = starts(control.handle(completed(first), 4.0))
    assert second.assignment.member == 1
    assert control.handle(TimePassed(), 10.0) == []  # the one that runs goes on
    assert control.counts.waiting == 0
    assert control.handle(completed(second), 11.0) == [EndProduction()]
    assert control.handle(TrainingEnded(), 12.0) == [Stop(None)]


def test_validation_members_run_even_after_the_time_for_production() -> None:
    control = controller(production_seconds=1.0)
    (first,) = starts(control.handle(WorkerReady(0), 0.0))
    (second,) = starts(control.handle(completed(first), 5.0))
    assert second.assignment.validation
    assert control.handle(completed(second), 6.0) == [EndValidation(), EndProduction()]
