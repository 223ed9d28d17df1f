"""A real stream to measure: sender processes, receiver thread, reservoir, shared-memory slots.

1. Everything between ``Sender.send`` and the committed slot takes part: batching, credit,
   acknowledgement, deduplication, the reservoir's bookkeeping, leases that free slots again.
2. Every sample handed over is stored exactly once, or the measurement raises.
3. The clock runs from the moment all senders may start until the last sample is stored.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from benchmarks.processes import CONTEXT, running
from benchmarks.store_rig import drawing, fifo, store
from pipeline.record.layout import RecordLayout
from pipeline.record.writer import Record
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.link import BlockPool
from pipeline.stream.sender import Sender
from pipeline.study.sections import StreamConfig
from solvers.base import FieldSpec, Parameter

Transport = Literal["direct", "curve"]

SLOT_BYTES: Final = 256 << 20  # several times the last-level cache
SAMPLES_PER_MEMBER: Final = 100
_LAG: Final = 3  # members
_TIMEOUT_SECONDS: Final = 120.0


_STREAM: Final = StreamConfig()
SENDING: Final[dict[str, Any]] = {  # how a study sends that says nothing of it
    name: getattr(_STREAM, name) for name in ("credit_bytes", "batch_bytes", "linger_ms")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is streamed.

    Attributes:
        grid: Of the single-channel float32 snapshots.
        samples: All senders together; a multiple of senders times ``SAMPLES_PER_MEMBER``.
        senders: Connections.
        processes: Among which the senders are spread; each runs their members in turn.
        credit_bytes: Of each sender.
        batch_bytes: Of each sender.
        mpi_ranks: Senders of one member, each with its box of every sample: 1, or ``senders``.
    """

    grid: tuple[int, int]
    samples: int
    senders: int = 2
    processes: int = 2
    credit_bytes: int = SENDING["credit_bytes"]
    batch_bytes: int = SENDING["batch_bytes"]
    mpi_ranks: int = 1

    def box(self, rank: int) -> Box | None:
        """What one of the mpi_ranks has of the grid: rows, as evenly as a DMDA shares them."""
        if self.mpi_ranks == 1:
            return None
        rows, columns = self.grid
        share, more = divmod(rows, self.mpi_ranks)
        first = rank * share + min(rank, more)
        return Box((first, 0), (share + (rank < more), columns))

    @property
    def layout(self) -> SampleLayout:
        """One snapshot of one channel; five parameters, as the heat equation has."""
        return SampleLayout(window=1, sample_shape=(1, *self.grid), num_parameters=5)


@contextmanager
def recording(path: Path, load: Load) -> Iterator[Record]:
    """A record at ``path`` for the samples of a load."""
    layout = RecordLayout(
        sample=load.layout,
        spec=FieldSpec(
            names=("u",), units=("1",), shape=load.grid, spacing=tuple(1.0 for _ in load.grid)
        ),
        parameters=tuple(
            Parameter(name=f"p{number}", unit="1", low=0.0, high=1.0, description="any")
            for number in range(load.layout.num_parameters)
        ),
    )
    about = {"rank": 0, "ranks": 1, "study": "bench"}
    record = Record(path / "rank0", layout=layout, attributes=about, compression="none")
    try:
        yield record
    finally:
        record.close()


def measure(load: Load, transport: Transport, record: Record | None = None) -> float:
    """Samples stored per second, and recorded if that is asked for."""
    bind = "tcp://127.0.0.1" if transport == "curve" else transport
    book = fifo(SLOT_BYTES // load.layout.nbytes)
    barrier = CONTEXT.Barrier(load.processes + 1)
    with ExitStack() as stack:
        stored = stack.enter_context(store(load.layout, book, bind=bind, record=record))
        stack.enter_context(drawing(stored))
        for rank in range(load.processes):
            sending = running(_send, load, rank, stored.endpoint, stored.keys, barrier)
            stack.enter_context(sending)
        barrier.wait(_TIMEOUT_SECONDS)
        warm = load.senders // load.mpi_ranks * SAMPLES_PER_MEMBER
        started = time.perf_counter()
        while stored.placing.samples < warm + load.samples:
            stored.check()
            time.sleep(0.002)
            if time.perf_counter() - started > _TIMEOUT_SECONDS:
                stats = stored.stats()
                raise TimeoutError(f"{stats} after {_TIMEOUT_SECONDS} s")
        seconds = time.perf_counter() - started
        stats = stored.stats()
    if (stored.intake.samples, stats.duplicates, stats.refused) != (warm + load.samples, 0, 0):
        raise RuntimeError(f"the stream is not exact: {stats}, expected {warm + load.samples}")
    return load.samples / seconds


def _send(load: Load, rank: int, endpoint: Endpoint, keys: StudyKeys, barrier: Barrier) -> None:
    layout, pool, box = load.layout, BlockPool(), load.box(rank)
    senders = [
        Sender(
            [endpoint], layout=layout, keys=keys,
            credit_bytes=load.credit_bytes, batch_bytes=load.batch_bytes,
            linger_ms=SENDING["linger_ms"], pool=pool, box=box,
        )
        for _ in range(rank, load.senders, load.processes)
    ]  # fmt: skip
    rng = np.random.default_rng(rank)
    # A solver's own arrays: a few that take turns, warm in its cache.
    shape = layout.grid if box is None else box.size
    fields = rng.random((4, layout.window, layout.channels, *shape), np.float32)
    # The mpi_ranks of a member have its number and its parameters in common.
    among = load.processes // load.mpi_ranks
    place = rank // load.mpi_ranks
    parameters, times = np.full(5, 0.5), np.zeros(1)

    def run_member(sender: Sender, member: int) -> None:
        sender.open(member=member, attempt=1, parameters=parameters, validation=False)
        for sample in range(SAMPLES_PER_MEMBER):
            times[0] = 0.01 * sample
            sender.send(sample=sample, step=sample, times=times, fields=fields[sample % 4])

    for number, sender in enumerate(senders):  # all are connected and warm before the clock starts
        run_member(sender, 10**6 + number * among + place)
    for sender in senders:
        sender.flush(timeout=_TIMEOUT_SECONDS)
    barrier.wait(_TIMEOUT_SECONDS)
    for number in range(load.samples // SAMPLES_PER_MEMBER // among):
        run_member(senders[number % len(senders)], number * among + place)
        if len(senders) > 1:
            # Each would be a process that ends its member with a flush, beside the others; here it
            # gets the time of the next few members for that, so that nobody stands still.
            senders[(number - _LAG) % len(senders)].flush(timeout=_TIMEOUT_SECONDS)
    for sender in senders:
        sender.flush(timeout=_TIMEOUT_SECONDS)
        sender.close()
