"""The messages between a sender and a reservoir of its node: who, what is wanted, what is done.

A sender says hello, opens a member, and works at it. *Positions* count the samples of a
connection: from the one that a member was opened at they are its samples ``first``,
``first + stride``, ... A sender writes them in their order into the slots that it was granted, and
commits them in that order; what it was granted and did not need serves for the next member.

1. What decodes is of the stated kind, of this study's shape, and has exactly the stated length.
2. The *round* of a sender goes up whenever it lets go of all its grants; a grant of an earlier
   round, which was still on its way then, is void.
3. No message is longer than ``MAX_BYTES``, which a Unix socket takes as one.

::

    head     | magic 4s | kind u8 | flags u8 | - u16 | round u32 | count u32
    HELLO    | head | study u64 | start u32 x 3 | size u32 x 3
    OPEN     | head | member i64 | position u64 | attempt u32 | first u32 | stride u32 | -
             |      | parameters f64 x count
    WORK     | head | position u64 | have u64 | until u64 | steps i64 x count | times f64
    RETURN   | head
    GRANT    | head | stored u64 | position u64 | slots i32 x count
    REFUSED  | head | reason, UTF-8
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64, Int32, Int64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import MAX_AXES, Box, SampleLayout

MAGIC: Final = b"HRD1"
MAX_BYTES: Final = 128 << 10  # the kernel's default for a socket's buffer is 208 KiB
MAX_REASON: Final = 1000  # characters
_HEAD: Final = struct.Struct("<4sBBxxII")
_HELLO: Final = struct.Struct(f"<Q{2 * MAX_AXES}I")
_OPEN: Final = struct.Struct("<qQIIIxxxx")
_WORK: Final = struct.Struct("<QQQ")
_GRANT: Final = struct.Struct("<QQ")
_VALIDATION: Final = 1
STORED: Final = -1  # instead of a slot: this sample need not be written


class Kind(enum.IntEnum):
    """What a message is."""

    HELLO = 1
    OPEN = 2
    WORK = 3
    RETURN = 4
    GRANT = 5
    REFUSED = 6


@dataclass(frozen=True, slots=True)
class Hello:
    """Who sends, and which part of the grid it owns."""

    study: int
    box: Box


@dataclass(frozen=True, slots=True)
class Open:
    """The attempt that what follows belongs to.

    Attributes:
        round: Of the sender.
        member: Its number.
        position: Where it begins.
        attempt: At it.
        validation: Whether it is one of the validation members.
        first: The sample at ``position``.
        stride: From one position to the next.
        parameters: Of the member.
    """

    round: int
    member: int
    position: int
    attempt: int
    validation: bool
    first: int
    stride: int
    parameters: Float64[np.ndarray, " parameters"]


@dataclass(frozen=True, slots=True)
class Work:
    """The next positions are written; slots are wanted up to others.

    Attributes:
        round: In which the slots were granted.
        position: The first one that is committed.
        have: Positions below it are in hand, and wait if they have no slot.
        until: Positions below it will come soon.
        steps: Of what is committed.
        times: Likewise, ``(count, window)``.
    """

    round: int
    position: int
    have: int
    until: int
    steps: Int64[np.ndarray, " count"]
    times: Float64[np.ndarray, " count window"]


@dataclass(frozen=True, slots=True)
class Return:
    """All grants are given back."""

    round: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that was said in a round is not done, and why."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Slots for positions from one on, and how far those are stored.

    Attributes:
        round: Of the sender when the reservoir last heard of it.
        stored: Positions below it are stored.
        position: Of the first slot.
        slots: ``STORED`` where nothing need be written.
    """

    round: int
    stored: int
    position: int
    slots: Int32[np.ndarray, " count"]


def most_positions(layout: SampleLayout) -> int:
    """Positions that fit into one message; 0: samples of so long a window do not go this way."""
    if _HEAD.size + _OPEN.size + 8 * layout.num_parameters > MAX_BYTES:
        return 0
    return (MAX_BYTES - _HEAD.size - _WORK.size) // (8 + 8 * layout.window)


def hello(study: int, box: Box) -> bytes:
    """A HELLO message."""
    pad = MAX_AXES - len(box.size)
    corners = (*box.start, *(0,) * pad, *box.size, *(1,) * pad)
    return _head(Kind.HELLO) + _HELLO.pack(study, *corners)


def open_(opened: Open) -> bytes:
    """An OPEN message."""
    head = _head(Kind.OPEN, opened.round, opened.parameters.size, _VALIDATION * opened.validation)
    about = _OPEN.pack(opened.member, opened.position, opened.attempt, opened.first, opened.stride)
    return head + about + opened.parameters.astype("<f8").tobytes()


def work(
    round_: int, position: int, have: int, until: int, steps: list[int], times: list[float]
) -> bytes:
    """A WORK message that commits ``len(steps)`` positions."""
    head = _head(Kind.WORK, round_, len(steps)) + _WORK.pack(position, have, until)
    return head + struct.pack(f"<{len(steps)}q{len(times)}d", *steps, *times)


def return_(round_: int) -> bytes:
    """A RETURN message."""
    return _head(Kind.RETURN, round_)


def grant(round_: int, stored: int, position: int, slots: list[int]) -> bytes:
    """A GRANT message."""
    head = _head(Kind.GRANT, round_, len(slots)) + _GRANT.pack(stored, position)
    return head + struct.pack(f"<{len(slots)}i", *slots)


def refused(round_: int, reason: str) -> bytes:
    """A REFUSED message."""
    return _head(Kind.REFUSED, round_) + reason[:MAX_REASON].encode()


def decode_request(frame: memoryview, *, layout: SampleLayout) -> Hello | Open | Work | Return:
    """What a sender says; arrays are views of the frame.

    Raises:
        StreamRefused: Anything in it is not as it must be.
    """
    kind, flags, round_, count = _take_head(frame)
    if flags and (kind is not Kind.OPEN or flags != _VALIDATION):
        raise StreamRefused(f"unknown flags: {flags:#x} of {kind.name}")
    if kind is Kind.HELLO:
        _check_length(frame, _HELLO.size)
        study, *corners = _HELLO.unpack_from(frame, _HEAD.size)
        axes = len(layout.grid)
        box = Box(tuple(corners[:axes]), tuple(corners[MAX_AXES : MAX_AXES + axes]))
        if not box.fits(layout.grid):
            raise StreamRefused(f"wrong box: {box} is not inside the grid {layout.grid}")
        return Hello(study, box)
    if kind is Kind.OPEN:
        if count != layout.num_parameters:
            raise StreamRefused(f"wrong parameters: {count}, need {layout.num_parameters}")
        _check_length(frame, _OPEN.size + 8 * count)
        member, position, attempt, first, stride = _OPEN.unpack_from(frame, _HEAD.size)
        parameters = np.frombuffer(frame, "<f8", count, _HEAD.size + _OPEN.size).copy()
        validation = flags == _VALIDATION
        return Open(round_, member, position, attempt, validation, first, stride, parameters)
    if kind is Kind.WORK:
        _check_length(frame, _WORK.size + 8 * count * (1 + layout.window))
        position, have, until = _WORK.unpack_from(frame, _HEAD.size)
        at = _HEAD.size + _WORK.size
        steps = np.frombuffer(frame, "<i8", count, at)
        times = np.frombuffer(frame, "<f8", count * layout.window, at + 8 * count)
        return Work(round_, position, have, until, steps, times.reshape(count, layout.window))
    if kind is Kind.RETURN:
        _check_length(frame, 0)
        return Return(round_)
    raise StreamRefused(f"unexpected kind: {kind.name} from a sender")


def decode_answer(frame: bytes) -> Grant | Refused:
    """What a reservoir says.

    Raises:
        StreamRefused: Anything in it is not as it must be.
    """
    kind, _, round_, count = _take_head(frame)
    if kind is Kind.REFUSED:
        return Refused(round_, frame[_HEAD.size :].decode(errors="replace"))
    if kind is not Kind.GRANT:
        raise StreamRefused(f"unexpected kind: {kind.name} from a reservoir")
    _check_length(frame, _GRANT.size + 4 * count)
    stored, position = _GRANT.unpack_from(frame, _HEAD.size)
    slots = np.frombuffer(frame, "<i4", count, _HEAD.size + _GRANT.size)
    return Grant(round_, stored, position, slots)


def _head(kind: Kind, round_: int = 0, count: int = 0, flags: int = 0) -> bytes:
    return _HEAD.pack(MAGIC, kind, flags, round_, count)


def _take_head(frame: memoryview | bytes) -> tuple[Kind, int, int, int]:
    if len(frame) < _HEAD.size:
        raise StreamRefused(f"short message: {len(frame)} bytes, a head has {_HEAD.size}")
    magic, number, flags, round_, count = _HEAD.unpack_from(frame)
    if magic != MAGIC:
        raise StreamRefused(f"wrong magic: {magic!r}, need {MAGIC!r}")
    if number not in iter(Kind):
        raise StreamRefused(f"unknown kind: {number}")
    return Kind(number), flags, round_, count


def _check_length(frame: memoryview | bytes, body: int) -> None:
    if len(frame) != _HEAD.size + body:
        raise StreamRefused(f"wrong length: {len(frame)} bytes, its head means {_HEAD.size + body}")
