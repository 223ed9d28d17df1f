"""A rank in a process of its own, as in a study, that leases over a pipe instead of Ray.

1. It maps the slots of a store; its leases come from this process, where the receiver fills them.
2. A rank that raises, or is not done in time, is an error here.
"""

import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, final

from benchmarks.processes import CONTEXT, running
from benchmarks.store_rig import Store
from pipeline.reservoir.batches import HeldState, Returned
from pipeline.slots.memory import SlotsDescription
from trainers.base import Lease, TrainStats

T = TypeVar("T")


def on_rank(
    measure: Callable[[Connection, SlotsDescription], T], store: Store, *, within: float
) -> T:
    """What ``measure`` returns, called by a rank that leases from ``store``.

    Args:
        measure: A function of a module; given what a ``PipeClient`` needs, and the slots.
        store: Its slots and its bookkeeping.
        within: Seconds.
    """
    deadline = time.monotonic() + within
    ours, theirs = CONTEXT.Pipe()
    with running(_rank, measure, theirs, store.slots.description):
        theirs.close()  # so that a rank that raises is the end of the pipe, and EOFError
        while True:
            if not ours.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"not done after {within} s: {store.book.stats()}")
            store.receiver.check()
            question, details = ours.recv()
            if question == "done":
                result: T = details
                return result
            answer = _answer(store, question, details)
            store.receiver.wake()
            ours.send(answer)


def _rank(
    measure: Callable[[Connection, SlotsDescription], object],
    pipe: Connection,
    slots: SlotsDescription,
) -> None:
    pipe.send(("done", measure(pipe, slots)))


def _answer(store: Store, question: str, details: Any) -> Any:  # noqa: ANN401 - as pipes are
    with store.lock:
        if question == "ready":
            return store.book.ready
        if question == "held":
            return store.book.filled()
        if question == "inserted":
            return store.book.inserted
        returned, batches, batch = details
        for lease_id in returned:
            store.book.give_back(lease_id)
        return store.book.lease(batches, batch)


@final
class PipeClient:
    """The rank's end of the pipe.

    Attributes:
        seen: Time and content of each report of a training.
    """

    def __init__(self, pipe: Connection, seconds: float = math.inf) -> None:
        """Hand out batches until so many seconds after the first report."""
        self._pipe, self._seconds = pipe, seconds
        self.seen: list[tuple[float, TrainStats]] = []

    def inserted(self) -> int:
        """Samples that were stored so far."""
        return int(self._ask("inserted"))

    def wait_for_watermark(self, timeout: float) -> bool:
        """Ask the other end, a little later."""
        time.sleep(0.01)
        return bool(self._ask("ready"))

    def lease(self, returned: Returned, batches: int, batch: int, timeout: float) -> Lease:
        """Ask the other end; the stream is over when the time is."""
        over = bool(self.seen) and time.perf_counter() - self.seen[0][0] > self._seconds
        asked = 0 if over else batches
        lease: Lease = self._ask("lease", ([lease_id for lease_id, _ in returned], asked, batch))
        if lease.indices.size == 0 and not over:
            time.sleep(min(timeout, 0.002))
        return Lease(id=lease.id, indices=lease.indices, finished=over)

    def replay(self, batches: int, batch: int) -> Lease:
        """A single rank never asks for it."""
        raise NotImplementedError

    def held(self) -> HeldState:
        """All slots, and no validation."""
        return HeldState(slots=self._ask("held"), validation=0, validation_complete=True)

    def report(self, stats: TrainStats) -> None:
        """Note the time."""
        self.seen.append((time.perf_counter(), stats))

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Nothing is kept here."""
        raise NotImplementedError

    def checkpoint_done(self) -> bool:
        """Nothing is kept here."""
        raise NotImplementedError

    def _ask(self, question: str, details: object = None) -> Any:  # noqa: ANN401 - as pipes are
        self._pipe.send((question, details))
        return self._pipe.recv()
