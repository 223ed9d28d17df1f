"""Reservoir side of the stream: the socket shell around ``Intake``.

1. One thread owns all sockets; every wait in it is bounded; if it fails, ``check`` raises.
2. ``wake`` makes what waits try again at once; it is safe from any thread.
3. A peer must have the study's client key.
4. A frame longer than ``max_frame`` is never allocated: libzmq drops the connection. Nor are more
   than ``_QUEUED`` frames of a connection: it stands still until they are taken.
5. Whoever else wants the lock gets it after at most one message.
6. A connection that does not say who it is within ``_HANDSHAKE_MS`` is closed, and strangers that
   come in numbers take no more than ``_STRANGERS`` answers a turn from those who belong here.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import zmq
import zmq.utils.z85
from zmq.utils.monitor import recv_monitor_message

from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.intake import Intake
from pipeline.stream.sockets import Wake
from pipeline.stream.wire import MAX_PAYLOAD

_log = logging.getLogger(__name__)

_SLICE_MS: Final = 100  # longest uninterrupted wait
_BURST: Final = 32  # messages between two rounds of answers
_STRANGERS: Final = 32  # handshakes judged, and failed ones counted, between two bursts
_QUEUED: Final = 32  # messages that libzmq holds of a connection
_ANSWERS: Final = 256  # that libzmq holds for one; a lost one is asked for again
_HANDSHAKE_MS: Final = 30_000  # on a machine with far too much to do ten seconds pass easily
_BACKLOG: Final = 1024  # connections that the kernel holds until libzmq takes them
_MAX_FRAME: Final = 2 * MAX_PAYLOAD  # what is too long up to here is refused by name
_ZAP: Final = "inproc://zeromq.zap.01"
_START_SECONDS: Final = 10.0


class Turnstile:
    """A lock that its holder cannot take again before those who are waiting for it.

    A plain lock lets a busy thread release and take it again before a waiter has woken up; here a
    waiter holds the gate, which the busy thread must pass too.
    """

    def __init__(self) -> None:
        self._gate, self._lock = threading.Lock(), threading.Lock()
        self._changed = threading.Condition(self._lock)

    def __enter__(self) -> None:
        with self._gate:
            self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Let go of it until the condition holds, at most so long; whether it does."""
        return self._changed.wait_for(condition, timeout)

    def notify(self) -> None:
        """Something changed that a condition may depend on; called by the holder."""
        self._changed.notify_all()


class ReceiverThread:
    """Runs an intake behind a socket until closed.

    Args:
        intake: Filled by this thread alone, under ``lock``.
        lock: Shared with whoever leases from the same reservoir; a ``Turnstile``.
        bind: ``"tcp://HOST[:PORT]"``; without a port: a free one.
        keys: Of the study.
        max_frame: Bytes; some more than the longest message, so that one too long has its answer.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        lock: AbstractContextManager[None],
        bind: str,
        keys: StudyKeys,
        max_frame: int = _MAX_FRAME,
    ) -> None:
        if not bind.startswith("tcp://"):
            raise ValueError(f"bind={bind!r}: need 'tcp://HOST[:PORT]'")
        self._intake, self._lock, self._bind = intake, lock, bind
        self._keys, self._max_frame = keys, max_frame
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake = Wake()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-receiver", daemon=True)

    def start(self) -> Endpoint:
        """Bind and begin to receive; where senders connect to."""
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        self._router.set(zmq.RCVHWM, _QUEUED)
        self._router.set(zmq.SNDHWM, _ANSWERS)
        self._router.set(zmq.MAXMSGSIZE, self._max_frame)
        self._router.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        self._router.set(zmq.BACKLOG, _BACKLOG)
        self._monitor = self._router.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._zap = self._context.socket(zmq.REP)
        self._zap.set(zmq.LINGER, 0)
        self._zap.bind(_ZAP)  # before the first peer: without a handler libzmq lets anybody in
        self._router.set(zmq.ZAP_DOMAIN, b"headrace")
        self._router.set(zmq.CURVE_SERVER, 1)
        self._router.set(zmq.CURVE_PUBLICKEY, self._keys.server_public)
        self._router.set(zmq.CURVE_SECRETKEY, self._keys.server_secret)
        host = self._bind.removeprefix("tcp://")
        self._router.bind(self._bind if ":" in host else f"tcp://{host}:*")
        bound = self._router.get_string(zmq.LAST_ENDPOINT)
        self._thread.start()
        return Endpoint(address=bound, server_key=self._keys.server_public)

    def wake(self) -> None:
        """Room may have appeared: try what waits. After ``close`` nothing does."""
        self._wake.set()

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise RuntimeError("the receiver has stopped") from self._failure

    def close(self) -> None:
        """Stop, and remove what was made. Safe to call twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._context.destroy(linger=0)
        self._wake.close()

    def _run(self) -> None:
        try:
            poller = zmq.Poller()
            for source in (self._router, self._zap, self._monitor, self._wake.fd):
                poller.register(source, zmq.POLLIN)
            while not self._closing.is_set():
                ready = dict(poller.poll(_SLICE_MS))
                if self._zap in ready:
                    self._authenticate()
                if self._monitor in ready:
                    self._note_strangers()
                if self._wake.fd in ready:
                    self._wake.clear()
                if self._router in ready:
                    self._receive_burst()
                # After that: what has come may have been what others waited for.
                if self._intake.pending:
                    with self._lock:
                        self._intake.retry(time.monotonic())
                self._answer()
        except BaseException as error:  # noqa: BLE001 - kept for check(), which the actor calls
            self._failure = error
            _log.exception("the receiver has stopped")

    def _receive_burst(self) -> None:
        router = self._router
        for _ in range(_BURST):
            try:
                identity = router.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            frame = router.recv(copy=False)
            if frame.more:
                while router.get(zmq.RCVMORE):
                    router.recv(copy=False)
                self._intake.refuse("several frames: a message has one")
                continue
            with self._lock:
                self._intake.take(frame.buffer, identity=identity, now=time.monotonic())

    def _answer(self) -> None:
        with self._lock:
            answers = self._intake.replies()
        for identity, frame in answers:
            self._router.send(identity, zmq.SNDMORE)  # one that has gone is passed over by ROUTER
            self._router.send(frame)

    def _authenticate(self) -> None:
        """Answer ZAP requests: who holds the study's client key may come in."""
        for _ in range(_STRANGERS):
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, number, mechanism = request[0], request[1], request[5]
            known = mechanism == b"CURVE" and self._knows(request[6])
            status, text = (b"200", b"OK") if known else (b"400", b"not a member of this study")
            self._zap.send_multipart([version, number, status, text, b"", b""])

    def _knows(self, client: bytes) -> bool:
        return hmac.compare_digest(zmq.utils.z85.encode(client), self._keys.client_public)

    def _note_strangers(self) -> None:
        """Count failed handshakes; many at a time, for libzmq waits when it holds too many."""
        for _ in range(_STRANGERS):
            try:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            with self._lock:
                self._intake.refuse(f"stranger: handshake failed at {event['endpoint'].decode()}")
