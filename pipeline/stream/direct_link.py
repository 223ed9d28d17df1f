"""One sender's end of a reservoir of its node: it writes samples into slots that it was granted.

1. A sample is copied once, from the solver's array into its slot, where it has one in time; else it
   is put aside, up to ``credit_bytes``, and follows into its slot in its turn.
2. A slot is written only while it is granted: not after its sample was committed or given back.
3. Nothing that is not finite is committed.
4. What was granted and is not used serves the next member, or is given back: when nothing was
   handed over for ``linger``, after a failure, and at the end.
5. When the reservoir is gone nothing is stored any more, and nothing fails for it here: whoever
   started both learns it sooner, and knows what to do.
"""

import contextlib
import math
import select
import socket
import threading
import time
from collections import deque
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from pipeline.errors import StreamRefused
from pipeline.flow import MOST_TOGETHER
from pipeline.slots.layout import Box, SampleLayout
from pipeline.slots.memory import Slots, SlotsDescription
from pipeline.stream import direct_wire as wire
from pipeline.stream.direct_wire import STORED
from pipeline.stream.endpoint import DirectEndpoint
from pipeline.stream.grants import MOST
from pipeline.stream.link import Member

_HELLO_SECONDS: Final = 60.0  # a reservoir with much to do answers late, one that has gone at once
_CLOSE_SECONDS: Final = 1.0
_PATIENCE_MS: Final = 2  # for a slot, before a sample is put aside
_BATCHES: Final = 8  # of ``batch_bytes``, that are committed together
_TOGETHER: Final = 128  # samples that are
_CACHED: Final = 1 << 16  # values of which what is made stays in the cache
_FEW: Final = 8192  # values; BLAS uses no threads for so few
_SHARE: Final = 32  # one sender's part of the slots for what is committed together


class _Aside(NamedTuple):
    """A sample that has no slot yet."""

    step: int
    times: Float64[np.ndarray, " window"]
    fields: np.ndarray


class DirectLink:
    """Grants, what is written, and what waits for a slot. The caller serialises the calls.

    Args:
        endpoint: Of the reservoir.
        number: Which of the study's reservoirs it is.
        among: How many there are.
        layout: What the slots hold.
        study: Its number.
        credit_bytes: Of samples that wait for a slot.
        batch_bytes: Roughly an eighth of what is committed together.
        box: The part of the grid that this sender owns.

    Raises:
        OSError: There is no such reservoir on this node.
        ValueError: What lies there belongs to another study.
        StreamRefused: The reservoir does not take this sender.
    """

    parts = range(1)  # of a sample, that are handed over one by one
    resent = 0  # nothing gets lost on the way

    def __init__(
        self,
        endpoint: DirectEndpoint,
        *,
        number: int,
        among: int,
        layout: SampleLayout,
        study: int,
        credit_bytes: int,
        batch_bytes: int,
        box: Box,
    ) -> None:
        self.name, self._number, self._among = endpoint.path, number, among
        self._row, self._window = (layout.window, layout.channels, *box.size), layout.window
        part = layout.bytes_per_point * box.points
        self._most_aside = min(MOST // 2, max(1, credit_bytes // part))
        self._most = wire.most_positions(layout)
        self._batch, self._ahead = MOST_TOGETHER // 2, MOST_TOGETHER
        self._whole = box.size == layout.grid
        if self._whole:
            share = max(1, endpoint.training.capacity // _SHARE)
            self._batch = min(share, _TOGETHER, self._most, 1 + _BATCHES * batch_bytes // part)
            self._ahead = 2 * self._batch
        # Positions below these are stored there, committed, written, asked for.
        self._stored = self._committed = self._position = 0
        self._asked_have = self._asked_until = 0
        self._generous = True  # the reservoir grants slots for what is still to come
        self._first, self._stride, self._base, self._round = 0, 1, 0, 0  # of the attempt
        self._validation = False
        self._slots: deque[int] = deque()  # granted, from ``_position`` on
        self._steps: list[int] = []  # of what is written and not committed
        self._times: list[float] = []
        self._aside: deque[_Aside] = deque()
        self._unsent: deque[bytes] = deque()  # what the kernel did not take yet
        self._started = self._used = 0.0  # the oldest of these was written; the last handed over
        self._failed: str | None = None  # why nothing of this attempt is taken any more
        self.refusal: str | None = None  # the same, until somebody has been told
        self.progress = 0
        self._mapped: list[SlotsDescription] = []
        self.socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._connect(self.socket, endpoint, study, box)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _connect(self, line: socket.socket, endpoint: DirectEndpoint, study: int, box: Box) -> None:
        line.settimeout(_HELLO_SECONDS)
        line.connect(endpoint.path)
        line.send(wire.hello(study, box))
        views = []
        for slots in (endpoint.training, endpoint.validation):
            if slots is not None:
                # A base-class view: a subclass pays for every index operation.
                fields = np.asarray(_map(slots).fields)
                self._mapped.append(slots)
                views.append(fields[(slice(None), slice(None), slice(None), *box.slices)])
        self._views = views
        self._target = views[0]
        answer = wire.decode_answer(line.recv(wire.MAX_BYTES))
        if isinstance(answer, wire.Refused):
            raise StreamRefused(answer.reason)
        line.setblocking(False)

    @property
    def idle(self) -> bool:
        """Everything that was handed over is stored, or was refused."""
        if self._failed is not None:
            return True
        done = self._stored == self._position
        return done and not self._aside and not self._unsent

    @property
    def quiet(self) -> bool:
        """Nothing becomes due while nobody hands anything over."""
        return self.idle and not self._slots and self._asked_until <= self._position

    @property
    def ready(self) -> bool:
        """Another attempt may be opened."""
        return self._failed is not None or not self._aside

    @property
    def held_at(self) -> float:
        """When the reservoir was last known to live: its end of the line closes with it."""
        return time.monotonic() if self.socket is not None else 0.0

    def room(self, part: int) -> bool:
        """Whether the next sample can be taken now."""
        del part
        return self.socket is not None and len(self._aside) < self._most_aside

    def ample(self, part: int) -> bool:
        """Whether who has waited should go on."""
        del part
        return self.socket is not None and 2 * len(self._aside) <= self._most_aside

    def open(self, member: Member) -> None:
        """What follows belongs to ``member``."""
        assert self.ready
        if self._failed is not None or not self._whole or member.validation != self._validation:
            self._give_back()
        self._failed = self.refusal = None
        self._base = self._asked_have = self._asked_until = self._position
        self._first, self._stride = 0, 1
        if not member.validation:
            self._first, self._stride = (self._number - member.member) % self._among, self._among
        self._validation = member.validation
        self._target = self._views[-1 if member.validation else 0]
        self._say(
            wire.open_(
                wire.Open(
                    round=self._round,
                    member=member.member,
                    position=self._base,
                    attempt=member.attempt,
                    validation=member.validation,
                    first=self._first,
                    stride=self._stride,
                    parameters=member.parameters,
                )
            )
        )
        self._used = time.monotonic()

    def put(
        self, part: int, sample: int, step: int, times: Float64[np.ndarray, " window"],
        fields: np.ndarray,
    ) -> None:  # fmt: skip
        """Write one sample into its slot, or put it aside; there must be room."""
        del part
        if self._failed is not None:
            self.refusal = self._failed
            return
        coming = self._position - self._base + len(self._aside)
        expected = self._first + self._stride * coming
        if sample != expected:
            raise ValueError(f"samples come in their order: {sample}, expected {expected}")
        if fields.shape != self._row:
            raise ValueError(f"fields of a part must have shape {self._row}, got {fields.shape}")
        if times.shape != (self._window,):
            raise ValueError(f"times must have shape ({self._window},), got {times.shape}")
        self._used = time.monotonic()
        if not self._slots and not self._aside:
            self._wait_for_slot()
        if self._slots:  # then nothing is aside
            self._write(step, times, fields)
            if len(self._steps) < self._batch:
                return
        else:
            self._aside.append(_Aside(step, times.copy(), fields.astype(self._target.dtype)))
            self.receive(self._used)
            if not self._wanting:
                return
        self._work(ahead=True)

    def dispatch(self, now: float) -> None:
        """Commit what is written, if anything is."""
        del now
        if self._steps:
            self._work(ahead=False)

    def service(self, now: float, linger: float) -> None:
        """Do what is due: take answers in, commit what is late, give back what nobody uses."""
        self.receive(now)
        self._flush_unsent()
        if self._wanting or (self._steps and now - self._started >= linger):
            self._work(ahead=now - self._used < linger)
        held = self._slots or self._asked_until > self._position + len(self._aside)
        if held and not self._aside and not self._steps and now - self._used >= linger:
            self._give_back()

    def receive(self, now: float) -> None:
        """Take in the answers that have arrived, and write what waited for them."""
        del now
        while self.socket is not None:
            try:
                frame = self.socket.recv(wire.MAX_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                frame = b""
            if not frame:
                self._lose()
                return
            self._hear(wire.decode_answer(frame))
        written = min(len(self._aside), len(self._slots))
        if written and all(self._write(*self._aside.popleft()) for _ in range(written)):
            self._work(ahead=True)

    def owes(self, now: float) -> str:
        """What is not stored yet; empty when all is."""
        del now
        if self.idle:
            return ""
        gone = ", which has gone" if self.socket is None else ""
        waiting = f"{len(self._aside)} of them wait for a slot"
        count = self._position + len(self._aside) - self._stored
        return f"{self.name}{gone}: {count} samples are not stored, {waiting}"

    def close(self) -> None:
        """Give everything back, and let go of socket and memory."""
        if self.socket is not None:
            self.socket.settimeout(_CLOSE_SECONDS)
            with contextlib.suppress(OSError):  # what does not hear of it sees this process end
                self._give_back()
        self._lose()
        self._target, self._views = np.empty(0), []
        for slots in self._mapped:
            _unmap(slots)
        self._mapped = []

    @property
    def _wanting(self) -> bool:
        """A sample in hand has no slot, and the reservoir does not know of it."""
        granted = self._position + len(self._slots)
        return bool(self._aside) and not self._slots and self._asked_have <= granted

    def _wait_for_slot(self) -> None:
        """Give the reservoir a moment: putting a sample aside costs a second copy of it."""
        self.receive(self._used)
        asked = self._generous and self._asked_until > self._position
        for attempt in range(2):  # what was asked for in advance may come late, or not at all
            if self._slots or self.socket is None:
                return
            if attempt == 1 or not asked:
                self._work(ahead=True, in_hand=1)
            self._poll.poll(_PATIENCE_MS)
            self.receive(self._used)

    def _write(self, step: int, times: Float64[np.ndarray, " window"], fields: np.ndarray) -> bool:
        """Write into the next slot; False when what was to be written is not finite."""
        slot = self._slots.popleft()
        if slot != STORED:
            target = self._target[slot]
            target[...] = fields
            if not _is_finite(target):
                sample = self._first + self._stride * (self._position - self._base)
                self._work(ahead=False)  # those before it are right
                self._fail(f"not finite: fields of sample {sample}")
                return False
        if not self._steps:
            self._started = self._used
        self._steps.append(step)
        self._times.extend(times.tolist())
        self._position += 1
        return True

    def _work(self, *, ahead: bool, in_hand: int = 0) -> None:
        """Commit what is written, and ask for what is needed next."""
        while not self._unsent and self.socket is not None:
            count = min(len(self._steps), self._most)
            have = self._position + len(self._aside) + in_hand
            until = max(have, self._position + self._ahead * ahead)
            steps, times = self._steps[:count], self._times[: count * self._window]
            self._say(wire.work(self._round, self._committed, have, until, steps, times))
            self._committed += count
            del self._steps[:count], self._times[: count * self._window]
            self._asked_have, self._asked_until = have, until
            if not self._steps:
                return

    def _hear(self, answer: wire.Grant | wire.Refused) -> None:
        if answer.round != self._round or self._failed is not None:
            return  # what was granted has been given back, or will be
        if isinstance(answer, wire.Refused):
            self._fail(answer.reason)
            return
        self.progress += answer.stored - self._stored
        self._stored = answer.stored
        self._slots.extend(answer.slots.tolist())
        self._generous = self._position + len(self._slots) > self._asked_have

    def _fail(self, reason: str) -> None:
        self._failed = self.refusal = reason
        self._aside.clear()
        self._steps, self._times = [], []

    def _give_back(self) -> None:
        """Nothing is written into what was granted any more; what was not committed is undone."""
        self._slots.clear()
        self._aside.clear()
        self._steps, self._times = [], []
        self._position = self._asked_have = self._asked_until = self._committed
        self._round += 1
        self._say(wire.return_(self._round))

    def _say(self, frame: bytes) -> None:
        self._unsent.append(frame)
        self._flush_unsent()

    def _flush_unsent(self) -> None:
        while self._unsent and self.socket is not None:
            try:
                self.socket.send(self._unsent[0])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._lose()
                return
            self._unsent.popleft()

    def _lose(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


_mappings: dict[SlotsDescription, tuple[Slots, int]] = {}  # and how many links use each
_mappings_lock = threading.Lock()


def _map(description: SlotsDescription) -> Slots:
    """Slots to write into, mapped once for all links of this process."""
    with _mappings_lock:
        slots, links = _mappings.get(description, (None, 0))
        if slots is None:
            slots = Slots.attach(description, writable=True)
            # Page tables, no pages: a fault for every 4 KiB costs more than copying them.
            threading.Thread(target=slots.populate, name="headrace-populate", daemon=True).start()
        _mappings[description] = slots, links + 1
        return slots


def _unmap(description: SlotsDescription) -> None:
    with _mappings_lock:
        slots, links = _mappings.pop(description)
        if links > 1:
            _mappings[description] = slots, links - 1
        else:
            slots.close()


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are: of few, the sum of squares says so in half the time."""
    if values.size <= _FEW and values.dtype == np.float32 and values.flags.c_contiguous:
        flat = values.reshape(-1)
        if math.isfinite(flat.dot(flat)):
            return True
    if values.size <= _CACHED:
        return bool(np.isfinite(values).all())
    if len(values) == 1:
        return _is_finite(values[0])
    half = len(values) // 2
    return _is_finite(values[:half]) and _is_finite(values[half:])
