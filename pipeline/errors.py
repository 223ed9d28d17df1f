"""What can go wrong with a study, as one drawn tree.

Every message says what was wrong, which value, which limit, and what to do.

    HeadraceError
    |- ConfigError       the study file or its surroundings are wrong; nothing was started
    |- StudyFailed       the study ended by itself without a result worth having
    |- StreamRefused     a peer or a frame that does not belong to this study
    `- GroupFailed       the mpiexec group of a member; another attempt may succeed

All of them pickle, because they cross Ray.
"""


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


class StreamRefused(HeadraceError):
    """A frame or a peer that does not belong to this study."""


class GroupFailed(HeadraceError):
    """The mpi_ranks of a member did not start, are gone, or one failed; a fresh group may succeed.

    The message is one line, because reasons are.
    """
