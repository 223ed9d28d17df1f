"""Senders and receivers over real sockets, some in processes of their own."""

import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zmq

from benchmarks.stream_rig import SENDING
from pipeline.errors import StreamRefused
from pipeline.flow import FlowControl
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import Box, SampleLayout
from pipeline.slots.memory import Slots
from pipeline.stream import receiver as receiving
from pipeline.stream.direct import DirectReceiver
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.grants import Grants
from pipeline.stream.intake import Intake, IntakeStats
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import ReceiverThread, Turnstile
from pipeline.stream.sender import Sender
from pipeline.stream.sockets import remove_stale_sockets

LAYOUT = SampleLayout(window=2, sample_shape=(2, 12, 20), num_parameters=3)
LARGE = SampleLayout(window=1, sample_shape=(1, 1100, 1300), num_parameters=1)
KEYS = StudyKeys.generate()
TIMEOUT = 20.0
TCP = "tcp://127.0.0.1"
TRANSPORTS = ["direct", TCP]


@dataclass
class Node:
    """One receiver with its reservoir and slots."""

    slots: Slots
    book: Reservoir
    intake: Intake
    grants: Grants
    receiver: ReceiverThread | DirectReceiver
    lock: Turnstile
    endpoint: Endpoint
    kept: Slots | None = None

    def stats(self) -> IntakeStats:
        """What came in, whichever way."""
        with self.lock:
            now = time.monotonic()
            return self.intake.stats(now) + self.grants.stats(now)

    def stored(self) -> dict[tuple[int, int], int]:
        """(member, step) -> slot."""
        with self.lock:
            filled = self.book.filled().tolist()
        keys = [(int(self.slots.members[s]), int(self.slots.steps[s])) for s in filled]
        assert len(set(keys)) == len(keys), "a sample lies in two slots"
        return dict(zip(keys, filled, strict=True))


class Nodes:
    """Starts receivers, and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stack, self.count = folder, ExitStack(), 0

    def start(
        self,
        bind: str = "direct",
        *,
        capacity: int = 512,
        layout: SampleLayout = LAYOUT,
        keys: StudyKeys = KEYS,
        max_frame: int = 1 << 20,
        validating: bool = False,
    ) -> Node:
        self.count += 1
        path = self.folder / f"slots{self.count}"
        slots = self.stack.enter_context(Slots.create(path, capacity=capacity, layout=layout))
        flow = FlowControl(max_reuse=None, max_surplus=None, watermark=1)
        rng = np.random.default_rng(self.count)
        book = Reservoir(policy="reservoir", capacity=capacity, flow=flow, rng=rng)
        lock = Turnstile()
        training = Placing(slots=slots, book=book, layout=layout)
        kept = validation = None
        if validating:
            path = self.folder / f"validation{self.count}"
            kept = self.stack.enter_context(Slots.create(path, capacity=capacity, layout=layout))
            appended = Appended(capacity=capacity)
            validation = Placing(slots=kept, book=appended, layout=layout)
        intake = Intake(layout=layout, study=KEYS.study, training=training, validation=validation)
        grants = Grants(
            layout=layout, study=KEYS.study, training=training, validation=validation,
            ahead=capacity // 8,
        )  # fmt: skip
        receiver: ReceiverThread | DirectReceiver
        if bind == "direct":
            receiver = DirectReceiver(
                grants=grants, lock=lock, refuse=intake.refuse, training=slots.description,
                validation=None if kept is None else kept.description,
            )  # fmt: skip
        else:
            receiver = ReceiverThread(
                intake=intake, lock=lock, bind=bind, keys=keys, max_frame=max_frame
            )
        self.stack.callback(receiver.close)
        started = receiver.start()
        endpoint = started if isinstance(started, Endpoint) else Endpoint(direct=started)
        return Node(slots, book, intake, grants, receiver, lock, endpoint, kept)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    started = Nodes(tmp_path)
    with started.stack:
        yield started


@pytest.fixture
def senders() -> Iterator[Callable[..., Sender]]:
    with ExitStack() as stack:

        def make(endpoints: list[Endpoint], **settings: object) -> Sender:
            layout = settings.pop("layout", LAYOUT)
            keys = settings.pop("keys", KEYS)
            settings = SENDING | settings
            sender = Sender(endpoints, layout=layout, keys=keys, **settings)  # type: ignore[arg-type]
            stack.callback(sender.close)
            return sender

        yield make


def truth(member: int, sample: int, layout: SampleLayout = LAYOUT) -> np.ndarray:
    rng = np.random.default_rng([member, sample])
    return rng.random((layout.window, *layout.sample_shape), np.float32)


def run_member(
    sender: Sender, member: int, samples: int, *, attempt: int = 1, box: Box | None = None
) -> None:
    sender.open(
        member=member, attempt=attempt, parameters=np.array([member, 2.0, 3.0]), validation=False
    )
    for sample in range(samples):
        fields = truth(member, sample)
        if box is not None:
            fields = fields[(slice(None), slice(None), *box.slices)]
        times = np.array([sample, sample + 0.5])
        sender.send(sample=sample, step=sample, times=times, fields=fields)


def check(node: Node, member: int, sample: int) -> None:
    slot = node.stored()[member, sample]
    np.testing.assert_array_equal(node.slots.fields[slot], truth(member, sample))
    np.testing.assert_array_equal(
        node.slots.inputs[slot], np.array([member, 2, 3, sample, sample + 0.5])
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def in_process(
    endpoints: list[Endpoint], keys: StudyKeys, members: list[int], samples: int
) -> None:
    settings = SENDING | {"batch_bytes": 20_000, "credit_bytes": 100_000}
    sender = Sender(endpoints, layout=LAYOUT, keys=keys, **settings)
    for member in members:
        run_member(sender, member, samples)
    sender.flush(timeout=TIMEOUT)
    sender.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_sample_of_every_process_lies_in_its_slot_once(nodes: Nodes, transport: str) -> None:
    pair = [nodes.start(transport), nodes.start(transport)]
    endpoints = [node.endpoint for node in pair]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=in_process, args=(endpoints, KEYS, members, 37))
        for members in ([0, 3], [1, 5, 8])
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(2 * TIMEOUT)
        assert process.exitcode == 0
    everything = {(m, s) for m in (0, 3, 1, 5, 8) for s in range(37)}
    for rank, node in enumerate(pair):
        mine = {(m, s) for m, s in everything if (m + s) % 2 == rank}
        assert node.stored().keys() == mine
        for member, sample in mine:
            check(node, member, sample)
        stats = node.stats()
        assert (stats.duplicates, stats.refused, stats.pending) == (0, 0, 0)
        assert stats.bytes_received == len(mine) * LAYOUT.nbytes


def test_a_receiver_that_starts_again_gets_what_was_not_acknowledged(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    first = nodes.start(TCP, capacity=10)
    sender = senders([first.endpoint], batch_bytes=3 * LAYOUT.nbytes)
    run_member(sender, 4, 25)
    wait_until(lambda: len(first.stored()) == 10)
    with pytest.raises(TimeoutError, match=r"owes .* acknowledgements"):
        sender.flush(timeout=0.5)
    address = first.endpoint.address
    first.receiver.close()
    second = nodes.start(address)
    assert second.endpoint.address == address
    sender.flush(timeout=TIMEOUT)
    assert first.stored().keys() | second.stored().keys() == {(4, s) for s in range(25)}
    for sample in range(12, 25):
        check(second, 4, sample)
    assert sender.stats.resent > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_full_reservoir_makes_the_sender_wait_and_loses_nothing(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport, capacity=20)
    sender = senders([node.endpoint], batch_bytes=2 * LAYOUT.nbytes, credit_bytes=9 * LAYOUT.nbytes)
    producer = threading.Thread(target=run_member, args=(sender, 2, 80))
    producer.start()
    wait_until(lambda: sender.stats.samples >= 26 and node.stats().pending > 0)
    time.sleep(1.3)  # longer than two pings: waiting must not cause a resend
    assert producer.is_alive()
    assert sender.stats.samples <= 20 + 9 + 2
    while producer.is_alive():
        with node.lock:
            lease = node.book.lease(2, 5)
            node.book.give_back(lease.id)
        node.receiver.wake()
        time.sleep(0.001)
    producer.join()

    def all_stored() -> bool:
        with node.lock:
            node.book.give_back(node.book.lease(2, 5).id)
        node.receiver.wake()
        return node.book.inserted == 80

    wait_until(all_stored)
    sender.flush(timeout=TIMEOUT)
    assert sender.stats.wait_seconds > 1.0
    assert sender.stats.resent == 0
    stats = node.stats()
    assert stats.duplicates == 0
    assert stats.solver_blocked_seconds > 1.0


def test_parts_of_four_mpi_ranks_are_put_together_on_two_receivers(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    pair = [nodes.start(), nodes.start("tcp://127.0.0.1")]
    boxes = [Box((y, x), (ny, nx)) for y, ny in ((0, 5), (5, 7)) for x, nx in ((0, 13), (13, 7))]
    parts = [senders([n.endpoint for n in pair], box=box) for box in boxes]
    for sender, box in zip(parts, boxes, strict=True):
        run_member(sender, 6, 23, box=box)
    for sender in parts:
        sender.flush(timeout=TIMEOUT)
    for sample in range(23):
        check(pair[(6 + sample) % 2], 6, sample)
    assert sum(node.book.inserted for node in pair) == 23


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_three_mpi_ranks_far_apart_share_a_small_reservoir_with_a_slow_trainer(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    # Few slots, credit for far more: the first ones fill all slots with parts of samples of which
    # the last one has sent none. Each message holds several samples, some with and some without
    # a slot.
    node = nodes.start(transport, capacity=12)
    boxes = [Box((0, 0), (5, 20)), Box((5, 0), (4, 20)), Box((9, 0), (3, 20))]
    parts = [
        senders([node.endpoint], box=box, batch_bytes=5 * LAYOUT.bytes_per_point * box.points)
        for box in boxes
    ]

    def run(sender: Sender, box: Box, delay: float) -> None:
        time.sleep(delay)
        run_member(sender, 2, 90, box=box)
        sender.flush(timeout=3 * TIMEOUT)

    threads = [
        threading.Thread(target=run, args=(sender, box, delay))
        for sender, box, delay in zip(parts, boxes, (0.1, 0.0, 0.4), strict=True)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: node.stats().pending > 0)
    assert node.book.inserted == 0
    deadline = time.monotonic() + 2 * TIMEOUT
    seen: set[int] = set()
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < deadline, "the mpi_ranks wait for each other"
        with node.lock:
            for slot in node.book.filled().tolist():
                step = int(node.slots.steps[slot])
                if step not in seen:
                    seen.add(step)
                    np.testing.assert_array_equal(node.slots.fields[slot], truth(2, step))
            node.book.give_back(node.book.lease(1, 4).id)
        node.receiver.wake()
        time.sleep(0.005)
    assert node.book.inserted == 90
    assert node.stats().duplicates == 0
    assert sum(sender.stats.resent for sender in parts) == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_sample_larger_than_a_message_arrives_whole(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport, capacity=4, layout=LARGE, max_frame=8 << 20)
    sender = senders([node.endpoint], layout=LARGE, batch_bytes=64 << 20)
    sender.open(member=0, attempt=1, parameters=np.ones(1), validation=False)
    for sample in range(3):
        sender.send(sample=sample, step=sample, times=np.zeros(1), fields=truth(0, sample, LARGE))
    sender.flush(timeout=TIMEOUT)
    for (member, sample), slot in node.stored().items():
        np.testing.assert_array_equal(node.slots.fields[slot], truth(member, sample, LARGE))
    assert node.book.inserted == 3


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_retried_member_is_stored_once(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport)
    first = senders([node.endpoint], batch_bytes=3 * LAYOUT.nbytes)
    run_member(first, 4, 17)
    wait_until(lambda: node.intake.samples >= 15)
    first.close()  # as if its process had died: the last two samples were never sent
    second = senders([node.endpoint])
    run_member(second, 4, 30, attempt=2)
    second.flush(timeout=TIMEOUT)
    assert node.stored().keys() == {(4, s) for s in range(30)}
    assert node.stats().duplicates >= 15
    assert node.book.inserted == 30


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_validation_member_lies_whole_in_one_store_and_the_others_need_none(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    pair = [nodes.start(transport), nodes.start(transport, validating=True)]
    sender = senders([node.endpoint for node in pair])
    run_member(sender, 4, 6)
    for member in (1, 3):
        parameters = np.array([member, 2.0, 3.0])
        sender.open(member=member, attempt=1, parameters=parameters, validation=True)
        for sample in range(5):
            sender.send(sample=sample, step=sample, times=np.zeros(2), fields=truth(member, sample))
    run_member(sender, 7, 6)
    sender.flush(timeout=TIMEOUT)
    for rank, node in enumerate(pair):
        everything = {(m, s) for m in (4, 7) for s in range(6)}
        assert node.stored().keys() == {(m, s) for m, s in everything if (m + s) % 2 == rank}
        assert node.stats().refused == 0
    kept = pair[1].kept
    assert kept is not None
    for slot, (member, sample) in enumerate((m, s) for m in (1, 3) for s in range(5)):
        assert (kept.members[slot], kept.samples[slot]) == (member, sample)
        np.testing.assert_array_equal(kept.fields[slot], truth(member, sample))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_sample_leaves_within_the_linger_time(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport)
    sender = senders([node.endpoint], linger_ms=20.0)
    run_member(sender, 1, 1)
    wait_until(lambda: node.book.inserted == 1)
    wait_until(lambda: not sender._owed())  # acknowledged without a flush


def test_a_refused_sample_is_raised_at_the_sender_and_the_next_member_goes_through(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start(TCP)
    sender = senders([node.endpoint])
    sender.open(member=1, attempt=1, parameters=np.ones(3), validation=False)
    broken = truth(1, 0)
    broken[1, 0, 3, 4] = np.nan
    sender.send(sample=0, step=0, times=np.zeros(2), fields=broken)
    with pytest.raises(StreamRefused, match=r"not finite: fields of member 1, samples .0."):
        sender.flush(timeout=TIMEOUT)
    run_member(sender, 2, 5)
    sender.flush(timeout=TIMEOUT)
    assert node.stored().keys() == {(2, s) for s in range(5)}
    assert node.stats().refused == 1


@pytest.mark.parametrize("what", ["fields", "times", "parameters"])
def test_what_is_not_finite_is_never_stored_and_the_next_member_goes_through(
    nodes: Nodes, senders: Callable[..., Sender], what: str
) -> None:
    node = nodes.start()
    sender = senders([node.endpoint])
    run_member(sender, 0, 3)
    fields, times, parameters = truth(1, 1), np.zeros(2), np.ones(3)
    {"fields": fields[1, 0, 3], "times": times, "parameters": parameters}[what][1] = np.nan

    def broken() -> None:
        sender.open(member=1, attempt=1, parameters=parameters, validation=False)
        sender.send(sample=0, step=0, times=np.zeros(2), fields=truth(1, 0))
        sender.send(sample=1, step=1, times=times, fields=fields)
        sender.flush(timeout=TIMEOUT)

    with pytest.raises(StreamRefused, match=f"not finite: {what}"):
        broken()
    sender.flush(timeout=TIMEOUT)  # which has been told
    run_member(sender, 2, 5)
    sender.flush(timeout=TIMEOUT)
    stored = node.stored().keys() - {(1, 0)}  # sent before, and right
    assert stored == {(0, s) for s in range(3)} | {(2, s) for s in range(5)}
    for member, sample in stored:
        check(node, member, sample)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_sample_of_a_wrong_shape_spoils_nothing(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport)
    sender = senders([node.endpoint])
    sender.open(member=1, attempt=1, parameters=np.ones(3), validation=False)
    with pytest.raises(ValueError, match="fields of a part must have shape"):
        sender.send(sample=0, step=0, times=np.zeros(2), fields=truth(1, 0)[:1])
    run_member(sender, 2, 5)
    sender.flush(timeout=TIMEOUT)
    assert node.stored().keys() == {(2, s) for s in range(5)}
    assert node.stats().refused == 0


def stranger(keys: StudyKeys) -> StudyKeys:
    other = StudyKeys.generate()
    return StudyKeys(
        study=keys.study,
        server_public=keys.server_public,
        server_secret=keys.server_secret,
        client_public=other.client_public,
        client_secret=other.client_secret,
    )


def test_only_who_has_the_studys_key_comes_in(nodes: Nodes, senders: Callable[..., Sender]) -> None:
    node = nodes.start("tcp://127.0.0.1")
    wrong_client = senders([node.endpoint], keys=stranger(KEYS))
    other_server = Endpoint(
        address=node.endpoint.address, server_key=StudyKeys.generate().server_public
    )
    wrong_server = senders([other_server])
    open_door = senders([Endpoint(address=node.endpoint.address)])
    for sender in (wrong_client, wrong_server, open_door):
        run_member(sender, 1, 2)
    good = senders([node.endpoint])
    run_member(good, 2, 5)
    good.flush(timeout=TIMEOUT)
    for sender in (wrong_client, wrong_server, open_door):
        with pytest.raises(TimeoutError):
            sender.flush(timeout=0.2)
    assert node.stored().keys() == {(2, s) for s in range(5)}
    wait_until(lambda: node.stats().refused >= 3)


def test_a_sender_that_met_a_stranger_finds_its_receiver_at_the_same_address_later(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    other = nodes.start("tcp://127.0.0.1", keys=StudyKeys.generate())
    ours = Endpoint(address=other.endpoint.address, server_key=KEYS.server_public)
    sender = senders([ours])
    run_member(sender, 2, 5)
    with pytest.raises(TimeoutError):
        sender.flush(timeout=1.0)
    other.receiver.close()
    node = nodes.start(ours.address)
    sender.flush(timeout=TIMEOUT)
    assert node.stored().keys() == {(2, s) for s in range(5)}
    assert not other.stored()


def test_noise_on_the_socket_is_counted_and_the_study_goes_on(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start(TCP)
    with raw_socket(node) as raw:
        raw.set(zmq.LINGER, 1000)
        raw.connect(node.endpoint.address)
        raw.send(b"")
        raw.send(os.urandom(5000))
        raw.send_multipart([b"HDRC", b"two", b"frames"])
        sender = senders([node.endpoint])
        run_member(sender, 2, 5)
        sender.flush(timeout=TIMEOUT)
        wait_until(lambda: node.stats().refused == 3)
    node.receiver.check()
    assert node.book.inserted == 5


def test_nothing_stays_behind_and_the_folder_is_private(nodes: Nodes) -> None:
    node = nodes.start()
    folder = Path(str(node.endpoint)).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    node.receiver.close()
    node.receiver.close()
    assert not folder.exists()


def test_only_sockets_that_nobody_listens_on_are_stale(
    nodes: Nodes,
    senders: Callable[..., Sender],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("pipeline.stream.sockets.SHORT", tmp_path)
    living = nodes.start()
    dead = tmp_path / "headrace-socket-0123456789ab"
    dead.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead / "s"))
    about_to_bind = tmp_path / "headrace-socket-89ab01234567"
    about_to_bind.mkdir(mode=0o700)
    assert remove_stale_sockets() == [dead.name]
    assert not dead.exists()
    assert about_to_bind.exists()
    os.utime(about_to_bind, (0.0, 0.0))
    assert remove_stale_sockets() == [about_to_bind.name]
    assert Path(str(living.endpoint)).exists()
    run_member(sender := senders([living.endpoint]), 2, 5)
    sender.flush(timeout=TIMEOUT)  # after the visitors, in the same queue
    time.sleep(0.3)  # longer than a turn of the receiver
    assert living.stats().refused == 0


@pytest.mark.parametrize("bind", ["udp://127.0.0.1", "ipc:///tmp/s"])
def test_an_address_that_would_not_be_safe_is_refused(bind: str) -> None:
    with pytest.raises(ValueError, match="need 'tcp://HOST"):
        ReceiverThread(intake=Intake.__new__(Intake), lock=Turnstile(), bind=bind, keys=KEYS)


def test_clean_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("pipeline.stream.sockets.SHORT", tmp_path)
    (tmp_path / "mine").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "mine" / "s"))
    (tmp_path / "headrace-socket-0123456789ab").symlink_to(tmp_path / "mine")
    assert remove_stale_sockets() == []
    assert (tmp_path / "mine" / "s").exists()


def test_a_connection_that_says_nothing_is_closed(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_HANDSHAKE_MS", 200)
    node = nodes.start(TCP)
    host, port = node.endpoint.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.settimeout(TIMEOUT)
        while line.recv(100):  # its half of the greeting
            pass


@contextmanager
def raw_socket(node: Node) -> Iterator["zmq.Socket[bytes]"]:
    """Of somebody who has the study's keys, and says what he likes."""
    assert node.endpoint.server_key is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.set(zmq.CURVE_SERVERKEY, node.endpoint.server_key)
        raw.set(zmq.CURVE_PUBLICKEY, KEYS.client_public)
        raw.set(zmq.CURVE_SECRETKEY, KEYS.client_secret)
        yield raw


def test_a_sender_that_knows_no_limit_is_stopped_before_it_fills_the_memory(nodes: Nodes) -> None:
    node = nodes.start(TCP)
    frame, sent = b"x" * (1 << 19), 0
    with raw_socket(node) as raw:
        raw.set(zmq.LINGER, 0)
        raw.set(zmq.SNDHWM, 4)
        raw.connect(node.endpoint.address)
        raw.send(b"the first")
        wait_until(lambda: node.stats().refused == 1)
        with node.lock:  # the receiver can take nothing more
            while raw.poll(500, zmq.POLLOUT):
                raw.send(frame)
                sent += 1
                assert sent < 100  # 50 MB
        wait_until(lambda: node.stats().refused == 1 + sent)


def test_a_frame_longer_than_any_of_the_study_costs_its_sender_the_connection(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start(TCP, max_frame=100_000)
    with raw_socket(node) as raw:
        raw.set(zmq.LINGER, 0)
        raw.set(zmq.RECONNECT_IVL, -1)
        events = raw.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        raw.connect(node.endpoint.address)
        raw.send(b"x" * 100_001)
        assert events.poll(round(1000 * TIMEOUT))
        raw.disable_monitor()
        events.close()
    sender = senders([node.endpoint], batch_bytes=20_000)
    run_member(sender, 2, 50)
    sender.flush(timeout=TIMEOUT)
    assert node.book.inserted == 50
    assert node.stats().refused == 0


def test_a_sender_gives_up_when_nothing_is_stored_for_long(
    senders: Callable[..., Sender], tmp_path: Path
) -> None:
    nowhere = Endpoint(address=f"ipc://{tmp_path}/s")  # libzmq waits for it
    sender = senders([nowhere], batch_bytes=1, credit_bytes=3 * 4096, stall_seconds=0.3)
    with pytest.raises(TimeoutError, match=r"nothing was stored for 0\.3 s"):
        run_member(sender, 0, 9)
    assert sender.stats.wait_seconds >= 0.3


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_sender_waits_while_a_receiver_says_that_it_has_no_room(
    nodes: Nodes, senders: Callable[..., Sender], transport: str
) -> None:
    node = nodes.start(transport, capacity=8)
    sender = senders([node.endpoint], stall_seconds=1.5)  # it asks every half second
    run_member(sender, 0, 9)
    with pytest.raises(TimeoutError, match="not stored after 4 s"):
        sender.flush(timeout=4.0)
    assert node.stats().waiting_members == (0,)


def test_a_sender_that_could_never_send_is_refused(senders: Callable[..., Sender]) -> None:
    here = Endpoint(address="ipc:///nowhere/s")
    with pytest.raises(ValueError, match="at least one endpoint"):
        senders([])
    with pytest.raises(ValueError, match="less than one message"):
        senders([here], credit_bytes=LAYOUT.nbytes, batch_bytes=10 * LAYOUT.nbytes)
    sender = senders([here])
    with pytest.raises(ValueError, match="send before open"):
        sender.send(sample=0, step=0, times=np.zeros(2), fields=truth(0, 0))
    with pytest.raises(ValueError, match=r"parameters must have shape \(3,\)"):
        sender.open(member=0, attempt=1, parameters=np.ones(2), validation=False)


def test_who_waits_at_the_turnstile_gets_in_before_its_holder_does_again() -> None:
    lock, stop, turns = Turnstile(), threading.Event(), 0

    def busy() -> None:
        nonlocal turns
        while not stop.is_set():
            with lock:
                turns += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        waits = []
        for _ in range(50):
            began = time.monotonic()
            with lock:
                waits.append(time.monotonic() - began)
        assert sorted(waits)[25] < 0.05
    finally:
        stop.set()
        thread.join()
    assert turns > 0
