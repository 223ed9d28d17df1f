"""What can go wrong with a study, as one drawn tree.

Every message says what was wrong, which value, which limit, and what to do.

    HeadraceError
    |- ConfigError       the study file or its surroundings are wrong; nothing was started
    |- StudyFailed       the study ended by itself without a result worth having
    |- StudyStopped      the study was asked to stop, and has
    |- StreamRefused     a peer or a frame that does not belong to this study
    `- GroupFailed       the mpiexec group of a member; another attempt may succeed

All of them pickle, because they cross Ray.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class HeadraceError(Exception):
    """Root of everything headrace raises for its users."""


class ConfigError(HeadraceError):
    """One or more errors in a study, all of them at once.

    Attributes:
        problems: One line per error: path, value, limit, remedy.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class StudyFailed(HeadraceError):
    """The study cannot reach its end: too many members failed, or the trainer cannot go on."""


class StudyStopped(HeadraceError):
    """The study was asked to stop, and has: with a checkpoint that it can go on from, or without.

    Attributes:
        train_step: Of the newest checkpoint; None when there is none.
    """

    def __init__(self, train_step: int | None) -> None:
        super().__init__(train_step)
        self.train_step = train_step

    def __str__(self) -> str:
        if self.train_step is None:
            return "the study was stopped; there is no checkpoint yet"
        return f"the study was stopped; its newest checkpoint is of train step {self.train_step}"


@contextmanager
def carry_on(without: str) -> Iterator[None]:
    """Let a step after the training fail alone: the study has its result, and shows the rest.

    Args:
        without: What is missing where the step fails.
    """
    try:
        yield
    except Exception:
        logging.getLogger(__name__).exception("there is no %s, because of this error:", without)


class StreamRefused(HeadraceError):
    """A frame or a peer that does not belong to this study."""


class GroupFailed(HeadraceError):
    """The mpi_ranks of a member did not start, are gone, or one failed; a fresh group may succeed.

    The message is one line, because reasons are.
    """
