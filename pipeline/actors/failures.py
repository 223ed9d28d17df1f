"""What a failed attempt at a member says: one line for everybody, and the story behind it.

1. The reason is one line; what a program or a user's own code said besides is kept, and bounded.
2. A failure is final when the same parameters would fail again: the solver gave up, or a user's own
   code raised an exception.
"""

from dataclasses import dataclass

from ray.exceptions import RayTaskError

from pipeline.actors.cluster import last_line
from solvers.base import SolverBug, SolverFailed, SolverKilled

MAX_DETAIL_CHARACTERS = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        reason: In one line.
        details: The user's part of a traceback, or the last lines of a program; None without any.
        final: Whether another attempt would fail in the same way.
    """

    reason: str
    details: str | None
    final: bool


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
