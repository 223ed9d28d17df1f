"""A rank in a process of its own, as in a study, that leases over a pipe instead of Ray.

1. It maps the slots of a store; its leases come from the host of a reservoir in this process.
2. A rank that raises, or is not done in time, is an error here.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, TypeVar, final

from benchmarks.processes import CONTEXT, running
from benchmarks.store_rig import Store
from pipeline.actors.parts import Parts
from pipeline.actors.reservoir_host import ReservoirHost
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.batches import HeldState
from pipeline.slots.memory import SlotsDescription
from trainers.base import Lease
from trainers.results import TrainStats

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
    deadline, host = time.monotonic() + within, _host(store)
    ours, theirs = CONTEXT.Pipe()
    with running(_rank, measure, theirs, store.slots.description):
        theirs.close()  # so that a rank that raises is the end of the pipe, and EOFError
        while True:
            if not ours.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"not done after {within} s: {store.book.stats()}")
            store.check()
            question, details = ours.recv()
            if question == "done":
                result: T = details
                return result
            ours.send(getattr(host, question)(*details))


def _rank(
    measure: Callable[[Connection, SlotsDescription], object],
    pipe: Connection,
    slots: SlotsDescription,
) -> None:
    pipe.send(("done", measure(pipe, slots)))


def _host(store: Store) -> ReservoirHost:
    host = ReservoirHost(
        Parts(
            rank=0,
            lock=store.lock,
            training=store.slots,
            book=store.book,
            intake=store.intake,
            grants=store.grants,
            receivers=store.receivers,
            endpoint=store.endpoint,
            appended=Appended(capacity=0),
        )
    )
    host.begin_training()
    host.end_validation()
    return host


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
        return int(self._ask("stats")[0].inserted)

    def wait_for_watermark(self, timeout: float) -> bool:
        """Ask the other end."""
        return bool(self._ask("wait_for_watermark", timeout))

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        """Ask the other end; the stream is over when the time is."""
        over = bool(self.seen) and time.perf_counter() - self.seen[0][0] > self._seconds
        lease: Lease = self._ask("lease", returned, 0 if over else batches, batch, timeout)
        return replace(lease, finished=over)

    def replay(self, batches: int, batch: int) -> Lease:
        """A single rank never asks for it."""
        raise NotImplementedError

    def held(self) -> HeldState:
        """All slots, and no validation."""
        held: HeldState = self._ask("held")
        return held

    def report(self, stats: TrainStats) -> None:
        """Note the time."""
        self.seen.append((time.perf_counter(), stats))

    def _ask(self, question: str, *details: object) -> Any:  # noqa: ANN401 - as pipes are
        self._pipe.send((question, details))
        return self._pipe.recv()
