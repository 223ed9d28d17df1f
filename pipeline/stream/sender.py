"""Solver side of the stream: puts samples together, sends them, waits when there is no room.

1. ``send`` copies the fields and never waits but for credit; its waits are counted in
   ``wait_seconds``, and end in ``TimeoutError`` after ``stall_seconds`` in which nothing was stored
   and no receiver was known to hold what waits there for room. How long that may last is not for a
   sender to judge: the driver knows whether there is still a trainer, and ends the study if not.
2. ``flush`` returns only when every sample handed over is stored in a slot.
3. Sample i of member m goes to endpoint ``(m + i) % R``, so that every rank sees every member; a
   validation member goes to endpoint ``m % R`` as a whole, so that it can be compared as a
   trajectory. One message holds samples of one member.
4. A sample leaves within ``linger_ms`` while the interpreter can run, full message or not.
5. Memory is bounded by ``credit_bytes`` per endpoint; message buffers are used again, never grown.
6. What a receiver refuses is raised as ``StreamRefused`` by the next ``send`` or ``flush``.
7. A reservoir of this node is written into directly (``direct_link.py``), one of another node gets
   messages (``link.py``); the difference ends here.

One lock guards sockets and drafts. The caller's thread does the work; a ticker thread only does
what is due while the caller computes: late batches, acknowledgements, pings.
"""

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zmq
from jaxtyping import Float64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.direct_link import DirectLink
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.link import BlockPool, Link, Member

_log = logging.getLogger(__name__)

STALL_SECONDS: Final = 600.0
_SLICE_SECONDS: Final = 0.05  # longest uninterrupted wait
_IDLE_SECONDS: Final = 1.0  # how often an idle ticker looks up


@dataclass(frozen=True, kw_only=True, slots=True)
class SenderStats:
    """Counters of a sender since it was made.

    Attributes:
        samples: Handed over.
        bytes_sent: Field bytes handed over.
        wait_seconds: Time spent waiting for credit.
        resent: Messages sent again.
    """

    samples: int
    bytes_sent: int
    wait_seconds: float
    resent: int


class Sender:
    """Streams the samples of one member after the other to all receivers of a study.

    Args:
        endpoints: One per reservoir, in rank order.
        layout: What the slots hold.
        keys: Of the study: its number goes with every message, its keys to TCP endpoints.
        credit_bytes: What may be unacknowledged per endpoint; at least one message.
        batch_bytes: Samples are put together up to this size.
        linger_ms: How long a sample may wait for others to join its message.
        box: The part of the grid that this mpi_rank owns; None: all of it.
        stall_seconds: Give up when nothing was acknowledged, or known to wait, for so long.
        pool: Message buffers, to share among senders of one process with the same layout.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        layout: SampleLayout,
        keys: StudyKeys,
        credit_bytes: int,
        batch_bytes: int,
        linger_ms: float,
        box: Box | None = None,
        stall_seconds: float = STALL_SECONDS,
        pool: BlockPool | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("a sender needs at least one endpoint")
        own = Box.whole(layout.grid) if box is None else box
        self._part_bytes = layout.bytes_per_point * own.points
        self._layout, self._linger, self._stall = layout, linger_ms / 1000, stall_seconds
        blocks = BlockPool() if pool is None else pool
        self._links: list[Link | DirectLink] = []
        try:
            for number, endpoint in enumerate(endpoints):
                self._links.append(
                    _connect(
                        endpoint, number=number, among=len(endpoints), layout=layout, keys=keys,
                        credit_bytes=credit_bytes, batch_bytes=batch_bytes, box=own, pool=blocks,
                    )
                )  # fmt: skip
        except BaseException:
            for link in self._links:
                link.close()
            raise
        self._opened: Member | None = None
        self._failure: Exception | None = None
        self._samples = 0
        self._wait_seconds = 0.0
        self._lock = threading.Lock()
        self._busy, self._closing = threading.Event(), threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="headrace-sender", daemon=True)
        self._ticker.start()

    @property
    def stats(self) -> SenderStats:
        """All counters."""
        return SenderStats(
            samples=self._samples,
            bytes_sent=self._samples * self._part_bytes,
            wait_seconds=self._wait_seconds,
            resent=sum(link.resent for link in self._links),
        )

    def open(
        self,
        *,
        member: int,
        attempt: int,
        parameters: Float64[np.ndarray, " parameters"],
        validation: bool,
    ) -> None:
        """Start a member, or start it again; what was handed over before goes out first.

        A member keeps its parameters over all its attempts.
        """
        if parameters.shape != (self._layout.num_parameters,):
            raise ValueError(
                f"parameters must have shape ({self._layout.num_parameters},), "
                f"got {parameters.shape}"
            )
        opened = Member(
            member=member, attempt=attempt, validation=validation, parameters=parameters.copy()
        )
        with self._lock:
            for link in self._links:
                link.dispatch(time.monotonic())
            self._wait(lambda: all(link.ready for link in self._links), math.inf)
            for number, link in enumerate(self._links):
                # A reservoir that gets none of its samples need not know of a validation member.
                if not validation or number == member % len(self._links):
                    link.open(opened)
            self._opened = opened
        self._busy.set()

    def send(
        self,
        *,
        sample: int,
        step: int,
        times: Float64[np.ndarray, " window"],
        fields: np.ndarray,
    ) -> None:
        """Hand over one sample, or this mpi_rank's part of it; waits while there is no credit.

        Args:
            sample: Number within the member, increasing.
            step: Solver step of its first snapshot.
            times: Of its snapshots, in seconds.
            fields: ``(window, channel, *box)``; copied before this returns.

        Raises:
            StreamRefused: A receiver refused something sent before.
            TimeoutError: Nothing was acknowledged, or known to wait, for ``stall_seconds``.
        """
        opened = self._opened
        if opened is None:
            raise ValueError("send before open: say which member this is")
        home = opened.member if opened.validation else opened.member + sample
        with self._lock:
            link = self._links[home % len(self._links)]
            for part in link.parts:
                if not link.room(part):
                    self._wait_for_room(link, part)
                link.put(part, sample, step, times, fields)
            if link.refusal is not None or self._failure is not None:
                self._raise_refusal()
            self._samples += 1
            if not self._busy.is_set():
                self._busy.set()

    def flush(self, *, timeout: float) -> None:
        """Send what is drafted and wait until everything is stored.

        Raises:
            StreamRefused: A receiver refused something.
            TimeoutError: Not done within ``timeout`` seconds, or nothing was acknowledged, or
                known to wait, for ``stall_seconds``.
        """
        with self._lock:
            for link in self._links:
                link.dispatch(time.monotonic())
            self._wait(lambda: all(link.idle for link in self._links), timeout)
            self._raise_refusal()

    def close(self) -> None:
        """Let go of everything, acknowledged or not. Safe to call twice."""
        self._closing.set()
        self._busy.set()
        self._ticker.join()
        with self._lock:
            for link in self._links:
                link.close()

    def _wait_for_room(self, link: Link | DirectLink, part: int) -> None:
        started = time.monotonic()
        try:
            self._wait(lambda: link.ample(part), math.inf)
        finally:
            self._wait_seconds += time.monotonic() - started

    def _wait(self, done: Callable[[], bool], timeout: float) -> None:
        """Turn until ``done``; up to ``timeout``, and up to ``stall_seconds`` without progress."""
        started = progress = time.monotonic()
        stored = -1
        while not done():
            self._raise_refusal()
            now = time.monotonic()
            if (total := sum(link.progress for link in self._links)) != stored:
                stored, progress = total, now
            progress = max(progress, *(link.held_at for link in self._links))
            if now - started >= timeout:
                raise TimeoutError(f"not stored after {timeout:g} s: {self._owed()}")
            if now - progress >= self._stall:
                raise TimeoutError(
                    f"nothing was stored for {self._stall:g} s, and no receiver says that anything "
                    f"waits there: {self._owed()}. Are the reservoirs alive?"
                )
            self._turn(min(_SLICE_SECONDS, started + timeout - now))

    def _turn(self, seconds: float) -> None:
        """Wait for an answer, then do what is due."""
        poller = zmq.Poller()
        for link in self._links:
            if link.socket is not None:
                poller.register(link.socket, zmq.POLLIN)
        poller.poll(round(1000 * seconds))
        now = time.monotonic()
        for link in self._links:
            link.service(now, self._linger)

    def _owed(self) -> str:
        now = time.monotonic()
        return "; ".join(owed for link in self._links if (owed := link.owes(now)))

    def _raise_refusal(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the sender's ticker has stopped") from self._failure
        for link in self._links:
            if link.refusal is not None:
                reason, link.refusal = link.refusal, None
                raise StreamRefused(f"{link.name} refused a message: {reason}")

    def _tick(self) -> None:
        """Do what is due while the caller computes; a caller that holds the lock does it itself."""
        try:
            while not self._closing.is_set():
                if self._busy.wait(_IDLE_SECONDS):
                    # A draft that is not due at one look is at the next, so two looks a linger
                    # and half of it to be due make a linger at most.
                    self._closing.wait(self._linger / 2)
                    self._service()
        except Exception as error:  # noqa: BLE001 - kept for the caller's next send or flush
            self._failure = error

    def _service(self) -> None:
        if self._closing.is_set() or not self._lock.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            for link in self._links:
                link.service(now, self._linger / 2)
            if all(link.quiet for link in self._links):
                self._busy.clear()
        finally:
            self._lock.release()


def _connect(
    endpoint: Endpoint,
    *,
    number: int,
    among: int,
    layout: SampleLayout,
    keys: StudyKeys,
    credit_bytes: int,
    batch_bytes: int,
    box: Box,
    pool: BlockPool,
) -> Link | DirectLink:
    """The way to one reservoir: the direct one where there is one from here."""
    if endpoint.direct is not None:
        try:
            return DirectLink(
                endpoint.direct, number=number, among=among, layout=layout, study=keys.study,
                credit_bytes=credit_bytes, batch_bytes=batch_bytes, box=box,
            )  # fmt: skip
        except (OSError, ValueError, StreamRefused) as error:
            if not endpoint.address:
                raise ConnectionError(f"{endpoint.direct.path} cannot be used: {error}") from error
            _log.info("%s cannot be used, %s is: %s", endpoint.direct.path, endpoint.address, error)
    return Link(
        endpoint, layout=layout, sender=secrets.randbits(64), keys=keys,
        credit_bytes=credit_bytes, batch_bytes=batch_bytes, box=box, pool=pool,
    )  # fmt: skip
