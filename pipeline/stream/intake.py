"""Receiving logic without sockets: frames in, samples into slots, answers out.

1. A message is acknowledged only when all its samples are stored in slots.
2. What was stored before is dropped, counted and acknowledged again.
3. A part of a sample whose slot is reserved is always accepted, whatever room there is.
4. A message that finds no room waits; none is dropped, and none waits twice.
5. New slots are given to messages in the order in which they came, or, where samples are stored in
   a fixed order, in that.
6. A malformed, foreign or non-finite message changes no slot; it is counted, logged once per cause,
   and answered where its sender can be told.
7. The answer to a ping names exactly what waits.
8. What is kept is bounded, whatever is sent: messages that wait by ``Bounds.waiting_bytes`` (beyond
   it they are let go, and a sender that keeps to its credit sends them again), what is known of
   members by ``Bounds.members`` and ``Bounds.samples``, a line in the log by ``MAX_REASON``.

Not thread-safe: the shell serialises the calls.
"""

import itertools
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Int64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import SampleLayout
from pipeline.stream.frames import (
    MAX_REASON,
    Control,
    Kind,
    check_study,
    decode_control,
    encode_control,
    peek,
    ranges_of,
)
from pipeline.stream.placing import Placing
from pipeline.stream.wire import Message, decode

_MIN_COST: Final = 4096  # what the smallest message that waits counts for

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a study can send at most; beyond it is nobody's that belongs to it.

    Attributes:
        members: Member numbers are below it.
        samples: Sample numbers are below it; each takes up to two bytes of memory per member.
        waiting_bytes: Of messages that wait for room.
    """

    members: int = 1 << 21
    samples: int = 1 << 20
    waiting_bytes: int = 1 << 30


@dataclass(frozen=True, kw_only=True)  # no slots: it is one of two bases of ``ReservoirStats``
class IntakeStats:
    """What a receiver counts, validation included.

    Attributes:
        duplicates: Samples or parts recognised as stored before, and dropped.
        refused: Messages and peers that were malformed, foreign or not finite.
        pending: Messages that wait for room.
        bytes_received: Field bytes stored.
        solver_blocked_seconds: Time during which at least one message waited for room.
        waiting_members: Members of the messages that wait for room.
    """

    duplicates: int
    refused: int
    pending: int
    bytes_received: int
    solver_blocked_seconds: float
    waiting_members: tuple[int, ...] = ()

    def __add__(self, other: "IntakeStats") -> "IntakeStats":
        """What two ways into the same stores count together."""
        return IntakeStats(
            duplicates=self.duplicates + other.duplicates,
            refused=self.refused + other.refused,
            pending=self.pending + other.pending,
            bytes_received=self.bytes_received + other.bytes_received,
            solver_blocked_seconds=max(self.solver_blocked_seconds, other.solver_blocked_seconds),
            waiting_members=tuple(sorted({*self.waiting_members, *other.waiting_members})),
        )


class BlockedClock:
    """Seconds during which something waited for room."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seconds = 0.0

    def note(self, blocked: bool, now: float) -> None:
        """Whether something waits from now on."""
        if blocked and self._since is None:
            self._since = now
        elif not blocked and self._since is not None:
            self._seconds += now - self._since
            self._since = None

    def seconds(self, now: float) -> float:
        """Up to now."""
        return self._seconds + (0.0 if self._since is None else now - self._since)


@dataclass(slots=True)
class _Waiting:
    store: Placing
    message: Message
    which: Int64[np.ndarray, " position"]  # samples of it that are not stored yet
    cost: int


@dataclass(slots=True)
class _Peer:
    """A sender that is owed an answer, or has messages waiting."""

    identity: bytes
    stored: list[int] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    refused: list[Control] = field(default_factory=list)
    ping: int | None = None


class Intake:
    """Takes frames in for one training store and, maybe, one validation store."""

    def __init__(
        self,
        *,
        layout: SampleLayout,
        study: int,
        training: Placing,
        validation: Placing | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._layout, self._study = layout, study
        self._bounds = Bounds() if bounds is None else bounds
        self._training, self._validation = training, validation
        self._stores = [training] if validation is None else [training, validation]
        self._ordered = training.turn is not None
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._queued = dict.fromkeys(self._stores, 0)  # messages that wait for room there
        self._waiting_bytes = 0
        self._peers: dict[int, _Peer] = {}
        self._refused = 0
        self._causes: set[str] = set()
        self._blocked = BlockedClock()

    @property
    def pending(self) -> int:
        """Messages that wait for room."""
        return len(self._waiting)

    @property
    def waiting_members(self) -> tuple[int, ...]:
        """Members of those messages, ascending."""
        return tuple(sorted({each.message.stamp.member for each in self._waiting.values()}))

    def stats(self, now: float) -> IntakeStats:
        """All counters."""
        return IntakeStats(
            duplicates=sum(store.duplicates for store in self._stores),
            refused=self._refused,
            pending=len(self._waiting),
            bytes_received=sum(store.bytes_stored for store in self._stores),
            solver_blocked_seconds=self._blocked.seconds(now),
            waiting_members=self.waiting_members,
        )

    def take(self, frame: memoryview, *, identity: bytes, now: float) -> None:
        """Take one frame in.

        Args:
            frame: Kept, not copied, while its message waits.
            identity: Where answers to this frame go.
            now: Monotonic seconds.
        """
        try:
            kind, study, sender, sequence = peek(frame)
            check_study(study, self._study)
        except StreamRefused as error:
            self.refuse(str(error))  # not one of ours: there is nobody to tell
            return
        peer = self._peers.get(sender)
        if peer is None:
            peer = self._peers[sender] = _Peer(identity)
        peer.identity = identity  # a sender that has connected again is answered there
        try:
            if kind is Kind.DATA:
                self._take_data(frame, peer, sequence, now)
            else:
                self._take_ping(frame, peer)
        except StreamRefused as error:
            self._refuse_message(peer, sender, sequence, str(error))

    def refuse(self, reason: str) -> None:
        """Count something refused; log the first of each cause (the words before the colon)."""
        self._refused += 1
        cause = reason.partition(":")[0]
        if cause not in self._causes:
            self._causes.add(cause)
            _log.warning("refused (logged once): %s", reason[:MAX_REASON])

    def retry(self, now: float) -> None:
        """Store what waits and finds room now, oldest first."""
        while self._waiting and self._retry_once() and self._ordered:
            pass  # what was stored may let others have their turn
        self._note_blocked(now)

    def _retry_once(self) -> bool:
        """Try each message that waits; whether anything was stored."""
        full: set[Placing] = set()
        before = self.samples
        for (sender, sequence), waiting in list(self._waiting.items()):
            if self._ordered and not _may_come(waiting):
                continue
            may_reserve = waiting.store not in full
            if waiting.message.whole and not may_reserve:
                continue  # parts may still belong to a sample that has its slot
            peer = self._peers[sender]
            try:
                left = self._place(waiting, may_reserve=may_reserve)
            except StreamRefused as error:
                self._refuse_message(peer, sender, sequence, str(error))
                left = False
            if not left:
                del self._waiting[sender, sequence]
                self._waiting_bytes -= waiting.cost
                self._queued[waiting.store] -= 1
                peer.waiting.discard(sequence)
            elif not self._ordered:
                full.add(waiting.store)
        return self.samples > before

    @property
    def samples(self) -> int:
        """Samples stored since the start, validation included."""
        return sum(store.samples for store in self._stores)

    def pass_member(self, member: int, instead: int | None) -> None:
        """Where samples are stored in a fixed order: this member is over, see ``Turn``."""
        for store in self._stores:
            if store.turn is not None:
                store.turn.pass_member(member, instead)

    def forget_incomplete(self, member: int, *, attempt: int) -> None:
        """Free what an attempt that has failed left unfinished; see ``Placing``."""
        for store in self._stores:
            store.forget_incomplete(member, attempt=attempt)

    def replies(self) -> list[tuple[bytes, bytes]]:
        """Answers owed since the last call: identity and frame."""
        answers: list[tuple[bytes, bytes]] = []
        for sender, peer in list(self._peers.items()):
            frames = list(peer.refused)
            if peer.stored:
                frames.append(self._control(Kind.ACK, sender, 0, peer.stored))
            if peer.ping is not None:
                frames.append(self._control(Kind.HELD, sender, peer.ping, peer.waiting))
            answers += [(peer.identity, encode_control(frame)) for frame in frames]
            if peer.waiting:
                peer.stored, peer.refused, peer.ping = [], [], None
            else:
                del self._peers[sender]
        return answers

    def _take_data(self, frame: memoryview, peer: _Peer, sequence: int, now: float) -> None:
        if sequence in peer.waiting:
            return  # sent again while it waits here
        message = decode(
            frame, layout=self._layout, study=self._study, max_samples=self._bounds.samples
        )
        if message.stamp.member >= self._bounds.members:
            raise StreamRefused(
                f"wrong member: {message.stamp.member}, this study has {self._bounds.members}"
            )
        _check_finite(message)
        store = self._validation if message.stamp.validation else self._training
        if store is None:
            raise StreamRefused("unexpected validation sample: there is no validation store here")
        which = np.arange(message.samples.size)
        waiting = _Waiting(store, message, which, max(len(frame), _MIN_COST))
        if self._place(waiting, may_reserve=self._ordered or self._queued[store] == 0):
            if self._waiting_bytes + waiting.cost > self._bounds.waiting_bytes:
                self.refuse(f"too much waits: {self._waiting_bytes} bytes; the rest is let go")
                return  # nobody is told: a sender that asks learns that it does not wait
            peer.waiting.add(sequence)
            self._queued[store] += 1
            self._waiting_bytes += waiting.cost
            self._waiting[message.stamp.sender, sequence] = waiting
            self._note_blocked(now)

    def _place(self, waiting: _Waiting, *, may_reserve: bool) -> bool:
        """Store what can be stored of a message; whether something is left over."""
        stamp = waiting.message.stamp
        waiting.which = waiting.store.place(waiting.message, waiting.which, may_reserve=may_reserve)
        if waiting.which.size:
            return True
        self._peers[stamp.sender].stored.append(stamp.sequence)
        return False

    def _take_ping(self, frame: memoryview, peer: _Peer) -> None:
        control = decode_control(frame, study=self._study)
        if control.kind is not Kind.PING:
            raise StreamRefused(f"unexpected kind: {control.kind.name}, need DATA or PING")
        peer.ping = control.sequence

    def _refuse_message(self, peer: _Peer, sender: int, sequence: int, reason: str) -> None:
        self.refuse(reason)
        peer.refused.append(
            Control(
                kind=Kind.REFUSED, study=self._study, sender=sender, sequence=sequence,
                reason=reason,
            )
        )  # fmt: skip

    def _control(self, kind: Kind, sender: int, sequence: int, about: Iterable[int]) -> Control:
        return Control(
            kind=kind, study=self._study, sender=sender, sequence=sequence,
            ranges=ranges_of(about),
        )  # fmt: skip

    def _note_blocked(self, now: float) -> None:
        self._blocked.note(bool(self._waiting), now)


def _may_come(waiting: _Waiting) -> bool:
    """Whether its member has its turn, or is over."""
    turn, member = waiting.store.turn, waiting.message.stamp.member
    return turn is None or member == turn.member or turn.is_over(member)


def _check_finite(message: Message) -> None:
    if not np.isfinite(message.fields).all():
        each = np.isfinite(message.fields).reshape(message.samples.size, -1).all(axis=1)
        bad = np.flatnonzero(~each)
        raise StreamRefused(
            f"not finite: fields of member {message.stamp.member}, "
            f"samples {message.samples[bad].tolist()[:5]}"
        )
    inputs = itertools.chain(message.parameters.tolist(), message.times.ravel().tolist())
    # A few numbers: quicker without NumPy.
    if not all(map(math.isfinite, inputs)):
        raise StreamRefused(
            f"not finite: parameters or times of member {message.stamp.member}: "
            f"{message.parameters.tolist()}"
        )
