"""One attempt at a member: what is asked for, and what is reported of it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One attempt at one member. Validation members carry the lowest numbers.

    Attributes:
        instead_of: The failed member whose place it takes, with parameters of its own.
    """

    member: int
    attempt: int
    validation: bool
    instead_of: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberReport:
    """One finished attempt at a member.

    Attributes:
        member: Its number.
        attempt: 1 for the first try.
        samples: Samples that were stored and acknowledged.
        bytes_sent: Field bytes that were handed to the sender.
        wall_seconds: From the first solver step to the last acknowledgement.
        wait_seconds: Part of it spent waiting for room in the reservoirs.
        solve_seconds: Part of it spent inside the solver.
        iterations: Of its linear solves; of the nonlinear ones where no linear system is solved.
        refused: Steps that the solver tried, and tried again with a smaller one.
    """

    member: int
    attempt: int
    samples: int
    bytes_sent: int
    wall_seconds: float
    wait_seconds: float
    solve_seconds: float = 0.0
    iterations: int = 0
    refused: int = 0
