"""Message layout between senders and receivers: encode and decode, no sockets, no pickle.

1. What ``Canvas`` writes, ``decode`` reads back bit for bit, for every layout, box and count.
2. A malformed frame raises ``StreamRefused`` with what, which value and which limit, before any
   length it states is used to allocate or to slice.
3. A DATA message stands alone: it carries all that is needed to store it, so that a new
   connection can take it.
4. ``decode`` copies nothing: its arrays are views of the frame.

Little-endian throughout. A DATA frame is::

    header (96 bytes) | parameters float64 | padding to 64 | fields of k samples | padding to 8 |
    k sample numbers int64 | k solver steps int64 | k x window times float64

All k samples are of one member and have the same box. Head and other kinds:
``pipeline/stream/frames.py``.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import CODES, DTYPES, MAX_AXES, Box, SampleLayout
from pipeline.stream.frames import HEAD, MAGIC, VERSION, Kind, check_study, peek

MAX_COUNT: Final = 4096  # samples per message: bounds the sample table
MAX_PAYLOAD: Final = 64 << 20  # field bytes per message
MAX_PIECE_BYTES: Final = 4 << 20  # field bytes of a message of a part of a sample

_VALIDATION: Final = 1

# member, attempt, count, parameters, window, channels, axes, box start x3, box size x3, payload
_DATA = struct.Struct("<qIIHHHH3I3IQ8x")
HEADER_BYTES: Final = HEAD.size + _DATA.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """Where a DATA message comes from: the part of its header that is not shape."""

    study: int
    sender: int
    sequence: int
    member: int
    attempt: int
    validation: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A decoded DATA frame: views of it; ``fields`` is ``(k, window, channel, *box)``."""

    stamp: Stamp
    box: Box
    whole: bool
    samples: Int64[np.ndarray, " k"]
    steps: Int64[np.ndarray, " k"]
    times: Float64[np.ndarray, " k window"]
    parameters: Float64[np.ndarray, " parameters"]
    fields: np.ndarray


@dataclass(frozen=True, slots=True)
class _Offsets:
    payload: int
    payload_bytes: int
    samples: int
    steps: int
    times: int
    total: int


@lru_cache(maxsize=1024)  # a receiver sees a handful of shapes
def _offsets(layout: SampleLayout, box_points: int, count: int) -> _Offsets:
    payload = -(-(HEADER_BYTES + 8 * layout.num_parameters) // 64) * 64
    payload_bytes = count * layout.bytes_per_point * box_points
    samples = -(-(payload + payload_bytes) // 8) * 8
    steps = samples + 8 * count
    times = steps + 8 * count
    return _Offsets(
        payload, payload_bytes, samples, steps, times, times + 8 * count * layout.window
    )


def message_bytes(layout: SampleLayout, box: Box, count: int) -> int:
    """Length of a DATA frame of ``count`` samples."""
    return _offsets(layout, box.points, count).total


def pieces_of(layout: SampleLayout, box: Box, batch_bytes: int) -> tuple[list[Box], int]:
    """The boxes that a box of samples is sent in, and how many samples share a message."""
    boxes = box.pieces(MAX_PIECE_BYTES // layout.bytes_per_point)
    together = max(1, batch_bytes // (layout.bytes_per_point * box.points))
    return boxes, min(together, MAX_COUNT) if len(boxes) == 1 else 1


def largest_message(layout: SampleLayout, batch_bytes: int) -> int:
    """Bytes of the longest message of a sender of whole samples."""
    boxes, together = pieces_of(layout, Box.whole(layout.grid), batch_bytes)
    return max(message_bytes(layout, box, together) for box in boxes)


class Canvas:
    """A DATA message being written, in place, into a buffer that the caller owns."""

    def __init__(
        self, buffer: memoryview, *, layout: SampleLayout, box: Box, capacity: int
    ) -> None:
        if not box.fits(layout.grid):
            raise ValueError(f"box {box} is not inside the grid {layout.grid}")
        if not 1 <= capacity <= MAX_COUNT:
            raise ValueError(f"capacity must be in [1, {MAX_COUNT}] samples, got {capacity}")
        offsets = _offsets(layout, box.points, capacity)
        if offsets.payload_bytes > MAX_PAYLOAD:
            raise ValueError(
                f"a message of {capacity} samples has {offsets.payload_bytes} field bytes, "
                f"limit {MAX_PAYLOAD}: put fewer samples together or cut the box"
            )
        self.layout, self.box, self.capacity = layout, box, capacity
        self._buffer = buffer
        self._row = (layout.window, layout.channels, *box.size)
        self._rows = np.frombuffer(
            buffer,
            dtype=DTYPES[CODES[layout.dtype]],
            count=capacity * prod(self._row),
            offset=offsets.payload,
        ).reshape(capacity, *self._row)
        self._samples: list[int] = []
        self._steps: list[int] = []
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def full(self) -> bool:
        """Whether no further sample fits."""
        return len(self._samples) >= self.capacity

    def add(self, sample: int, step: int, times: np.ndarray, fields: np.ndarray) -> None:
        """Copy one sample in (the only copy the sending side makes)."""
        if fields.shape != self._row:
            raise ValueError(f"fields of a part must have shape {self._row}, got {fields.shape}")
        if times.shape != (self.layout.window,):
            raise ValueError(f"times must have shape ({self.layout.window},), got {times.shape}")
        if self._samples and sample <= self._samples[-1]:
            raise ValueError(f"sample numbers must increase: {sample} after {self._samples[-1]}")
        self._rows[len(self._samples)] = fields
        self._samples.append(sample)
        self._steps.append(step)
        self._times.extend(times.tolist())

    def seal(self, stamp: Stamp, parameters: Float64[np.ndarray, " parameters"]) -> int:
        """Write header and table around the samples, and start afresh; the frame's length."""
        layout, box, count = self.layout, self.box, len(self._samples)
        at = _offsets(layout, box.points, count)
        flags = _VALIDATION if stamp.validation else 0
        HEAD.pack_into(
            self._buffer, 0, MAGIC, VERSION, Kind.DATA, flags, CODES[layout.dtype],
            stamp.study, stamp.sender, stamp.sequence,
        )  # fmt: skip
        pad = MAX_AXES - len(box.size)
        _DATA.pack_into(
            self._buffer, HEAD.size, stamp.member, stamp.attempt, count, layout.num_parameters,
            layout.window, layout.channels, len(box.size), *box.start, *(0,) * pad,
            *box.size, *(1,) * pad, at.payload_bytes,
        )  # fmt: skip
        struct.pack_into(f"<{layout.num_parameters}d", self._buffer, HEADER_BYTES, *parameters)
        struct.pack_into(f"<{count}q", self._buffer, at.samples, *self._samples)
        struct.pack_into(f"<{count}q", self._buffer, at.steps, *self._steps)
        struct.pack_into(f"<{len(self._times)}d", self._buffer, at.times, *self._times)
        self._samples, self._steps, self._times = [], [], []
        return at.total


def decode(
    frame: memoryview, *, layout: SampleLayout, study: int, max_samples: int = 1 << 20
) -> Message:
    """Check everything about a DATA frame and give views of its content.

    Args:
        frame: As it came from the socket.
        layout: What the slots hold.
        study: The only study that is accepted.
        max_samples: Sample numbers must be below it.

    Raises:
        StreamRefused: Anything in it is not as it must be.
    """
    kind, frame_study, sender, sequence = peek(frame)
    if kind is not Kind.DATA:
        raise StreamRefused(f"unexpected kind: {kind.name}, need DATA")
    check_study(frame_study, study)
    if len(frame) < HEADER_BYTES:
        raise StreamRefused(f"short frame: {len(frame)} bytes, a DATA header has {HEADER_BYTES}")
    flags, code = frame[6], frame[7]
    (
        member, attempt, count, parameters, window, channels, axes, *corners, payload_bytes,
    ) = _DATA.unpack_from(frame, HEAD.size)  # fmt: skip
    if flags & ~_VALIDATION:
        raise StreamRefused(f"unknown flags: {flags:#x}, known {_VALIDATION:#x}")
    if code != CODES[layout.dtype]:
        raise StreamRefused(f"wrong dtype: code {code}, the slots hold {layout.dtype}")
    ours = len(layout.grid)
    box = Box(tuple(corners[:ours]), tuple(corners[MAX_AXES : MAX_AXES + ours]))
    _check_shape(layout, (parameters, window, channels, axes), box, count)
    if member < 0:
        raise StreamRefused(f"wrong member: {member}, must be >= 0")
    stamp = Stamp(
        study=study, sender=sender, sequence=sequence, member=member, attempt=attempt,
        validation=bool(flags & _VALIDATION),
    )  # fmt: skip
    return _views(frame, layout, stamp, box, count, payload_bytes, max_samples)


def _check_shape(
    layout: SampleLayout, stated: tuple[int, int, int, int], box: Box, count: int
) -> None:
    wanted = (layout.num_parameters, layout.window, layout.channels, len(layout.grid))
    if stated != wanted:
        raise StreamRefused(
            f"wrong layout: (parameters, window, channels, axes) = {stated}, need {wanted}"
        )
    if not 1 <= count <= MAX_COUNT:
        raise StreamRefused(f"wrong count: {count} samples, limit [1, {MAX_COUNT}]")
    if not box.fits(layout.grid):
        raise StreamRefused(f"wrong box: {box} is not inside the grid {layout.grid}")


def _views(
    frame: memoryview,
    layout: SampleLayout,
    stamp: Stamp,
    box: Box,
    count: int,
    payload_bytes: int,
    max_samples: int,
) -> Message:
    at = _offsets(layout, box.points, count)
    if payload_bytes != at.payload_bytes or payload_bytes > MAX_PAYLOAD:
        raise StreamRefused(
            f"wrong payload length: states {payload_bytes} bytes, {count} samples of {box.size} "
            f"have {at.payload_bytes}, limit {MAX_PAYLOAD}"
        )
    if len(frame) != at.total:
        raise StreamRefused(f"wrong frame length: {len(frame)} bytes, its header means {at.total}")
    samples = np.frombuffer(frame, np.int64, count, at.samples)
    if samples[0] < 0 or samples[-1] >= max_samples or not (samples[1:] > samples[:-1]).all():
        raise StreamRefused(
            f"wrong sample numbers: must increase within [0, {max_samples}), "
            f"got {samples[:3].tolist()}..{int(samples[-1])}"
        )
    dtype = DTYPES[CODES[layout.dtype]]
    values = np.frombuffer(frame, dtype, payload_bytes // dtype.itemsize, at.payload)
    return Message(
        stamp=stamp,
        box=box,
        whole=box.size == layout.grid,
        samples=samples,
        steps=np.frombuffer(frame, np.int64, count, at.steps),
        times=np.frombuffer(frame, np.float64, count * layout.window, at.times).reshape(count, -1),
        parameters=np.frombuffer(frame, np.float64, layout.num_parameters, HEADER_BYTES),
        fields=values.reshape(count, layout.window, layout.channels, *box.size),
    )
