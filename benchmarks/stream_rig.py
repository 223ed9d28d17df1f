"""A real stream to measure: sender processes, receiver thread, reservoir, shared-memory slots.

1. Everything between ``Sender.send`` and the committed slot takes part: batching, credit,
   acknowledgement, deduplication, the reservoir's bookkeeping, leases that free slots again.
2. Every sample handed over is stored exactly once, or the measurement raises.
3. The clock runs from the moment all senders may start until the last sample is stored.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final, Literal

import numpy as np

from pipeline.flow import FlowControl
from pipeline.intake import Intake
from pipeline.layout import Box
from pipeline.link import BlockPool
from pipeline.placing import Placing
from pipeline.receiver import ReceiverThread, Turnstile
from pipeline.record_layout import RecordLayout
from pipeline.record_writer import Record
from pipeline.recorder import Recorder
from pipeline.reservoir import Reservoir
from pipeline.sections import RecordConfig
from pipeline.sender import BATCH_BYTES, CREDIT_BYTES, Sender
from pipeline.slots import Slots, slots_path
from pipeline.wire import Endpoint, SampleLayout, StudyKeys
from solvers.base import FieldSpec, Parameter

Transport = Literal["ipc", "curve"]

SLOT_BYTES: Final = 256 << 20  # several times the last-level cache
SAMPLES_PER_MEMBER: Final = 100
_BATCH: Final = 32
_LAG: Final = 3  # members
_TIMEOUT_SECONDS: Final = 120.0


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
    credit_bytes: int = CREDIT_BYTES
    batch_bytes: int = BATCH_BYTES
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
    layout, keys = load.layout, StudyKeys.generate()
    with ExitStack() as stack:
        slots = stack.enter_context(
            Slots.create(
                slots_path(f"bench{keys.study:x}", 0, "train"),
                capacity=SLOT_BYTES // layout.nbytes,
                layout=layout,
            )
        )
        slots.populate()
        lock, book = Turnstile(), fifo(slots.capacity)
        placing = Placing(slots=slots, book=book, layout=layout)
        if record is not None:
            recorder = Recorder(
                book=book, slots=slots, record=record, settings=RecordConfig(), seed=3
            )
            placing = Placing(slots=slots, book=recorder, layout=layout, describe=recorder.describe)
        receiver = ReceiverThread(
            intake=(intake := Intake(layout=layout, study=keys.study, training=placing)),
            lock=lock,
            bind="ipc" if transport == "ipc" else "tcp://127.0.0.1",
            keys=keys,
        )
        stack.callback(receiver.close)
        endpoint = receiver.start()
        stack.enter_context(drawing(book, lock, receiver))
        barrier = stack.enter_context(_senders(load, endpoint, keys))
        barrier.wait(_TIMEOUT_SECONDS)
        warm = load.senders // load.mpi_ranks * SAMPLES_PER_MEMBER
        started = time.perf_counter()
        while placing.samples < warm + load.samples:
            receiver.check()
            time.sleep(0.002)
            if time.perf_counter() - started > _TIMEOUT_SECONDS:
                raise TimeoutError(f"{intake.stats(time.monotonic())} after {_TIMEOUT_SECONDS} s")
        seconds = time.perf_counter() - started
        stats = intake.stats(time.monotonic())
    if (stats.samples, stats.duplicates, stats.refused) != (warm + load.samples, 0, 0):
        raise RuntimeError(f"the stream is not exact: {stats}, expected {warm + load.samples}")
    return load.samples / seconds


def fifo(capacity: int) -> Reservoir:
    """The bookkeeping of a reservoir that draws each sample once."""
    flow = FlowControl(max_reuse=None, max_surplus=None, watermark=_BATCH)
    return Reservoir(policy="fifo", capacity=capacity, flow=flow, rng=np.random.default_rng(3))


@contextmanager
def drawing(book: Reservoir, lock: Turnstile, receiver: ReceiverThread) -> Iterator[None]:
    """Lease all there is and give it back, so that slots become free: the rank's bookkeeping."""
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(0.002):
            with lock:
                book.give_back(book.lease(64, _BATCH).id)
            receiver.wake()

    thread = threading.Thread(target=draw, name="drawing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _senders(load: Load, endpoint: Endpoint, keys: StudyKeys) -> Iterator[Barrier]:
    """Processes that stand ready to send when this one has passed the barrier too."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(load.processes + 1)
    processes = [
        context.Process(target=_send, args=(load, rank, endpoint, keys, barrier), daemon=True)
        for rank in range(load.processes)
    ]
    for process in processes:
        process.start()
    try:
        yield barrier
        for process in processes:
            process.join(_TIMEOUT_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _send(load: Load, rank: int, endpoint: Endpoint, keys: StudyKeys, barrier: Barrier) -> None:
    layout, pool, box = load.layout, BlockPool(), load.box(rank)
    senders = [
        Sender(
            [endpoint], layout=layout, keys=keys,
            credit_bytes=load.credit_bytes, batch_bytes=load.batch_bytes, pool=pool, box=box,
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
