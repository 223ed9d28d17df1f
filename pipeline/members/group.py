"""Members with several mpi_ranks: a persistent mpiexec group under its SolverActor.

1. An attempt has succeeded when every mpi_rank says so; the first failure is what is told.
2. Where one mpi_rank fails, the others are given ``GRACE_SECONDS`` to fail too: they may hang in a
   collective call that it takes no part in. Then the group is killed.
3. A group whose mpi_ranks have all told a ``SolverFailed`` goes on with the next member; after any
   other failure the next member gets a fresh one.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from pipeline.errors import GroupFailed
from pipeline.members.attempt import Assignment, MemberReport
from pipeline.members.mpiexec import START_SECONDS, Processes
from pipeline.members.rank_lines import Failed, Failing, Message, Run, Setup
from pipeline.members.run_member import merged
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.study.config import StudyConfig
from solvers.base import SolverFailed

GRACE_SECONDS: Final = 5.0


@final
@dataclass(kw_only=True, slots=True)
class Answers:
    """What the mpi_ranks have said of one attempt, or of their start; plain logic.

    Attributes:
        ranks: How many there are.
        grace: Seconds from the first failure in which the others must fail too.
        deadline: Until when to listen; infinite while nobody has failed, or all have.
        failure: The first one.
    """

    ranks: int
    grace: float
    deadline: float = math.inf
    failure: Failed | None = None
    _failed: set[int] = field(default_factory=set)
    _ended: dict[int, Message] = field(default_factory=dict)

    def heard(self, rank: int, said: Message, now: float) -> None:
        """Take in what an mpi_rank says at ``now`` (seconds, any origin)."""
        if isinstance(said, Failing | Failed):
            self._failed.add(rank)
            if self.failure is None:
                self.failure = Failed(
                    reason=said.reason, final=isinstance(said, Failing) or said.final
                )
                self.deadline = now + self.grace
        if not isinstance(said, Failing):
            self._ended[rank] = said
        # Who has told its failure may still be storing what it sent: that is no hanging.
        if len(self._failed | self._ended.keys()) == self.ranks:
            self.deadline = math.inf

    @property
    def complete(self) -> bool:
        """Whether nothing more will be said."""
        return len(self._ended) == self.ranks

    @property
    def reusable(self) -> bool:
        """Whether the group is fit for the next member: all succeeded, or all told the same end."""
        finals = [isinstance(said, Failed) and said.final for said in self._ended.values()]
        return self.complete and (self.failure is None or all(finals))

    def reports(self) -> list[MemberReport]:
        """Of every mpi_rank that has succeeded."""
        return [said for said in self._ended.values() if isinstance(said, MemberReport)]


@final
class Group:
    """Runs member after member on one mpiexec group, and on a fresh one when that is lost.

    Nothing runs before ``start`` or the first member.

    Args:
        study: With the number of mpi_ranks.
        endpoints: One per reservoir, in rank order.
        keys: Of the study's stream.
        start_seconds: In which all mpi_ranks must have started.
        grace_seconds: See above.
    """

    def __init__(
        self,
        study: StudyConfig,
        endpoints: Sequence[Endpoint],
        keys: StudyKeys,
        *,
        start_seconds: float = START_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._setup = Setup(study=study, endpoints=endpoints, keys=keys)
        self._ranks = study.ensemble.mpi_ranks
        self._start_seconds, self._grace = start_seconds, grace_seconds
        self._processes: Processes | None = None

    def start(self) -> None:
        """Return once a group can take a member. May be called again.

        Raises:
            GroupFailed: It cannot be started.
        """
        if self._processes is not None:
            return
        processes = Processes(self._ranks, start_seconds=self._start_seconds)
        deadline = time.monotonic() + self._start_seconds
        answers = Answers(ranks=self._ranks, grace=self._grace, deadline=deadline)
        try:
            processes.tell(self._setup)
            _listen(processes, answers)
        finally:
            if not answers.reusable:
                processes.kill()
        if answers.failure is not None:
            raise GroupFailed(answers.failure.reason)
        if not answers.complete:
            raise GroupFailed(
                f"not all of {self._ranks} mpi_ranks have built their solver in "
                f"{self._start_seconds:g} s; last output: {processes.story()}"
            )
        self._processes = processes

    def run(self, assignment: Assignment, parameters: Mapping[str, float]) -> MemberReport:
        """Run one attempt at a member.

        Raises:
            SolverFailed: The member cannot be completed.
            GroupFailed: An mpi_rank failed otherwise, or is gone; another attempt may succeed.
        """
        self.start()
        processes = self._processes
        assert processes is not None
        answers = Answers(ranks=self._ranks, grace=self._grace)
        try:
            processes.tell(Run(assignment=assignment, parameters=dict(parameters)))
            _listen(processes, answers)
            if answers.failure is None:
                return merged(answers.reports())
        finally:
            if not answers.reusable:
                processes.kill()
                self._processes = None
        if answers.failure.final:
            raise SolverFailed(answers.failure.reason)
        raise GroupFailed(f"{answers.failure.reason}; last output: {processes.story()}")

    def close(self) -> None:
        """End the group. Safe to call twice."""
        if self._processes is not None:
            self._processes.end()
            self._processes = None


def _listen(processes: Processes, answers: Answers) -> None:
    """Until all has been said, or the time is over."""
    while not answers.complete:
        try:
            heard = processes.heard(answers.deadline)
        except GroupFailed:
            if answers.failure is None:
                raise
            return  # of that failure, which is the reason to tell
        if not heard:
            return
        for rank, said in heard:
            answers.heard(rank, said, time.monotonic())
