"""What a failed member or rank says: one line for everybody, and the story behind it.

1. The reason is one line; what a program or a user's own code said besides is kept, and bounded.
2. A failure is final when the same parameters would fail again: the solver gave up, or a user's own
   code raised an exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError, RayTaskError

from pipeline.actors.cluster import last_line
from pipeline.guards import project_root
from solvers.base import SolverBug, SolverFailed, SolverKilled
from solvers.own.load import user_part
from trainers.base import NothingToTrainOn, PeerFailed, TrainingDiverged
from trainers.configs.models import AnyModelConfig, OwnModelConfig

MAX_DETAIL_CHARACTERS = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an attempt, or the training, failed.

    Attributes:
        reason: In one line.
        details: The user's part of a traceback, or the last lines of a program; None without any.
        final: Whether another attempt would fail in the same way.
    """

    reason: str
    details: str | None
    final: bool

    @property
    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"reason": self.reason} | ({} if self.details is None else {"details": self.details})


class RankFailed(Exception):
    """What a rank raised: one line, and the traceback, which Ray would not carry.

    Attributes:
        story: The traceback through the user's own network, or through the rank's own code.
    """

    def __init__(self, message: str, story: str = "") -> None:
        super().__init__(message, story)
        self.story = story

    def __str__(self) -> str:
        return str(self.args[0])


def rank_failed(error: Exception, model: AnyModelConfig) -> RankFailed:
    """What a rank is to raise instead of an exception that nobody foresaw."""
    file = Path(model.path) if isinstance(model, OwnModelConfig) else project_root() / "any.py"
    return RankFailed(*user_part(error, file))


def first_failure(failures: Mapping[int, RayError]) -> RankFailed:
    """Of what the ranks raised, what was not the consequence of another rank's failure."""
    causes = {
        rank: error.cause if isinstance(error, RayTaskError) else error
        for rank, error in failures.items()
    }
    # A rank that has died says nothing itself; those that waited for it say much.
    rank = min(
        causes,
        key=lambda each: (
            isinstance(causes[each], PeerFailed), isinstance(causes[each], RankFailed), each
        ),
    )  # fmt: skip
    error = causes[rank]
    said = isinstance(error, RankFailed | TrainingDiverged | NothingToTrainOn | PeerFailed)
    line = f"rank {rank}: {error if said else last_line(error)}"
    story = error.story if isinstance(error, RankFailed) else ""
    return RankFailed(line, story[-MAX_DETAIL_CHARACTERS:])


def failure_of(error: RayTaskError) -> Failure:
    """What the call of a solver raised, as the study tells it."""
    cause = error.cause
    if not isinstance(cause, SolverFailed):
        return Failure(reason=last_line(error), details=None, final=False)
    reason, _, rest = str(cause).strip().partition("\n")
    if isinstance(cause, SolverBug):
        rest = cause.story
    details = rest[-MAX_DETAIL_CHARACTERS:] if rest else None
    passing = isinstance(cause, SolverKilled) or (isinstance(cause, SolverBug) and cause.passing)
    return Failure(reason=reason, details=details, final=not passing)
