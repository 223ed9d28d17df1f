"""One process that solves: a solver and its sender, reused for member after member.

It is the body of a SolverActor whose members have one mpi_rank, and of every mpi_rank of a group.

1. On several mpi_ranks each sends its own box of the field, a few samples together at most.
2. A failed attempt is told when what it has sent is stored, as it is for one that succeeds.
3. A member of a record is sent like one that is computed; without any other, no solver is built.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

from pipeline.errors import StreamRefused
from pipeline.flow import MOST_TOGETHER
from pipeline.members.attempt import Assignment, MemberReport
from pipeline.members.downsample import Downsampling, Part
from pipeline.members.run_member import run_member
from pipeline.record.replay import RecordedMembers
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sender import Sender
from pipeline.study.config import StudyConfig
from pipeline.study.source import recorded_numbers
from solvers import registry
from solvers.base import Distributed, Snapshot, Solver, SolverFailed

# After its last snapshot a member waits for room in the reservoirs, which can take as long as the
# trainer is slow; the sender gives up when the receivers are silent.
FLUSH_TIMEOUT_SECONDS: Final = math.inf

_Thinning = Callable[[Iterator[Snapshot]], Iterator[Snapshot]]


@final
class Solving:
    """Builds the solver of a study on a communicator, and connects to the reservoirs.

    Args:
        study: Whose members are run.
        endpoints: One per reservoir, in rank order.
        keys: Of the study's stream.
        comm: PETSc communicator of all mpi_ranks of a member; every one of them makes this object.
        size: Their number.
    """

    def __init__(
        self,
        study: StudyConfig,
        endpoints: Sequence[Endpoint],
        keys: StudyKeys,
        *,
        comm: object,
        size: int = 1,
    ) -> None:
        self._study, self._comm = study, comm
        self._layout = study.sample_layout()
        self._numbers = recorded_numbers(study)
        self._record = None if study.source is None else RecordedMembers(study.source.record)
        self._solver = registry.build(study.solver) if study.simulates else None
        part = None if size == 1 or self._solver is None else _part(self._solver, comm, size)
        self._downsampling = Downsampling(study.solver.spec(), study.stream, part=part)
        box = None if part is None else self._downsampling.box
        self._sender = Sender(
            endpoints,
            layout=self._layout,
            keys=keys,
            credit_bytes=study.stream.credit_bytes,
            batch_bytes=_batch_bytes(study, self._layout, box),
            linger_ms=study.stream.linger_ms,
            box=box,
        )

    def run(
        self,
        assignment: Assignment,
        parameters: Mapping[str, float],
        *,
        failing: Callable[[str], None] = lambda reason: None,
    ) -> MemberReport:
        """Run one attempt at a member; on several mpi_ranks all of them call this.

        Args:
            assignment: Which attempt at which member.
            parameters: By name, in the solver's order and units.
            failing: Told the reason as soon as the solver gives up, which can be long before this
                raises it.

        Raises:
            SolverFailed: The member cannot be completed.
        """
        solver, downsampling = self._runs(assignment.member)
        try:
            return run_member(
                solver,
                self._sender,
                assignment,
                parameters,
                comm=self._comm,
                downsampling=downsampling,
                window=self._layout.window,
                stride=self._study.trainer.task.stride,
                initial_state=self._study.stream.initial_state,
                time_step=self._study.time_step,
                flush_timeout=FLUSH_TIMEOUT_SECONDS,
                clock=time.monotonic,
            )
        except SolverFailed as error:
            failing(str(error))
            # What was computed counts, and the reservoirs forget a failed member's other parts.
            with contextlib.suppress(StreamRefused, TimeoutError):
                self._sender.flush(timeout=FLUSH_TIMEOUT_SECONDS)
            raise

    def _runs(self, member: int) -> tuple[Solver, _Thinning]:
        """What yields a member's snapshots, and what is done to them before they are sent."""
        number = self._numbers.get(member)
        if number is None:
            assert self._solver is not None
            return self._solver, self._downsampling
        assert self._record is not None
        recorded = self._record.member(
            number,
            names=self._study.spec.names,
            every=self._study.stream.every,
            box=self._downsampling.box,
        )
        return recorded, _untouched  # it was downsampled before it was recorded

    def close(self) -> None:
        """Destroy every PETSc object and close the sockets. Safe to call twice."""
        if self._solver is not None:
            self._solver.close()
        self._sender.close()


def _untouched(snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
    return snapshots


def _batch_bytes(study: StudyConfig, layout: SampleLayout, box: Box | None) -> int:
    """Up to which size samples are put together.

    PETSc lets no other thread of Python run while it waits for an mpi_rank, so what an mpi_rank
    still puts together may stay there for as long as another one waits for room in a reservoir: it
    must be little, for which ``pipeline/flow.py`` has slots.
    """
    if box is None:
        return study.stream.batch_bytes
    part = layout.bytes_per_point * box.points
    # In a fixed order no other sample has a slot before this one is whole.
    together = 1 if study.deterministic else MOST_TOGETHER
    return min(study.stream.batch_bytes, together * part)


def _part(solver: Solver, comm: object, size: int) -> Part:
    """This mpi_rank's share of every member."""
    from solvers import petsc  # starts MPI, which only a process that solves may do

    rank = petsc.communicator(comm).getRank()
    return Part(box=_box(solver, comm), rank=rank, ranks=size, add_up=petsc.add_up(comm))


def _box(solver: Solver, comm: object) -> Box:
    """The part of the grid that this mpi_rank computes.

    Raises:
        ValueError: The solver has none for it.
    """
    if not isinstance(solver, Distributed):
        raise ValueError(  # noqa: TRY004 - a wrong setting, no wrong type in a call
            f"ensemble.mpi_ranks: {type(solver).__name__} has no box(comm), so it cannot run on "
            "several mpi_ranks. Set ensemble.mpi_ranks to 1, or add the method"
        )
    grid = f"the grid {list(solver.spec.shape)}"
    remedy = "Lower ensemble.mpi_ranks, or raise solver.grid"
    try:
        slices = solver.box(comm)
    except RuntimeError as error:  # PETSc's own errors are of this kind
        said = str(error).strip().rpartition("\n")[2]
        raise ValueError(
            f"ensemble.mpi_ranks: PETSc cannot share {grid} among them: {said}. {remedy}"
        ) from error
    box = Box(
        tuple(int(each.start) for each in slices),
        tuple(int(each.stop - each.start) for each in slices),
    )
    if not box.fits(solver.spec.shape):
        raise ValueError(f"ensemble.mpi_ranks: one of them has no part of {grid} ({box}). {remedy}")
    return box
