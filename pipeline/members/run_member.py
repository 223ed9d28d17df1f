"""How a member is run: a solver's snapshots, cut into samples, handed to a sender.

1. A member's samples are numbered 0, 1, 2, ... in the order of their solver steps.
2. A member has completed only when every sample of it is stored in a slot.
3. A non-finite or misshapen snapshot ends the attempt and is never sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64

from pipeline.members.attempt import Assignment, MemberReport
from pipeline.stream.sender import SenderStats
from solvers.base import Snapshot, Solver, SolverFailed


@runtime_checkable
class SampleSender(Protocol):
    """What of a ``pipeline.stream.sender.Sender`` a member needs."""

    @property
    def stats(self) -> SenderStats:
        """Counters since the sender was made."""
        ...

    def open(
        self,
        *,
        member: int,
        attempt: int,
        parameters: Float64[np.ndarray, " parameters"],
        validation: bool,
    ) -> None:
        """Start a member."""
        ...

    def send(
        self,
        *,
        sample: int,
        step: int,
        times: Float64[np.ndarray, " window"],
        fields: Float[np.ndarray, " window channel *grid"],
    ) -> None:
        """Hand over one sample; waits while there is no credit."""
        ...

    def flush(self, *, timeout: float) -> None:
        """Wait until everything is stored."""
        ...


def windows(
    snapshots: Iterator[Snapshot], *, window: int, stride: int, initial_state: bool
) -> Iterator[list[Snapshot]]:
    """Cut a member into samples of ``window`` consecutive snapshots.

    Args:
        snapshots: A member, from its initial state on.
        window: Snapshots in a sample.
        stride: Snapshots from the start of one sample to that of the next.
        initial_state: Whether the snapshot at the initial time may be part of a sample.
    """
    held: list[Snapshot] = []
    skipped = 0  # between samples, where they leave gaps
    for snapshot in snapshots:
        if snapshot.step == 0 and not initial_state:
            continue
        if skipped:
            skipped -= 1
            continue
        held.append(snapshot)
        if len(held) == window:
            yield list(held)
            skipped = max(0, stride - window)
            del held[:stride]


@final
class Meter:
    """What a member took: passes its snapshots on, and adds up.

    Attributes:
        seconds: Inside the solver.
        iterations: Of its linear, or else its nonlinear, solves.
        refused: Steps that it tried in vain.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.iterations = 0
        self.refused = 0

    def __call__(self, snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
        """The same snapshots."""
        while True:
            asked = self._clock()
            snapshot = next(snapshots, None)
            self.seconds += self._clock() - asked
            if snapshot is None:
                return
            self.iterations += snapshot.iterations
            self.refused += snapshot.refused
            yield snapshot


def run_member(
    solver: Solver,
    sender: SampleSender,
    assignment: Assignment,
    parameters: Mapping[str, float],
    *,
    comm: object,
    downsampling: Callable[[Iterator[Snapshot]], Iterator[Snapshot]],
    window: int,
    stride: int = 1,
    initial_state: bool,
    time_step: float,
    flush_timeout: float,
    clock: Callable[[], float],
) -> MemberReport:
    """Run one attempt to its end and wait until all of it is stored.

    Args:
        solver: Reused from member to member.
        sender: Likewise.
        assignment: Which attempt at which member.
        parameters: By name, in the solver's order and units.
        comm: Handed to the solver.
        downsampling: From what the solver yields to what leaves it.
        window: Snapshots in a sample.
        stride: Snapshots from the start of one sample to that of the next.
        initial_state: Whether the snapshot at the initial time may be part of a sample.
        time_step: Seconds from one snapshot of a sample to the next.
        flush_timeout: Seconds to wait for the last acknowledgements.
        clock: Monotonic seconds.

    Raises:
        SolverFailed: The solver gave up, or yielded something else than it announced.
    """
    started, before = clock(), sender.stats
    sender.open(
        member=assignment.member,
        attempt=assignment.attempt,
        parameters=np.fromiter(parameters.values(), np.float64, len(parameters)),
        validation=assignment.validation,
    )
    samples, meter = 0, Meter(clock)
    snapshots = downsampling(meter(solver.run(parameters, comm)))
    for group in windows(snapshots, window=window, stride=stride, initial_state=initial_state):
        times = np.array([snapshot.time for snapshot in group])
        if window > 1:
            _require_equal_steps(times, time_step)
        # A window of one needs no copy: the view is handed on as it is.
        fields = (
            group[0].fields[None]
            if window == 1
            else np.stack([snapshot.fields for snapshot in group])
        )
        sender.send(sample=samples, step=group[0].step, times=times, fields=fields)
        samples += 1
    flushing = clock()
    sender.flush(timeout=flush_timeout)
    finished, after = clock(), sender.stats
    return MemberReport(
        member=assignment.member,
        attempt=assignment.attempt,
        samples=samples,
        bytes_sent=after.bytes_sent - before.bytes_sent,
        wall_seconds=finished - started,
        # A flush takes a millisecond, unless the reservoir has no room for the last samples.
        wait_seconds=after.wait_seconds - before.wait_seconds + finished - flushing,
        solve_seconds=meter.seconds,
        iterations=meter.iterations,
        refused=meter.refused,
    )


def _require_equal_steps(times: Float64[np.ndarray, " window"], time_step: float) -> None:
    """A network that steps has learnt one step, and goes by it in a rollout."""
    wrong = np.abs(np.diff(times) - time_step) > 1e-3 * time_step + 1e-6 * np.abs(times[1:])
    for place in np.flatnonzero(wrong)[:1]:
        before, now = times[place : place + 2]
        raise SolverFailed(
            f"snapshots of {before:g} s and {now:g} s are {now - before:g} s apart, but the task "
            f"steps by {time_step:g} s, as the solver has announced. Make its steps equal (PETSc: "
            "-ts_adapt_type none), and solver.dt what they are, or take the task direct"
        )


def merged(parts: Sequence[MemberReport]) -> MemberReport:
    """One report of the reports of all mpi_ranks, each of which has sent its part of every sample.

    Raises:
        RuntimeError: They have not sent equally many.
    """
    first = parts[0]
    samples = [part.samples for part in parts]
    if set(samples) != {first.samples}:
        raise RuntimeError(
            f"member {first.member}: its mpi_ranks have sent {samples} samples: a solver must "
            "yield the same snapshots on all of them"
        )
    return replace(
        first,
        bytes_sent=sum(part.bytes_sent for part in parts),
        solve_seconds=max(part.solve_seconds for part in parts),
        wall_seconds=max(part.wall_seconds for part in parts),
        wait_seconds=max(part.wait_seconds for part in parts),
    )
