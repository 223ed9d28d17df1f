"""Asks a study to stop in good order: with a checkpoint, and with nothing left behind.

A signal handler asks; the driver looks. Until somebody ``listens`` asking is refused, so that the
one who asks ends the program at once.
"""

from typing import final


@final
class StopRequest:
    """Whether a study is to stop; set and read by one thread, which a signal may interrupt.

    Attributes:
        refused: Asking was refused. Who refuses raises ``KeyboardInterrupt``, and what is called
            back in the middle of a library's call may lose it: the driver raises it once more.
    """

    def __init__(self) -> None:
        self._listening = self._asked = self.refused = False

    @property
    def asked(self) -> bool:
        """Whether somebody has asked."""
        return self._asked

    def listen(self) -> None:
        """From now on somebody looks often."""
        self._listening = True

    def ask(self) -> bool:
        """Ask; False when nobody listens, or when it was asked for already: end at once."""
        accepted = self._listening and not self._asked
        self._asked = self._asked or accepted
        self.refused = not accepted
        return accepted
