"""The receiving side of a benchmark: slots in shared memory, their bookkeeping, the receiver.

1. The memory of the slots is there before the first sample comes.
2. The receiver has stopped before its slots are removed.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.actors.parts import Announced
from pipeline.flow import FlowControl
from pipeline.record.choice import Recorder
from pipeline.record.writer import Record
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots, slots_path
from pipeline.stream.direct import DirectReceiver
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.grants import Grants
from pipeline.stream.intake import Intake, IntakeStats
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import ReceiverThread, Turnstile

_BATCH: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """What a stream goes into, and where senders find it."""

    slots: Slots
    book: Reservoir
    lock: Turnstile
    placing: Placing
    intake: Intake
    receivers: Sequence[ReceiverThread | DirectReceiver]
    endpoint: Endpoint
    keys: StudyKeys
    grants: Grants

    def check(self) -> None:
        """Raise what ended a receiver, if anything did."""
        for receiver in self.receivers:
            receiver.check()

    def wake(self) -> None:
        """Slots may be free."""
        for receiver in self.receivers:
            receiver.wake()

    def stats(self) -> IntakeStats:
        """What came in, whichever way."""
        now = time.monotonic()
        return self.intake.stats(now) + self.grants.stats(now)


@contextmanager
def store(
    layout: SampleLayout, book: Reservoir, *, bind: str = "direct", record: Record | None = None
) -> Iterator[Store]:
    """A receiver that fills as many slots as ``book`` has, and records what it stores if told."""
    keys, lock = StudyKeys.generate(), Turnstile()
    path, capacity = slots_path(f"bench{keys.study:x}", 0, "train"), book.stats().capacity
    with Slots.create(path, capacity=capacity, layout=layout) as slots:
        slots.populate()
        placing = Placing(slots=slots, book=Announced(book, lock), layout=layout)
        if record is not None:
            recorder = Recorder(
                book=book,
                slots=slots,
                record=record,
                seed=3,
                what="inserted",
                every=1,
                fraction=1.0,
            )
            placing = Placing(slots=slots, book=recorder, layout=layout)
        intake = Intake(layout=layout, study=keys.study, training=placing)
        ahead = capacity // 8
        grants = Grants(layout=layout, study=keys.study, training=placing, ahead=ahead)
        receiver: ReceiverThread | DirectReceiver
        if bind == "direct":
            receiver = DirectReceiver(
                grants=grants, lock=lock, refuse=intake.refuse, training=slots.description
            )
        else:
            receiver = ReceiverThread(intake=intake, lock=lock, bind=bind, keys=keys)
        with closing(receiver):
            started = receiver.start()
            endpoint = started if isinstance(started, Endpoint) else Endpoint(direct=started)
            yield Store(
                slots=slots, book=book, lock=lock, placing=placing, intake=intake,
                receivers=[receiver], endpoint=endpoint, keys=keys, grants=grants,
            )  # fmt: skip


def fifo(capacity: int) -> Reservoir:
    """The bookkeeping of a reservoir that draws each sample once."""
    flow = FlowControl(max_reuse=None, max_surplus=None, watermark=_BATCH)
    return Reservoir(policy="fifo", capacity=capacity, flow=flow, rng=np.random.default_rng(3))


def drawing(stored: Store) -> AbstractContextManager[None]:
    """Lease all there is and give it back, so that slots become free: the rank's bookkeeping."""

    def turn() -> None:
        with stored.lock:
            stored.book.give_back(stored.book.lease(64, _BATCH).id)

    return turning(turn, stored.wake)


@contextmanager
def turning(turn: Callable[[], None], wake: Callable[[], None]) -> Iterator[None]:
    """Take turns in a thread; receivers are told after each that slots may be free."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.002):
            turn()
            wake()

    thread = threading.Thread(target=run, name="drawing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
