"""The head that every frame has, and the frames that carry no samples: ACK, PING, HELD, REFUSED.

1. What ``encode_control`` writes, ``decode_control`` reads back.
2. A malformed frame raises ``StreamRefused`` before any length it states is used.
3. A frame never becomes many times larger in memory than ``MAX_RANGES`` allows.

Little-endian. 32 bytes of head, a length, then a list of sequence ranges (ACK: stored;
HELD: received and waiting for room) or a reason (REFUSED).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pipeline.errors import StreamRefused

MAGIC: Final = b"HDRC"
VERSION: Final = 1
MAX_REASON: Final = 500  # characters of a refusal that travel back
MAX_RANGES: Final = 1 << 16  # of one ACK or HELD; a number left out is asked after again

# magic, version, kind, flags, dtype, study, sender, sequence
HEAD: Final = struct.Struct("<4sBBBBQQQ")
# number of ranges, or bytes of reason
_CONTROL = struct.Struct("<Q")
CONTROL_BYTES: Final = HEAD.size + _CONTROL.size
MAX_CONTROL_BYTES: Final = CONTROL_BYTES + 16 * MAX_RANGES

Ranges = list[tuple[int, int]]


class Kind(IntEnum):
    """What a frame is."""

    DATA = 1
    ACK = 2  # receiver: these sequences are stored
    PING = 3  # sender: which of my messages wait at your end?
    HELD = 4  # receiver, answering: these wait for room; I have no other that is not stored
    REFUSED = 5  # receiver: this sequence is wrong, do not send it again


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """A decoded ACK, PING, HELD or REFUSED frame.

    Attributes:
        sequence: PING and HELD: number of the ping. REFUSED: the refused message.
        ranges: First and last sequence of each run.
    """

    kind: Kind
    study: int
    sender: int
    sequence: int
    ranges: Ranges = field(default_factory=list)
    reason: str = ""


def peek(frame: memoryview) -> tuple[Kind, int, int, int]:
    """Kind, study, sender and sequence of any frame.

    Raises:
        StreamRefused: It is not a frame of this protocol.
    """
    if len(frame) < CONTROL_BYTES:
        raise StreamRefused(f"short frame: {len(frame)} bytes, need at least {CONTROL_BYTES}")
    magic, version, kind, _, _, study, sender, sequence = HEAD.unpack_from(frame)
    if magic != MAGIC:
        raise StreamRefused(f"foreign frame: starts with {magic!r}, need {MAGIC!r}")
    if version != VERSION:
        raise StreamRefused(
            f"other version: {version}, this end speaks {VERSION}; update the older end"
        )
    known = _KINDS.get(kind)
    if known is None:
        raise StreamRefused(f"unknown kind: {kind}, known {[int(k) for k in Kind]}")
    return known, study, sender, sequence


def check_study(stated: int, study: int) -> None:
    """Refuse a frame of another study."""
    if stated != study:
        raise StreamRefused(f"wrong study: {stated:#x}, this is {study:#x}")


def encode_control(control: Control) -> bytes:
    """The frame of an ACK, PING, HELD or REFUSED."""
    reason = control.reason[:MAX_REASON].encode()
    head = HEAD.pack(
        MAGIC, VERSION, control.kind, 0, 0, control.study, control.sender, control.sequence
    )
    if control.kind is Kind.REFUSED:
        return head + _CONTROL.pack(len(reason)) + reason
    flat = [edge for pair in control.ranges[:MAX_RANGES] for edge in pair]
    tail = struct.pack(f"<{len(flat)}Q", *flat)
    return head + _CONTROL.pack(len(flat) // 2) + tail


def decode_control(frame: memoryview, *, study: int) -> Control:
    """Read an ACK, PING, HELD or REFUSED.

    Raises:
        StreamRefused: Anything in it is not as it must be.
    """
    kind, frame_study, sender, sequence = peek(frame)
    if kind is Kind.DATA:
        raise StreamRefused("unexpected kind: DATA, need ACK, PING, HELD or REFUSED")
    check_study(frame_study, study)
    (length,) = _CONTROL.unpack_from(frame, HEAD.size)
    rest = len(frame) - CONTROL_BYTES
    if kind is Kind.REFUSED:
        if length != rest or length > 4 * MAX_REASON:
            raise StreamRefused(f"wrong reason length: states {length} bytes, has {rest}")
        return Control(
            kind=kind, study=study, sender=sender, sequence=sequence,
            reason=bytes(frame[CONTROL_BYTES:]).decode(errors="replace"),
        )  # fmt: skip
    if rest % 16 != 0 or length != rest // 16:
        raise StreamRefused(f"wrong range count: states {length}, has {rest / 16:g}")
    limit = 0 if kind is Kind.PING else MAX_RANGES
    if length > limit:
        raise StreamRefused(f"too many ranges: {length} in a {kind.name}, limit {limit}")
    flat = struct.unpack_from(f"<{2 * length}Q", frame, CONTROL_BYTES)
    return Control(
        kind=kind, study=study, sender=sender, sequence=sequence,
        ranges=list(zip(flat[::2], flat[1::2], strict=True)),
    )  # fmt: skip


def ranges_of(sequences: Iterable[int]) -> Ranges:
    """Runs of consecutive numbers, as (first, last), in rising order."""
    runs: Ranges = []
    for number in sorted(sequences):
        if runs and number <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
