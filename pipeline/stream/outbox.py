"""What a sender knows of one endpoint: credit, what is unacknowledged, and what must go out again.

Plain logic: no socket, no clock. ``Frame`` is whatever the socket shell sends.

1. Bytes outstanding never pass the credit when ``room`` is asked before ``add``.
2. A message is kept until it is acknowledged or refused, and then given back exactly once.
3. A message goes out again only when the answer to a ping that was sent after it proves that the
   receiver has it neither stored nor waiting; a slow trainer causes no resends, however slow.
4. At most one ping goes out per ``probe_seconds``, and the interval doubles up to
   ``MAX_PROBE_SECONDS`` while no answer comes.
5. A frame that went out more than once is never offered for reuse: a stale copy of it may still
   stand in a socket's queue.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pipeline.stream.frames import Control, Kind

MAX_PROBE_SECONDS: Final = 5.0

Frame = TypeVar("Frame")


@dataclass(slots=True)
class _Sent(Generic[Frame]):
    frame: Frame
    cost: int
    pings: int  # that had gone out before it did, the last time
    times: int


class Outbox(Generic[Frame]):
    """Unacknowledged messages of one sender to one receiver."""

    def __init__(self, *, credit_bytes: int, probe_seconds: float) -> None:
        self._credit, self._probe_seconds = credit_bytes, probe_seconds
        self._sent: dict[int, _Sent[Frame]] = {}
        self._pings = 0
        self._quiet_since = 0.0  # last answer or ping, or when the first message went out
        self._probe_after = probe_seconds
        self.next_sequence = 0
        self.outstanding = 0
        self.resent = 0
        self.released = 0
        self.heard_at = float("-inf")
        self.held_at = float("-inf")  # when the receiver last said that something waits for room

    def __len__(self) -> int:
        return len(self._sent)

    def room(self, cost: int) -> bool:
        """Whether a message of ``cost`` bytes is within the credit."""
        return self.outstanding + cost <= self._credit

    def ample(self, cost: int) -> bool:
        """Whether there is room for a quarter of the credit, at least for ``cost`` bytes.

        Who has waited goes on when this holds, and then sends several messages in a row: waking up
        for each acknowledgement costs more than the messages do.
        """
        return self.outstanding + max(cost, self._credit // 4) <= self._credit

    def add(self, frame: Frame, cost: int, now: float) -> None:
        """The message of sequence ``next_sequence`` goes out."""
        if not self._sent:
            self._quiet_since, self._probe_after = now, self._probe_seconds
        self._sent[self.next_sequence] = _Sent(frame, cost, self._pings, 1)
        self.next_sequence += 1
        self.outstanding += cost

    def ping(self, now: float) -> int | None:
        """Number of the ping to send now, if one is due."""
        if not self._sent or now - self._quiet_since < self._probe_after:
            return None
        self._quiet_since = now
        self._probe_after = min(2 * self._probe_after, MAX_PROBE_SECONDS)
        self._pings += 1
        return self._pings

    def heard(self, control: Control, now: float) -> tuple[list[Frame], list[Frame]]:
        """Take in an answer: frames that are free for reuse, and frames to send again."""
        self._quiet_since = self.heard_at = now
        self._probe_after = self._probe_seconds
        if control.kind is Kind.ACK:
            return self._acknowledged(control.ranges), []
        if control.kind is Kind.HELD:
            if control.ranges and self._sent:
                self.held_at = now
            return [], self._lost(control)
        if control.kind is Kind.REFUSED:
            return self._release(control.sequence), []
        return [], []

    def _acknowledged(self, ranges: list[tuple[int, int]]) -> list[Frame]:
        free: list[Frame] = []
        for first, last in ranges:
            named: Iterable[int] = range(first, last + 1)
            if last - first >= len(self._sent):  # its width must not cost anything
                named = [sequence for sequence in self._sent if first <= sequence <= last]
            free += [frame for sequence in named for frame in self._release(sequence)]
        return free

    def _release(self, sequence: int) -> list[Frame]:
        sent = self._sent.pop(sequence, None)
        if sent is None:
            return []
        self.outstanding -= sent.cost
        self.released += 1
        return [sent.frame] if sent.times == 1 else []

    def _lost(self, held: Control) -> list[Frame]:
        again: list[Frame] = []
        for sequence, sent in self._sent.items():
            waiting = any(first <= sequence <= last for first, last in held.ranges)
            if sent.pings < held.sequence and not waiting:
                sent.pings = self._pings
                sent.times += 1
                again.append(sent.frame)
        self.resent += len(again)
        return again
