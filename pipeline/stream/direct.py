"""Reservoir side of a node: senders write samples into its slots themselves; a socket tells who.

Between a sender and a reservoir of the same node no sample travels. The sender asks for slots over
a Unix socket, writes into them in shared memory, and says so; ``grants.py`` keeps the book.

1. One thread owns all connections; every wait in it is bounded; if it fails, ``check`` raises.
2. ``wake`` makes what waits try again at once; it is safe from any thread.
3. Only processes of this user can come: the folder is theirs alone, and the kernel says who it is.
4. What a sender was granted comes back when it says so, or when its *process* has ended, which the
   kernel tells through a pidfd: never because time has passed, nor because a connection has
   closed. Whoever may still write into a slot keeps it.
5. What a sender that has died has committed before is stored.
6. Whoever else wants the lock gets it after at most one message.
"""

import contextlib
import logging
import os
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import StreamRefused
from pipeline.slots.memory import SlotsDescription
from pipeline.stream import direct_wire as wire
from pipeline.stream.endpoint import DirectEndpoint
from pipeline.stream.grants import Grants, Holder
from pipeline.stream.sockets import Wake, new_socket

_log = logging.getLogger(__name__)

_SLICE: Final = 0.1  # seconds, the longest uninterrupted wait
_UNTOLD: Final = 0.002  # seconds until an answer that the kernel did not take is tried again
_BACKLOG: Final = 1024
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


@dataclass(slots=True, eq=False)
class _Peer:
    """A connection, and the process at its other end."""

    line: socket.socket
    pidfd: int
    holder: Holder | None = None  # None until its hello
    closed: bool = False  # nothing more will come from it


class DirectReceiver:
    """Serves grants of one reservoir until closed.

    Args:
        grants: Kept by this thread alone, under ``lock``.
        lock: Shared with whoever leases from the same reservoir.
        refuse: Counts and logs what is refused; called under the lock.
        training: Slots that senders map.
        validation: Likewise.
        node: Which node this is, where the study has several.
    """

    def __init__(
        self,
        *,
        grants: Grants,
        lock: AbstractContextManager[None],
        refuse: Callable[[str], None],
        training: SlotsDescription,
        validation: SlotsDescription | None = None,
        node: str = "",
    ) -> None:
        self._grants, self._lock, self._refuse = grants, lock, refuse
        self._slots, self._node = (training, validation), node
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._wake = Wake()
        self._closing = threading.Event()
        self._path: Path | None = None
        self._failure: BaseException | None = None
        self._poll = select.epoll()
        self._peers: dict[int, _Peer] = {}  # by socket, and by pidfd
        self._lines: dict[Holder, _Peer] = {}
        self._untold: list[tuple[Holder, bytes]] = []
        self._buffer = memoryview(bytearray(wire.MAX_BYTES + 1))
        self._thread = threading.Thread(target=self._run, name="headrace-direct", daemon=True)

    def start(self) -> DirectEndpoint:
        """Bind and begin to serve; where senders connect to."""
        _allow_files()
        self._path = new_socket()
        self._line.bind(str(self._path))
        self._line.listen(_BACKLOG)
        for source in (self._line.fileno(), self._wake.fd):
            self._poll.register(source, select.EPOLLIN)
        self._thread.start()
        training, validation = self._slots
        return DirectEndpoint(
            path=str(self._path), training=training, validation=validation, node=self._node
        )

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
        for peer in set(self._peers.values()):
            peer.line.close()
            os.close(peer.pidfd)
        self._peers.clear()
        self._line.close()
        self._poll.close()
        self._wake.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: somebody else's
                self._path.parent.rmdir()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                for source, _ in self._poll.poll(_UNTOLD if self._untold else _SLICE):
                    if source == self._line.fileno():
                        self._accept()
                    elif source == self._wake.fd:
                        self._wake.clear()
                    elif (peer := self._peers.get(source)) is not None:
                        self._hear(peer, ended=source == peer.pidfd)
                with self._lock:
                    answers = self._grants.serve(time.monotonic())
                answers = self._untold + answers
                self._untold = [each for each in answers if not self._tell(*each)]
        except BaseException as error:  # noqa: BLE001 - kept for check(), which the actor calls
            self._failure = error
            _log.exception("the receiver has stopped")

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                line, _ = self._line.accept()
            except BlockingIOError:
                return
            line.setblocking(False)
            packed = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process, user, _ = _CREDENTIALS.unpack(packed)
            pidfd = _process(process) if user == os.geteuid() else None
            if pidfd is None:
                line.close()
                with self._lock:
                    self._refuse(f"stranger: process {process} of user {user}")
                continue
            peer = _Peer(line, pidfd)
            for source in (line.fileno(), peer.pidfd):
                self._peers[source] = peer
                self._poll.register(source, select.EPOLLIN)

    def _hear(self, peer: _Peer, *, ended: bool) -> None:
        """Take in one message of a sender; all there are if its process has ended."""
        while not peer.closed:
            try:
                count = peer.line.recv_into(self._buffer)
            except BlockingIOError:
                break
            except ConnectionResetError:
                count = 0
            if count == 0:
                self._close(peer)
            else:
                self._take(peer, self._buffer[:count])
            if not ended:
                return  # the next poll tells of more: others come first
        if ended:
            self._forget(peer)

    def _take(self, peer: _Peer, frame: memoryview) -> None:
        with self._lock:
            try:
                if peer.holder is None:
                    peer.holder = self._grants.enter(frame)
                    self._lines[peer.holder] = peer
                else:
                    self._grants.take(peer.holder, frame)
            except StreamRefused as error:
                self._refuse(str(error))
                reason = str(error)
            else:
                return
        answer = wire.refused(0 if peer.holder is None else peer.holder.round, reason)
        with contextlib.suppress(OSError):  # one that does not listen need not know
            peer.line.send(answer)
        if peer.holder is None:
            self._close(peer)

    def _close(self, peer: _Peer) -> None:
        """Nothing more comes from there; what was granted stays granted while the process lives."""
        peer.closed = True
        self._poll.unregister(peer.line.fileno())
        del self._peers[peer.line.fileno()]
        peer.line.close()
        if peer.holder is not None:
            with self._lock:
                self._grants.leave(peer.holder)
        if peer.holder is None or not peer.holder.slots:
            self._forget(peer)

    def _forget(self, peer: _Peer) -> None:
        """The process has ended, or has given everything back."""
        if not peer.closed:
            self._close(peer)
        if self._peers.pop(peer.pidfd, None) is None:
            return
        self._poll.unregister(peer.pidfd)
        os.close(peer.pidfd)
        if peer.holder is not None:
            del self._lines[peer.holder]
            with self._lock:
                self._grants.end(peer.holder)

    def _tell(self, holder: Holder, answer: bytes) -> bool:
        """Send an answer; False when it must be tried again."""
        peer = self._lines.get(holder)
        if peer is None or peer.closed:
            return True
        try:
            peer.line.send(answer)
        except BlockingIOError:
            return False
        except OSError:  # it has gone, which the next poll tells
            pass
        return True


def _process(number: int) -> int | None:
    """A descriptor of a process, which tells when it has ended; None where there is none."""
    try:
        return os.pidfd_open(number)
    except (OSError, ValueError):  # 0: of another pid namespace
        return None


def _allow_files() -> None:
    """Let this process have as many files open as it may: two for each sender."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
