from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.members.attempt import Assignment, MemberReport
from pipeline.members.run_member import run_member, windows
from pipeline.stream.sender import SenderStats
from solvers.base import FieldSpec, Snapshot, SolverFailed

GRID = (4, 6)


class Ramp:
    """Yields fields full of ``slope * step``; fails at ``fails_at``."""

    def __init__(self, *, steps: int, fails_at: int | None = None) -> None:
        self._steps, self._fails_at = steps, fails_at

    @property
    def spec(self) -> FieldSpec:
        return FieldSpec(names=("u",), units=("K",), shape=GRID, spacing=(0.1, 0.1))

    @property
    def max_snapshots(self) -> int:
        return self._steps + 1

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        assert comm == "communicator"
        for step in range(self._steps + 1):
            if step == self._fails_at:
                raise SolverFailed(f"diverged at step {step}")
            values = np.full((1, *GRID), parameters["slope"] * step, np.float32)
            yield Snapshot(step, 0.5 * step, values, iterations=7 * step, refused=int(step > 0))

    def close(self) -> None:
        """Holds nothing."""


@dataclass
class Recorder:
    """Keeps what it is handed; pretends to wait a second for each flush."""

    opened: list[tuple[int, int, list[float], bool]] = field(default_factory=list)
    sent: list[tuple[int, int, list[float], list[float]]] = field(default_factory=list)
    flushed: int = 0

    @property
    def stats(self) -> SenderStats:
        return SenderStats(
            samples=len(self.sent),
            bytes_sent=96 * len(self.sent),
            wait_seconds=float(self.flushed),
            resent=0,
        )

    def open(
        self,
        *,
        member: int,
        attempt: int,
        parameters: "np.ndarray[Any, np.dtype[np.float64]]",
        validation: bool,
    ) -> None:
        self.opened.append((member, attempt, parameters.tolist(), validation))

    def send(
        self,
        *,
        sample: int,
        step: int,
        times: "np.ndarray[Any, np.dtype[np.float64]]",
        fields: "np.ndarray[Any, np.dtype[np.float32]]",
    ) -> None:
        assert fields.shape == (times.size, 1, *GRID)
        self.sent.append((sample, step, times.tolist(), fields[:, 0, 0, 0].tolist()))

    def flush(self, *, timeout: float) -> None:
        assert timeout == 60.0
        self.flushed += 1


def run(
    solver: Ramp,
    sender: Recorder,
    *,
    window: int = 1,
    initial_state: bool = False,
    time_step: float = 0.5,
) -> MemberReport:
    ticks = iter(range(100))
    return run_member(
        solver,
        sender,
        Assignment(member=11, attempt=2, validation=False),
        {"slope": 3.0},
        comm="communicator",
        downsampling=lambda snapshots: snapshots,
        window=window,
        initial_state=initial_state,
        time_step=time_step,
        flush_timeout=60.0,
        clock=lambda: float(next(ticks)),
    )


def test_samples_are_numbered_in_the_order_of_their_steps() -> None:
    sender = Recorder()
    report = run(Ramp(steps=3), sender)
    assert sender.opened == [(11, 2, [3.0], False)]
    assert sender.sent == [(0, 1, [0.5], [3.0]), (1, 2, [1.0], [6.0]), (2, 3, [1.5], [9.0])]
    assert (report.samples, report.bytes_sent) == (3, 288)
    # Each look at the clock is a second: one before and after each of four snapshots and the end.
    assert (report.member, report.attempt, report.wall_seconds) == (11, 2, 12.0)
    assert (report.solve_seconds, report.iterations, report.refused) == (5.0, 0 + 7 + 14 + 21, 3)


def test_waiting_is_for_credit_and_for_the_last_samples() -> None:
    # The recorder says it waited a second for credit; the flush takes another, one tick.
    assert run(Ramp(steps=3), Recorder()).wait_seconds == 2.0


def test_a_window_holds_consecutive_snapshots_one_starting_at_every_step() -> None:
    sender = Recorder()
    run(Ramp(steps=3), sender, window=2, initial_state=True)
    assert sender.sent == [
        (0, 0, [0.0, 0.5], [0.0, 3.0]),
        (1, 1, [0.5, 1.0], [3.0, 6.0]),
        (2, 2, [1.0, 1.5], [6.0, 9.0]),
    ]


def test_a_member_has_completed_only_when_everything_is_stored() -> None:
    sender = Recorder()
    run(Ramp(steps=3), sender)
    assert sender.flushed == 1


def test_a_failed_member_keeps_what_it_sent_and_is_not_reported_as_completed() -> None:
    sender = Recorder()
    with pytest.raises(SolverFailed, match="diverged at step 2"):
        run(Ramp(steps=3, fails_at=2), sender)
    assert [sample for sample, *_ in sender.sent] == [0]
    assert sender.flushed == 0


def test_a_member_shorter_than_the_window_yields_no_sample() -> None:
    snapshots = Ramp(steps=1).run({"slope": 1.0}, "communicator")
    assert list(windows(snapshots, window=3, stride=1, initial_state=True)) == []


@pytest.mark.parametrize(
    ("window", "stride", "starts"),
    [(1, 1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, 2, [0, 2, 4]), (2, 3, [0, 3, 6]), (4, 4, [0, 4])],
)
def test_samples_start_stride_snapshots_apart(window: int, stride: int, starts: list[int]) -> None:
    snapshots = Ramp(steps=7).run({"slope": 1.0}, "communicator")
    cut = list(windows(snapshots, window=window, stride=stride, initial_state=True))
    assert [[each.step for each in group] for group in cut] == [
        list(range(start, start + window)) for start in starts
    ]
    assert len(cut) == (8 - window) // stride + 1


def test_unequal_steps_are_refused_where_a_task_steps_at_the_first_that_is_seen() -> None:
    sender = Recorder()
    with pytest.raises(SolverFailed, match=r"of 0 s and 0\.5 s are 0\.5 s apart.* by 0\.02 s"):
        run(Ramp(steps=3), sender, window=2, initial_state=True, time_step=0.02)
    assert sender.sent == []


def test_where_no_task_steps_times_are_what_they_are() -> None:
    assert run(Ramp(steps=3), Recorder(), time_step=0.02).samples == 3


def test_steps_may_differ_by_the_rounding_of_float32() -> None:
    assert run(Ramp(steps=3), Recorder(), window=2, time_step=0.5 + 1e-6).samples == 2
