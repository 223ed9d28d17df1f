"""Senders that write into the slots themselves are stopped, killed and left alone, in earnest."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.store_rig import turning
from benchmarks.stream_rig import SENDING
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sender import Sender
from tests.integration.test_stream import (
    KEYS,
    LAYOUT,
    TIMEOUT,
    Node,
    Nodes,
    check,
    nodes,
    run_member,
    senders,
    truth,
    wait_until,
)

__all__ = ["nodes", "senders"]  # fixtures

MEMBER, SAMPLES = 3, 60
CONTEXT = multiprocessing.get_context("spawn")


def slowly(
    endpoint: Endpoint, keys: StudyKeys, linger_ms: float, first: int, told: Connection
) -> None:
    """Hand over some samples, say so, and go on when told."""
    settings = SENDING | {"linger_ms": linger_ms}
    sender = Sender([endpoint], layout=LAYOUT, keys=keys, **settings)
    parameters = np.array([MEMBER, 2.0, 3.0])
    sender.open(member=MEMBER, attempt=1, parameters=parameters, validation=False)
    for sample in range(SAMPLES):
        if sample == first:
            told.send("some")
            told.recv()
        times = np.array([sample, sample + 0.5])
        sender.send(sample=sample, step=sample, times=times, fields=truth(MEMBER, sample))
    sender.flush(timeout=TIMEOUT)
    told.send("all")
    sender.close()


@contextmanager
def sending(
    endpoint: Endpoint, *, linger_ms: float, first: int
) -> Iterator[tuple[BaseProcess, Connection]]:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=slowly, args=(endpoint, KEYS, linger_ms, first, theirs))
    process.start()
    try:
        assert ours.poll(TIMEOUT)
        assert ours.recv() == "some"
        yield process, ours
    finally:
        process.kill()
        process.join(TIMEOUT)


def granted(node: Node) -> int:
    with node.lock:
        return node.grants._out


def trainer(node: Node) -> AbstractContextManager[None]:
    """Draws, so that slots can be used again."""

    def draw() -> None:
        with node.lock:
            node.book.give_back(node.book.lease(4, 4).id)

    return turning(draw, node.receiver.wake)


def test_a_stopped_sender_that_wakes_up_spoils_no_slot(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start(capacity=512)
    with sending(node.endpoint, linger_ms=10_000.0, first=7) as (process, pipe):
        wait_until(lambda: granted(node) > 7)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        held = granted(node)
        retry = senders([node.endpoint])
        run_member(retry, MEMBER, SAMPLES, attempt=2)
        retry.flush(timeout=TIMEOUT)
        with trainer(node):  # into every slot that is free, and then over what was drawn
            for member in range(10, 16):
                run_member(retry, member, 120)
            retry.flush(timeout=TIMEOUT)
        time.sleep(0.2)
        assert granted(node) >= held  # for time ends no grant
        os.kill(process.pid, signal.SIGCONT)
        pipe.send("go on")
        assert pipe.poll(TIMEOUT)
        assert pipe.recv() == "all"
        process.join(TIMEOUT)
    wait_until(lambda: granted(node) == 0)
    stored = node.stored()
    assert len(stored) > 400
    for member, sample in stored:
        check(node, member, sample)
    assert node.intake.samples == SAMPLES + 6 * 120
    assert node.stats().duplicates >= 7


def test_what_a_killed_sender_has_written_and_not_committed_is_free_again(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start(capacity=256)
    with sending(node.endpoint, linger_ms=10_000.0, first=2) as (process, _):
        wait_until(lambda: granted(node) > 0)
        assert node.intake.samples < 2  # the other one is written, and no more
        process.kill()
        process.join(TIMEOUT)
        wait_until(lambda: granted(node) == 0)
    retry = senders([node.endpoint])
    run_member(retry, MEMBER, SAMPLES, attempt=2)
    retry.flush(timeout=TIMEOUT)
    assert node.stored().keys() == {(MEMBER, sample) for sample in range(SAMPLES)}
    for sample in range(SAMPLES):
        check(node, MEMBER, sample)
    wait_until(lambda: granted(node) == 0)
    with node.lock:
        assert node.book.reserve(256).size == 256 - SAMPLES  # none was lost


def test_what_a_killed_sender_has_committed_is_stored(nodes: Nodes) -> None:
    node = nodes.start()
    with sending(node.endpoint, linger_ms=10_000.0, first=3) as (process, pipe):
        wait_until(lambda: granted(node) > 16)
        before = node.intake.samples
        with node.lock:  # nobody listens to the sender any more
            pipe.send("go on")
            time.sleep(0.3)
            process.kill()
            process.join(TIMEOUT)
        wait_until(lambda: granted(node) == 0)
    assert node.intake.samples >= before + 16
    for member, sample in node.stored():
        check(node, member, sample)


def serving(folder: Path, told: Connection) -> None:
    started = Nodes(folder)
    with started.stack:
        told.send((started.start().endpoint, KEYS))
        told.recv()


def test_a_sender_outlives_its_reservoir_and_says_so(
    tmp_path: Path, senders: Callable[..., Sender]
) -> None:
    ours, theirs = CONTEXT.Pipe()
    reservoir = CONTEXT.Process(target=serving, args=(tmp_path, theirs))
    reservoir.start()
    try:
        assert ours.poll(TIMEOUT)
        endpoint, keys = ours.recv()
        sender = senders([endpoint], keys=keys, stall_seconds=0.5, linger_ms=10_000.0)
        run_member(sender, 1, 5)
        reservoir.kill()
        reservoir.join(TIMEOUT)
        with pytest.raises(TimeoutError, match=r"which has gone: .* samples are not stored"):
            run_member(sender, 2, 500)
        began = time.monotonic()
        sender.close()
        assert time.monotonic() - began < 1.0
    finally:
        reservoir.kill()
        reservoir.join(TIMEOUT)


def test_a_sender_of_another_study_does_not_come_in(
    nodes: Nodes, senders: Callable[..., Sender]
) -> None:
    node = nodes.start()
    with pytest.raises(ConnectionError, match="wrong study"):
        senders([node.endpoint], keys=replace(KEYS, study=KEYS.study + 1))
    assert node.stats().refused == 1
    run_member(sender := senders([node.endpoint]), 1, 3)
    sender.flush(timeout=TIMEOUT)
    assert node.book.inserted == 3


def test_where_the_direct_way_is_closed_messages_go(
    nodes: Nodes, senders: Callable[..., Sender], tmp_path: Path
) -> None:
    node, other = nodes.start("tcp://127.0.0.1"), nodes.start()
    assert other.endpoint.direct is not None
    gone = replace(other.endpoint.direct, path=str(tmp_path / "s"))
    strange = replace(
        other.endpoint.direct, training=replace(other.endpoint.direct.training, capacity=7)
    )
    for member, direct in enumerate((gone, strange)):
        sender = senders([replace(node.endpoint, direct=direct)])
        run_member(sender, member, 3)
        sender.flush(timeout=TIMEOUT)
    assert node.book.inserted == 6
    assert other.book.inserted == 0
    elsewhere = replace(node.endpoint, direct=replace(other.endpoint.direct, node="a"))
    assert elsewhere.seen_from("a") == elsewhere
    assert elsewhere.seen_from("b") == node.endpoint
