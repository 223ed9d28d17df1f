from collections import Counter

import numpy as np
import pytest

from pipeline.control.controller import MAX_RETRY_SECONDS, RETRY_SECONDS, STUCK_SECONDS, Controller
from pipeline.control.events import (
    BeginTraining,
    Broken,
    Decision,
    EndProduction,
    EndValidation,
    FailedMember,
    Forget,
    MemberCompleted,
    MemberFailed,
    Pass,
    Replace,
    Start,
    Stop,
    TimePassed,
    TrainingEnded,
    WaitingForRoom,
    WorkerLost,
    WorkerReady,
)
from pipeline.members.attempt import Assignment, MemberReport


def controller(**changes: object) -> Controller:
    settings: dict[str, object] = {
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


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("on_failure", ["skip", "redraw"])
def test_every_member_ends_exactly_once_whatever_happens(on_failure: str, ordered: bool) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        control = controller(
            validation=3,
            members=20,
            max_failed_fraction=1.0,
            on_failure=on_failure,
            ordered=ordered,
            first=int(rng.integers(4)),
        )
        now = 0.0
        running: list[Start] = []
        ended: Counter[int] = Counter()
        endings: Counter[str] = Counter()

        def take(decisions: list[Decision], running: list[Start], endings: Counter[str]) -> None:
            running.extend(starts(decisions))
            endings.update(type(d).__name__ for d in decisions if not isinstance(d, Start))

        for worker in range(3):
            take(control.handle(WorkerReady(worker), 0.0), running, endings)
        while running or control.counts.waiting:
            now += MAX_RETRY_SECONDS
            take(control.handle(TimePassed(), now), running, endings)
            left = set(range(23)) - set(ended)
            if ordered and left:  # whose turn it is, whatever failed
                assert min(left) in {start.assignment.member for start in running}
            start = running.pop(rng.integers(len(running)))
            fate = rng.choice(["completed", "failed", "final", "lost"], p=[0.5, 0.3, 0.1, 0.1])
            before = len(control.failures)
            if fate == "completed":
                take(control.handle(completed(start), now), running, endings)
                ended[start.assignment.member] += 1
            elif fate == "lost":
                take(control.handle(WorkerLost(start.worker, "SIGKILL"), now), running, endings)
                take(control.handle(WorkerReady(start.worker), now), running, endings)
            else:
                event = MemberFailed(start.worker, "KSP diverged", final=fate == "final")
                take(control.handle(event, now), running, endings)
            if len(control.failures) > before:
                ended[start.assignment.member] += 1
        counts = control.counts
        assert set(ended.values()) == {1}
        assert set(range(23)) <= set(ended)
        assert len(ended) == 23 + counts.redrawn == counts.completed + counts.failed
        validation_failed = sum(failure.member < 3 for failure in control.failures)
        if on_failure == "redraw":
            assert counts.redrawn == counts.failed - validation_failed
            assert counts.completed == 23 - validation_failed
        assert endings.pop("Forget", 0) == counts.retries + counts.failed
        assert endings.pop("Pass", 0) == (len(ended) if ordered else 0)
        assert endings == {"EndValidation": 1, "BeginTraining": 1, "EndProduction": 1}


def test_a_failed_attempt_is_tried_again_up_to_max_attempts() -> None:
    control = controller(validation=0, members=1, max_failed_fraction=1.0)
    (start,) = starts(control.handle(WorkerReady(0), 0.0))
    attempts = [start.assignment.attempt]
    for now in (100.0, 200.0):
        control.handle(MemberFailed(0, "diverged", final=False), now)
        (start,) = starts(control.handle(TimePassed(), now + MAX_RETRY_SECONDS))
        attempts.append(start.assignment.attempt)
    assert attempts == [1, 2, 3]
    decisions = control.handle(MemberFailed(0, "diverged", final=False), 300.0)
    assert decisions == [Forget(0, 3), EndProduction()]
    assert control.failures[0].reason == "diverged"
    assert control.failures[0].attempts == 3


def test_attempts_wait_longer_and_longer_and_others_go_first() -> None:
    control = controller(validation=0, members=2, max_attempts=12, max_failed_fraction=1.0)
    control.handle(WorkerReady(0), 0.0)
    failed = MemberFailed(0, "killed", final=False)
    (other,) = starts(control.handle(failed, 0.0))
    assert other.assignment.member == 1
    assert starts(control.handle(completed(other), 0.5)) == []
    pauses, now = [], 0.0
    for _ in range(9):
        pause = RETRY_SECONDS
        while not starts(control.handle(TimePassed(), now + pause)):
            assert not starts(control.handle(TimePassed(), now + pause * 0.999))
            pause = min(2 * pause, MAX_RETRY_SECONDS)
        pauses.append(pause)
        now += pause
        assert starts(control.handle(failed, now)) == []
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_in_order_no_member_overtakes_one_that_waits_for_its_next_attempt() -> None:
    control = controller(validation=0, members=3, ordered=True)
    control.handle(WorkerReady(0), 0.0)
    control.handle(WorkerReady(1), 0.0)
    assert starts(control.handle(MemberFailed(0, "killed", final=False), 0.0)) == []
    (again,) = starts(control.handle(TimePassed(), RETRY_SECONDS))
    assert (again.assignment.member, again.assignment.attempt) == (0, 2)


def test_a_redrawn_member_takes_the_place_of_a_failed_one() -> None:
    control = controller(
        members=2, validation=1, on_failure="redraw", ordered=True, max_failed_fraction=1.0
    )
    control.handle(WorkerReady(0), 0.0)
    decisions = control.handle(MemberFailed(0, "diverged", final=True), 1.0)
    assert Pass(0, None) in decisions  # what is compared with is what was asked for
    assert starts(decisions)[0].assignment.member == 1
    decisions = control.handle(MemberFailed(0, "diverged", final=True), 1.0)
    assert Pass(1, 4) in decisions
    (start,) = starts(decisions)
    assert start.assignment.member == 2
    (start,) = starts(control.handle(completed(start), 1.0))
    assert start.assignment == Assignment(member=4, attempt=1, validation=False, instead_of=1)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_resumed_study_runs_what_is_left_and_what_takes_the_place_of_what_failed(
    ordered: bool,
) -> None:
    failures = [FailedMember(0, 3, "diverged"), FailedMember(3, 1, "diverged")]
    failures += [FailedMember(10, 2, "diverged again"), FailedMember(4, 1, "diverged")]
    control = controller(
        completed=frozenset({1, 2, 11}),
        failures=failures,
        on_failure="redraw",
        ordered=ordered,
        max_failed_fraction=1.0,
    )
    assert (control.counts.completed, control.counts.failed, control.counts.redrawn) == (3, 4, 3)
    decisions = control.handle(WorkerReady(0), 0.0)
    told = [Pass(0, None), Pass(1, None), Pass(2, None), Pass(3, 10), Pass(4, 11)]
    told += [Pass(10, 17), Pass(11, None)]
    assert [each for each in decisions if isinstance(each, Pass)] == (told if ordered else [])
    assert EndValidation() in decisions  # one of the two has failed, the other is completed
    members = []
    while started := starts(decisions):
        (start,) = started
        members.append((start.assignment.member, start.assignment.instead_of))
        decisions = control.handle(completed(start), 1.0)
    assert members == [(5, None), (6, None), (17, 10)]
    assert decisions[-1] == EndProduction()


def test_redrawing_ends_when_too_many_have_failed() -> None:
    control = controller(members=4, validation=0, on_failure="redraw", max_failed_fraction=1.0)
    control.handle(WorkerReady(0), 0.0)
    for _ in range(4):
        assert starts(control.handle(MemberFailed(0, "diverged", final=True), 1.0))
    stop = control.handle(MemberFailed(0, "diverged", final=True), 1.0)[-1]
    assert isinstance(stop, Stop)
    assert "5 of 4 members failed" in str(stop.reason)


def test_waiting_for_room_is_not_held_against_an_attempt() -> None:
    control = controller(member_timeout=10.0)
    control.handle(WorkerReady(0), 0.0)
    for second in range(1, 100):
        assert control.handle(WaitingForRoom(frozenset({0, 5})), float(second)) == []
    # What waits at either end of a look has waited.
    assert control.handle(WaitingForRoom(frozenset({5})), 100.0) == []
    assert control.handle(WaitingForRoom(frozenset({5})), 108.0) == []
    (decision,) = control.handle(WaitingForRoom(frozenset()), 112.0)
    assert isinstance(decision, Replace)
    assert "beside 100.0 s of waiting for room" in decision.reason


def test_an_attempt_that_was_ended_is_told_to_have_taken_too_long() -> None:
    control = controller(validation=0, members=1, max_attempts=1, member_timeout=10.0)
    control.handle(WorkerReady(0), 0.0)
    control.handle(TimePassed(), 11.0)
    control.handle(WorkerLost(0, "the actor was killed"), 12.0)
    assert "member_timeout" in control.failures[0].reason


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
    _, stop = control.handle(MemberFailed(0, "diverged again", final=False), 2.0)
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


def test_training_that_may_end_early_is_a_success_and_nothing_more_is_started() -> None:
    control = controller(may_end_early=True)
    (running,) = starts(control.handle(WorkerReady(0), 0.0))
    assert control.handle(TrainingEnded(), 1.0) == [Stop(None)]
    assert control.handle(completed(running), 2.0) == []
    assert control.handle(WorkerReady(1), 2.0) == []


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


def test_training_begins_when_the_first_members_are_over_and_they_are_never_overtaken() -> None:
    control = controller(validation=0, members=9, first=2, max_failed_fraction=1.0)
    first, second = (starts(control.handle(WorkerReady(w), 0.0))[0] for w in (0, 1))
    failed = control.handle(MemberFailed(first.worker, "diverged", final=False), 1.0)
    assert failed == [Forget(0, 1)]  # its worker waits for it
    assert BeginTraining() not in control.handle(completed(second), 1.5)
    again, _ = starts(control.handle(TimePassed(), 1.0 + RETRY_SECONDS))
    assert (again.assignment.member, again.assignment.attempt) == (0, 2)
    assert BeginTraining() in control.handle(completed(again), 3.0)
    assert BeginTraining() not in control.handle(TimePassed(), 4.0)


@pytest.mark.parametrize(("validation", "begun"), [(0, 0.0), (2, STUCK_SECONDS)])
def test_training_begins_where_only_training_makes_room(validation: int, begun: float) -> None:
    """Members larger than the room; a validation member whose worker does not come back."""
    control = controller(validation=validation, members=9, first=2)
    for worker in range(3):
        control.handle(WorkerReady(worker), 0.0)
    if validation:
        control.handle(WorkerLost(0, "the node is gone"), 1.0)
        control.handle(MemberFailed(1, "diverged", final=True), 1.0)
        control.handle(TimePassed(), 2.0)
    waiting = WaitingForRoom(frozenset({0, 1, 2, 3, 4}))
    assert (BeginTraining() in control.handle(waiting, 3.0)) == (begun == 0)
    assert (BeginTraining() in control.handle(waiting, 3.0 + STUCK_SECONDS)) == (begun > 0)


def test_an_ordered_study_never_begins_by_chance() -> None:
    control = controller(validation=0, members=9, first=2, ordered=True)
    for worker in range(2):
        control.handle(WorkerReady(worker), 0.0)
    waiting = WaitingForRoom(frozenset({0, 1}))
    for now in (1.0, 1.0 + 2 * STUCK_SECONDS):
        assert BeginTraining() not in control.handle(waiting, now)
