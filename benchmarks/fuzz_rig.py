"""A live stream and those who want to disturb it: for the test of the receiver and its benchmark.

1. Every slot that is filled is leased once and compared with what the honest senders have sent.
2. Honest senders know nothing of the attack, and every sample of theirs is counted.
3. Who has the study's keys may store samples under member numbers of his own: the attackers stay
   away from the honest ones' numbers, everything else in a frame is theirs to choose.
4. Strangers (wrong keys, silent or talking connections) never get as far as a frame.
"""

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Final

import numpy as np
import zmq

from benchmarks.processes import CONTEXT, reporting
from benchmarks.store_rig import fifo, turning
from benchmarks.stream_rig import SENDING
from pipeline.slots.layout import Box, SampleLayout
from pipeline.slots.memory import Slots, slots_path
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.frames import HEAD, Control, Kind, decode_control, encode_control
from pipeline.stream.intake import Bounds, Intake
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import ReceiverThread, Turnstile
from pipeline.stream.sender import Sender
from pipeline.stream.wire import HEADER_BYTES, Canvas, Stamp, largest_message, message_bytes

LAYOUT: Final = SampleLayout(window=1, sample_shape=(1, 64, 64), num_parameters=2)  # 16 KB
SENDERS: Final = 2
SAMPLES: Final = 500  # per member
HONEST: Final = 20_000  # member numbers below it are the honest senders'
ATTACK: Final = 100  # numbers after these are the attackers'
CAPACITY: Final = 4096
BOUNDS: Final = Bounds(
    members=HONEST + ATTACK, samples=SAMPLES, waiting_bytes=2 * SENDERS * SENDING["credit_bytes"]
)
_MEMBER_AT: Final = HEAD.size
_SEQUENCE_AT: Final = HEAD.size - 8
_TIMEOUT_SECONDS: Final = 120.0
_NICE: Final = 19  # attackers have machines of their own; here they get what the study leaves
_PATTERN: Final = np.random.default_rng(7).integers(-99, 99, LAYOUT.sample_shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """How much of what comes.

    Attributes:
        frames: Of peers with the study's keys.
        peers: Among which these are spread.
        strangers: Sockets with wrong keys.
        talkers: TCP connections that send noise.
        silent: TCP connections that say nothing for as long as the attack lasts.
    """

    frames: int
    peers: int = 2
    strangers: int = 100
    talkers: int = 100
    silent: int = 1000

    def scaled(self, factor: float) -> "Attack":
        """The same kinds, as many of each times ``factor``."""
        return replace(
            self,
            **{
                name: max(1, round(factor * getattr(self, name)))
                for name in ("frames", "strangers", "talkers", "silent")
            },
        )


FULL: Final = Attack(frames=1_000_000, strangers=1000, talkers=1000, silent=10_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of an attack on a live stream.

    Attributes:
        quiet: Honest samples stored per second before it.
        attacked: The same while it lasted.
        seconds: It lasted.
        grown_bytes: Of the receiver's process, from just before to just after.
        peak_bytes: The most in between.
        sent: By the honest senders.
        stored: Of these.
        twice: Of these, stored again.
        wrong: Slots that hold something else than they should.
        attackers: Samples that peers with keys have stored under their own numbers.
        refused: Frames and handshakes that the receiver has refused.
    """

    quiet: float
    attacked: float
    seconds: float
    grown_bytes: int
    peak_bytes: int
    sent: int
    stored: int
    twice: int
    wrong: int
    attackers: int
    refused: int

    @property
    def kept(self) -> float:
        """Of the honest rate."""
        return self.attacked / self.quiet


def truth(members: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Fields of these samples; whole numbers, so that they compare exactly."""
    level = members % 1009 + 2 * samples
    fields: np.ndarray = (_PATTERN + level.reshape(-1, 1, 1, 1)).astype(np.float32)
    return fields[:, None]


class Auditor:
    """Leases whatever is stored, compares it, and gives it back, so that slots become free."""

    def __init__(self, slots: Slots, lock: Turnstile) -> None:
        self.book = fifo(slots.capacity)
        self._slots, self._lock = slots, lock
        self._seen = np.zeros((HONEST, SAMPLES), np.bool_)
        self.stored = self.twice = self.wrong = self.attackers = 0
        self._over = False

    def finish(self) -> None:
        """Nothing more comes: the last batch may be filled up with what was drawn before."""
        with self._lock:
            self.book.end_production()
            self._over = True

    def turn(self) -> None:
        """Look at what has come since the last turn."""
        with self._lock:
            lease, over = self.book.lease(8, 32), self._over
        if lease.indices.size:
            self._compare(lease.indices.ravel(), over)
        with self._lock:
            self.book.give_back(lease.id)

    def _compare(self, slots: np.ndarray, over: bool) -> None:
        members, samples = self._slots.members[slots], self._slots.steps[slots]
        ours = members < HONEST
        self.attackers += int((~ours).sum())
        fields, inputs = self._slots.fields[slots], self._slots.inputs[slots]
        finite = np.isfinite(fields).all(axis=(1, 2, 3, 4)) & np.isfinite(inputs).all(axis=1)
        wrong = ~(finite & (members < BOUNDS.members))
        members, samples = members[ours], samples[ours]
        expected = np.stack([members, members + 0.5, 0.25 * samples], axis=1, dtype=np.float64)
        wrong[ours] |= (inputs[ours] != expected).any(axis=1)
        wrong[ours] |= (fields[ours] != truth(members, samples)).any(axis=(1, 2, 3, 4))
        self.wrong += int(wrong.sum())
        keys = np.unique(members * SAMPLES + samples)
        fresh = keys[~self._seen.ravel()[keys]]
        self.twice += 0 if over else members.size - fresh.size
        self._seen.ravel()[fresh] = True
        self.stored += fresh.size


def measure(attack: Attack, *, quiet_seconds: float, pause: float = 0.0) -> Outcome:
    """Let a stream run alone, then under attack, and to its end.

    Args:
        attack: What comes.
        quiet_seconds: Before it.
        pause: Seconds that each honest sender computes for a sample.
    """
    keys = StudyKeys.generate()
    with ExitStack() as stack:
        path = slots_path(f"fuzz{keys.study:x}", 0, "train")
        slots = stack.enter_context(Slots.create(path, capacity=CAPACITY, layout=LAYOUT))
        slots.populate()
        lock = Turnstile()
        auditor = Auditor(slots, lock)
        intake = Intake(
            layout=LAYOUT, study=keys.study, bounds=BOUNDS,
            training=Placing(slots=slots, book=auditor.book, layout=LAYOUT),
        )  # fmt: skip
        receiver = ReceiverThread(
            intake=intake, lock=lock, bind="tcp://127.0.0.1", keys=keys,
            max_frame=2 * largest_message(LAYOUT, SENDING["batch_bytes"]),
        )  # fmt: skip
        stack.callback(receiver.close)
        endpoint = receiver.start()
        stack.enter_context(_many_files())
        stack.enter_context(turning(auditor.turn, receiver.wake))
        finish = stack.enter_context(_honest(endpoint, keys, pause))
        _wait_for(lambda: auditor.stored > 0, receiver)
        with _attackers(attack, endpoint, keys) as (ended, go, over):
            quiet = _rate(auditor, quiet_seconds)  # they stand ready
            before, began = _memory(), time.monotonic()
            peak, stored = before, auditor.stored
            go.set()
            while not all(connection.poll() for connection in ended):
                receiver.check()
                peak = max(peak, _memory())
                time.sleep(0.02)
                if time.monotonic() - began > 10 * _TIMEOUT_SECONDS:
                    raise TimeoutError("the attack does not come to an end")
            seconds = time.monotonic() - began
            attacked = (auditor.stored - stored) / seconds
            over.set()
        sent = finish()
        auditor.finish()
        _wait_for(lambda: auditor.stored >= sent, receiver)
        return Outcome(
            quiet=quiet, attacked=attacked, seconds=seconds,
            grown_bytes=_memory() - before, peak_bytes=peak - before, sent=sent,
            stored=auditor.stored, twice=auditor.twice, wrong=auditor.wrong,
            attackers=auditor.attackers, refused=intake.stats(time.monotonic()).refused,
        )  # fmt: skip


def _wait_for(condition: Callable[[], bool], receiver: ReceiverThread) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        receiver.check()
        time.sleep(0.01)
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {_TIMEOUT_SECONDS} s")


def _rate(auditor: Auditor, seconds: float) -> float:
    stored, began = auditor.stored, time.monotonic()
    time.sleep(seconds)
    return (auditor.stored - stored) / (time.monotonic() - began)


def _memory() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@contextmanager
def _many_files() -> Iterator[None]:
    """As many open files as the system lets this process have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- the honest senders ---------------------------------------------------------------------------


@contextmanager
def _honest(endpoint: Endpoint, keys: StudyKeys, pause: float) -> Iterator[Callable[[], int]]:
    """Senders in processes of their own; the function ends them and says what they have sent."""
    stop = CONTEXT.Event()
    with ExitStack() as stack:
        ends = [
            stack.enter_context(reporting(_send, endpoint, keys, rank, pause, stop))
            for rank in range(SENDERS)
        ]

        def finish() -> int:
            stop.set()
            return sum(_answer(end) for end in ends)

        yield finish


def _send(
    endpoint: Endpoint, keys: StudyKeys, rank: int, pause: float, stop: Event, end: Connection
) -> None:
    sender, sent = Sender([endpoint], layout=LAYOUT, keys=keys, **SENDING), 0
    for member in range(rank, HONEST, SENDERS):
        if stop.is_set():
            break
        sender.open(
            member=member, attempt=1, validation=False, parameters=np.array([member, member + 0.5])
        )
        fields = truth(np.full(SAMPLES, member), np.arange(SAMPLES))
        for sample in range(SAMPLES):
            sender.send(
                sample=sample, step=sample, times=np.array([0.25 * sample]), fields=fields[sample]
            )
            if pause:
                time.sleep(pause)
        sent += SAMPLES
    sender.flush(timeout=_TIMEOUT_SECONDS)
    sender.close()
    end.send(sent)


# --- the attackers --------------------------------------------------------------------------------


@contextmanager
def _attackers(
    attack: Attack, endpoint: Endpoint, keys: StudyKeys
) -> Iterator[tuple[list[Connection], Event, Event]]:
    """Processes; one end of a pipe for each, on which it speaks when it is through."""
    go, over, ready = CONTEXT.Event(), CONTEXT.Event(), CONTEXT.Barrier(attack.peers + 2)
    frames = attack.frames // attack.peers
    with ExitStack() as stack:
        ends = [
            stack.enter_context(
                reporting(_member_of_the_study, endpoint, keys, frames, n, ready, go)
            )
            for n in range(attack.peers)
        ]
        ends.append(
            stack.enter_context(reporting(_outsider, endpoint, keys, attack, ready, go, over))
        )
        ready.wait(_TIMEOUT_SECONDS)
        yield ends, go, over


def _member_of_the_study(
    endpoint: Endpoint,
    keys: StudyKeys,
    frames: int,
    seed: int,
    ready: Barrier,
    go: Event,
    end: Connection,
) -> None:
    """A peer with the right keys that sends ``frames`` frames of every wrong kind."""
    os.nice(_NICE)
    fuzz = Fuzz(keys.study, seed)
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.set(zmq.LINGER, 0)
        _authenticate(raw, endpoint, keys)
        raw.connect(endpoint.address)
        ready.wait(_TIMEOUT_SECONDS)
        go.wait(_TIMEOUT_SECONDS)
        for number in range(frames):
            parts = fuzz.parts(number)
            raw.send_multipart(parts)
            if number % 64 == 0:
                while raw.poll(0):
                    raw.recv()
        _wait_for_answer(raw, keys.study)
    end.send(frames)


def _wait_for_answer(raw: "zmq.Socket[bytes]", study: int) -> None:
    """Until the receiver has come to the end of all that was sent before."""
    sender, deadline = 0xABCDEF, time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:  # an answer for which there was no room is not kept for us
        ping = Control(kind=Kind.PING, study=study, sender=sender, sequence=1)
        raw.send(encode_control(ping))
        while raw.poll(1000):
            answer = decode_control(memoryview(raw.recv()), study=study)
            if (answer.kind, answer.sender) == (Kind.HELD, sender):
                return
    raise TimeoutError("no answer to the ping after the last frame")


def _authenticate(raw: "zmq.Socket[bytes]", endpoint: Endpoint, keys: StudyKeys) -> None:
    assert endpoint.server_key is not None
    raw.set(zmq.CURVE_SERVERKEY, endpoint.server_key)
    raw.set(zmq.CURVE_PUBLICKEY, keys.client_public)
    raw.set(zmq.CURVE_SECRETKEY, keys.client_secret)


class Fuzz:
    """Frames as a malicious or broken program would write them, the same for the same seed."""

    def __init__(self, study: int, seed: int) -> None:
        self._study, self._rng = study, np.random.default_rng(seed)
        whole, part = Box.whole(LAYOUT.grid), Box((3, 0), (2, LAYOUT.grid[1]))
        self._valid = self._frame(whole, study, [0, 1])
        self._part = self._frame(part, study, [4, 7])
        self._foreign = self._frame(whole, study ^ 1, [0, 1])
        self._not_finite = self._frame(whole, study, [0, 1], value=np.nan)
        self._kinds = (
            self._noise, self._truncated, self._mutated, self._other_study, self._enormous,
            self._control, self._of_many_senders, self._of_many_members, self._nan,
            self._never_whole, self._far_sample,
        )  # fmt: skip

    def parts(self, number: int) -> list[bytes | bytearray]:
        """One message; now and then of several frames."""
        kind = self._kinds[number % len(self._kinds)]
        frame = kind()
        if len(frame) >= HEADER_BYTES:
            (member,) = struct.unpack_from("<q", frame, _MEMBER_AT)
            if 0 <= member < HONEST:
                struct.pack_into("<q", frame, _MEMBER_AT, HONEST + member % ATTACK)
            # Not zero for all: what waits already is passed over unread.
            struct.pack_into("<Q", frame, _SEQUENCE_AT, number)
        return [frame, b"x" * 9] if number % 1000 == 999 else [frame]

    def _frame(self, box: Box, study: int, samples: list[int], *, value: float = 0.5) -> bytearray:
        buffer = bytearray(message_bytes(LAYOUT, box, len(samples)))
        canvas = Canvas(memoryview(buffer), layout=LAYOUT, box=box, capacity=len(samples))
        for sample in samples:
            fields = np.full((1, 1, *box.size), value, np.float32)
            canvas.add(sample, sample, np.zeros(1), fields)
        stamp = Stamp(study=study, sender=1, sequence=0, member=HONEST, attempt=1, validation=False)
        canvas.seal(stamp, np.zeros(2))
        return buffer

    def _number(self, bits: int = 63) -> int:
        return int(self._rng.integers(0, 1 << bits))

    def _noise(self) -> bytearray:
        return bytearray(self._rng.bytes(int(self._rng.integers(0, 300))))

    def _truncated(self) -> bytearray:
        return self._valid[: int(self._rng.integers(0, 400))]

    def _mutated(self) -> bytearray:
        frame = bytearray(self._valid)
        for at in self._rng.integers(0, 2 * HEADER_BYTES, int(self._rng.integers(1, 8))):
            frame[at] = int(self._rng.integers(0, 256))
        return frame

    def _other_study(self) -> bytearray:
        return bytearray(self._foreign)

    def _enormous(self) -> bytearray:
        """Lengths, counts and corners that would be terabytes, in a short frame."""
        frame = self._valid[:512]
        for at in self._rng.integers(_MEMBER_AT + 8, HEADER_BYTES, 6):
            frame[at] = 255
        return frame

    def _control(self) -> bytearray:
        kind, length = int(self._rng.integers(2, 7)), self._number()
        sender, sequence = self._number(), self._number()
        head = HEAD.pack(b"HDRC", 1, kind, 0, 0, self._study, sender, sequence)
        return bytearray(head + struct.pack("<Q", length) + self._rng.bytes(48))

    def _of_many_senders(self) -> bytearray:
        frame = bytearray(self._valid)
        struct.pack_into("<QQ", frame, _SEQUENCE_AT - 8, self._number(), self._number())
        return frame

    def _of_many_members(self) -> bytearray:
        frame = bytearray(self._valid)
        struct.pack_into("<q", frame, _MEMBER_AT, self._number())
        return frame

    def _nan(self) -> bytearray:
        return bytearray(self._not_finite)

    def _never_whole(self) -> bytearray:
        return bytearray(self._part)

    def _far_sample(self) -> bytearray:
        frame = bytearray(self._valid)
        at = len(frame) - 2 * 24 + 8  # the second sample number of the table
        struct.pack_into("<q", frame, at, self._number())
        return frame


def _outsider(
    endpoint: Endpoint,
    keys: StudyKeys,
    attack: Attack,
    ready: Barrier,
    go: Event,
    over: Event,
    end: Connection,
) -> None:
    """Wrong keys, connections that talk nonsense, connections that say nothing."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    host, port = endpoint.address.removeprefix("tcp://").split(":")
    address = (host, int(port))
    os.nice(_NICE)
    ready.wait(_TIMEOUT_SECONDS)
    go.wait(_TIMEOUT_SECONDS)
    with ExitStack() as stack:
        for _ in range(attack.silent):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(address, timeout=10.0))
        for number in range(attack.talkers):
            with contextlib.suppress(OSError):
                _talk(address, number)
        for _ in range(attack.strangers):
            _knock(endpoint, _with_other_client(keys))
        end.send(attack.silent)
        over.wait(_TIMEOUT_SECONDS * 10)


def _with_other_client(keys: StudyKeys) -> StudyKeys:
    public, secret = zmq.curve_keypair()
    return replace(keys, client_public=public, client_secret=secret)


def _talk(address: tuple[str, int], number: int) -> None:
    """Noise, or a greeting of ZeroMQ followed by a frame that states an enormous length."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    enormous = greeting + b"\x06" + struct.pack(">Q", 1 << 62)
    with socket.create_connection(address, timeout=10.0) as line:
        line.sendall((os.urandom(3000), enormous, greeting + os.urandom(500))[number % 3])


def _knock(endpoint: Endpoint, keys: StudyKeys) -> None:
    """A socket with wrong keys that has frames to send."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.set(zmq.LINGER, 0)
        raw.set(zmq.RECONNECT_IVL, -1)
        _authenticate(raw, endpoint, keys)
        raw.connect(endpoint.address)
        for _ in range(10):
            raw.send(b"HDRC")
        raw.poll(5)


def _answer(end: Connection) -> int:
    if not end.poll(_TIMEOUT_SECONDS):
        raise TimeoutError("an honest sender does not come to its end")
    return int(end.recv())
