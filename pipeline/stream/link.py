"""One sender's socket to one receiver: drafts become messages, answers become credit.

1. A message is written once, into a frame that libzmq shares; sending it copies nothing.
2. A frame is written again only after its message was acknowledged, having gone out once.
3. No call waits: what libzmq does not take is sent again later, over a new connection.
4. A part larger than ``MAX_PIECE_BYTES`` goes out as several slabs, each a message of its own.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import zmq
from jaxtyping import Float64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.frames import MAX_CONTROL_BYTES, Control, Kind, decode_control, encode_control
from pipeline.stream.outbox import Outbox
from pipeline.stream.wire import Canvas, Stamp, message_bytes, pieces_of

_MIN_COST: Final = 4096  # credit that the smallest message takes: bounds their number
_PROBE_SECONDS: Final = 0.5
_HEARTBEAT_MS: Final = 5000  # finds half-open connections
# A receiver that is busy for long leaves what it has no room for unread, our heartbeats behind it.
_SILENCE_MS: Final = 30_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The attempt that the following samples belong to."""

    member: int
    attempt: int
    validation: bool
    parameters: Float64[np.ndarray, " parameters"]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A slab of this sender's box: where it lies in the grid, and in what ``send`` is given."""

    box: Box
    within: tuple[slice, ...]
    capacity: int
    nbytes: int


@dataclass(slots=True)
class Block:
    """A message buffer that is used again: a libzmq frame and the canvas on it."""

    frame: zmq.Frame
    canvas: Canvas
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class _Posted:
    """A frame on its way, and the block that is free again when it has arrived."""

    frame: zmq.Frame
    block: Block | None


def _pieces(layout: SampleLayout, box: Box, batch_bytes: int) -> list[_Piece]:
    boxes, capacity = pieces_of(layout, box, batch_bytes)
    pieces = []
    for piece in boxes:
        offset = tuple(a - b for a, b in zip(piece.start, box.start, strict=True))
        within = (slice(None), slice(None), *Box(offset, piece.size).slices)
        pieces.append(_Piece(piece, within, capacity, message_bytes(layout, piece, capacity)))
    return pieces


class BlockPool:
    """Blocks that are free; one pool may serve all senders of a process, from any thread.

    The block that came back last goes out first: it is still in the processor's cache.
    """

    def __init__(self) -> None:
        self._free: dict[tuple[Box, int], list[Block]] = {}

    def take(self, layout: SampleLayout, box: Box, capacity: int) -> Block:
        """A free block, or a new one."""
        try:
            return self._free[box, capacity].pop()
        except (KeyError, IndexError):
            frame = zmq.Frame(bytes(message_bytes(layout, box, capacity)), copy=True)
            canvas = Canvas(frame.buffer, layout=layout, box=box, capacity=capacity)
            return Block(frame, canvas)

    def give_back(self, block: Block) -> None:
        """Nobody reads or writes it any more."""
        self._free.setdefault((block.canvas.box, block.canvas.capacity), []).append(block)


class Link:
    """Drafts, socket and outbox for one endpoint. The caller serialises the calls."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        layout: SampleLayout,
        sender: int,
        keys: StudyKeys,
        credit_bytes: int,
        batch_bytes: int,
        box: Box,
        pool: BlockPool,
    ) -> None:
        self.name = endpoint.address
        self._layout = layout
        self._study, self._sender = keys.study, sender
        self._pieces = _pieces(layout, box, batch_bytes)
        # A large sample is cut into several messages; else several samples share one.
        self.parts = range(len(self._pieces))
        largest = max(piece.nbytes for piece in self._pieces)
        if credit_bytes < largest:
            raise ValueError(
                f"credit_bytes={credit_bytes} is less than one message ({largest} bytes): "
                f"raise credit_bytes or lower batch_bytes={batch_bytes}"
            )
        self._outbox: Outbox[_Posted] = Outbox(
            credit_bytes=credit_bytes, probe_seconds=_PROBE_SECONDS
        )
        self._draft: Block | None = None
        self._pool = pool
        self._member: Member | None = None
        self.refusal: str | None = None
        self.socket = _connect(endpoint, keys)

    @property
    def idle(self) -> bool:
        """Nothing is drafted and nothing unacknowledged."""
        return self._draft is None and not self._outbox

    quiet = idle
    ready = True  # another attempt may be opened at any time

    @property
    def progress(self) -> int:
        """Grows whenever something was stored."""
        return self._outbox.released

    @property
    def held_at(self) -> float:
        """When the receiver last said that something waits there for room."""
        return self._outbox.held_at

    @property
    def resent(self) -> int:
        """Messages sent again."""
        return self._outbox.resent

    def owes(self, now: float) -> str:
        """What is not stored yet; empty when all is."""
        if not self._outbox:
            return ""
        return (
            f"{self.name} owes {len(self._outbox)} acknowledgements and last answered "
            f"{now - self._outbox.heard_at:.1f} s ago"
        )

    def open(self, member: Member) -> None:
        """What follows belongs to ``member``; the last draft must have been dispatched."""
        assert self._draft is None
        self._member = member

    def room(self, part: int) -> bool:
        """Whether the next part can be taken now."""
        cost = self._cost(self._pieces[part].nbytes)
        return self._draft is not None or self._outbox.room(cost)

    def ample(self, part: int) -> bool:
        """Whether who has waited should go on."""
        return self._outbox.ample(self._cost(self._pieces[part].nbytes))

    def put(
        self, part: int, sample: int, step: int, times: Float64[np.ndarray, " window"],
        fields: np.ndarray,
    ) -> None:  # fmt: skip
        """Copy one part of a sample into a message, and send that when it is full."""
        shape = self._pieces[part]
        if self._draft is None:
            self._draft = self._pool.take(self._layout, shape.box, shape.capacity)
            self._draft.started = time.monotonic()
        canvas = self._draft.canvas
        canvas.add(sample, step, times, fields if len(self._pieces) == 1 else fields[shape.within])
        if canvas.full:
            now = time.monotonic()
            self.dispatch(now)
            self.receive(now)

    def dispatch(self, now: float) -> None:
        """Send what is drafted, if anything is."""
        draft, member = self._draft, self._member
        if draft is None or member is None:
            return
        self._draft = None
        if len(draft.canvas) == 0:  # what was to be added was wrong
            self._pool.give_back(draft)
            return
        full = draft.canvas.full
        stamp = Stamp(
            study=self._study, sender=self._sender, sequence=self._outbox.next_sequence,
            member=member.member, attempt=member.attempt, validation=member.validation,
        )  # fmt: skip
        length = draft.canvas.seal(stamp, member.parameters)
        posted = _Posted(draft.frame, draft)
        if not full:  # a frame cannot be shortened: what was written moves to one that fits
            posted = _Posted(zmq.Frame(draft.frame.buffer[:length], copy=True), None)
            self._pool.give_back(draft)
        self._outbox.add(posted, self._cost(length), now)
        self._send(posted.frame)

    def service(self, now: float, linger: float) -> None:
        """Do what is due: take answers in, send a late draft, ask after silence."""
        self.receive(now)
        if self._draft is not None and now - self._draft.started >= linger:
            self.dispatch(now)
        number = self._outbox.ping(now)
        if number is not None:
            ping = Control(kind=Kind.PING, study=self._study, sender=self._sender, sequence=number)
            if not self._send(encode_control(ping)):
                self.socket.connect(self.name)

    def receive(self, now: float) -> None:
        """Take in the answers that have arrived."""
        while True:
            try:
                answer = decode_control(
                    memoryview(self.socket.recv(zmq.NOBLOCK)), study=self._study
                )
            except zmq.Again:
                return
            except StreamRefused as error:
                _log.warning("%s sent nonsense, ignored: %s", self.name, error)
                continue
            if answer.kind is Kind.REFUSED:
                self.refusal = answer.reason
            free, again = self._outbox.heard(answer, now)
            for posted in free:
                if posted.block is not None:
                    self._pool.give_back(posted.block)
            for posted in again:
                self._send(posted.frame)

    def close(self) -> None:
        """Let go of the socket and of everything unacknowledged."""
        self.socket.close(linger=0)

    def _send(self, frame: zmq.Frame | bytes) -> bool:
        """Hand over to libzmq; False when it has no connection to queue for.

        It gives a connection up for good when the other end fails the handshake. What cannot be
        handed over counts as lost on the way: the next ping that is answered brings it back.
        """
        try:
            self.socket.send(frame, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    @staticmethod
    def _cost(length: int) -> int:
        return max(length, _MIN_COST)


def _connect(endpoint: Endpoint, keys: StudyKeys) -> "zmq.Socket[bytes]":
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)  # the credit is the bound
    socket.set(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
    socket.set(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)
    if endpoint.server_key is not None:
        socket.set(zmq.CURVE_SERVERKEY, endpoint.server_key)
        socket.set(zmq.CURVE_PUBLICKEY, keys.client_public)
        socket.set(zmq.CURVE_SECRETKEY, keys.client_secret)
    socket.connect(endpoint.address)
    return socket
