"""One member at a time: a solver's vectors hold a single state, so the older member has to stop.

1. A member that goes on after the next one began, or after ``close``, gets a ``RuntimeError``.
"""

from typing import final


@final
class Turns:
    """Numbers the members of one solver."""

    def __init__(self) -> None:
        self._newest = 0

    def begin(self) -> int:
        """End every turn so far, and start a new one."""
        self._newest += 1
        return self._newest

    def check(self, turn: int, *, step: int) -> None:
        """Refuse to go on when ``turn`` has ended.

        Raises:
            RuntimeError: The solver was closed or runs another member.
        """
        if turn != self._newest:
            raise RuntimeError(
                f"this member stopped at solver step {step}: its solver was closed or given the "
                "next member; use one solver per member that runs at the same time"
            )
