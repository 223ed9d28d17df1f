"""Batches of 32 samples of 256 KB gathered out of the slots while two senders insert.

The rank is a process of its own, as in a study: it maps the slots read-only, leases through a
``ReservoirSource`` and gathers with one ``index_select`` per batch into a buffer that stays. Its
leases come from this process, where the receiver fills the slots, over a pipe instead of Ray.

1. The clock runs over leasing, gathering and giving back, while the senders never pause.
2. The reservoir is full and larger than any cache: what is drawn is read from memory.
3. Every gathered sample is one that was sent, or the measurement raises.
"""

import multiprocessing
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, final

import numpy as np

from benchmarks.figures import Figure
from pipeline.batches import HeldState, ReservoirSource, Returned
from pipeline.flow import FlowControl
from pipeline.intake import Intake
from pipeline.layout import Endpoint, SampleLayout, StudyKeys
from pipeline.placing import Placing
from pipeline.receiver import ReceiverThread, Turnstile
from pipeline.reservoir import Reservoir
from pipeline.sender import Sender
from pipeline.slots import Slots, SlotsDescription, slots_path
from trainers.base import Lease, TrainStats

_LAYOUT: Final = SampleLayout(window=1, sample_shape=(1, 256, 256), num_parameters=5)
_CAPACITY: Final = 3000  # 786 MB
_SENDERS: Final = 2
_BATCH: Final = 32
_LEASE_BATCHES: Final = 8
_SECONDS: Final = 4.0
_TIMEOUT_SECONDS: Final = 60.0
_BAR: Final = 4.0  # GB/s


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    """What a rank measured."""

    gigabytes_per_second: float
    batches: int


def run() -> list[Figure]:
    """Gathered and, at the same time, inserted field bytes per second."""
    with ExitStack() as stack:
        path = slots_path(f"bench-draw-{time.time_ns():x}", 0, "train")
        slots = stack.enter_context(Slots.create(path, capacity=_CAPACITY, layout=_LAYOUT))
        slots.populate()
        lock, keys = Turnstile(), StudyKeys.generate()
        book = Reservoir(
            policy="reservoir",
            capacity=_CAPACITY,
            flow=FlowControl(max_reuse=None, max_surplus=None, watermark=_CAPACITY),
            rng=np.random.default_rng(6),
        )
        placing = Placing(slots=slots, book=book, layout=_LAYOUT)
        receiver = ReceiverThread(
            intake=Intake(layout=_LAYOUT, study=keys.study, training=placing), lock=lock, keys=keys
        )
        stack.callback(receiver.close)
        endpoint = receiver.start()
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        ours, theirs = context.Pipe()
        processes = [
            context.Process(target=_send, args=(endpoint, keys, rank, stop), daemon=True)
            for rank in range(_SENDERS)
        ]
        processes.append(context.Process(target=_draw, args=(theirs, slots.description)))
        for process in processes:
            process.start()
            stack.callback(_end, process)
        drawn, inserted = _serve(ours, book, lock, receiver)
        stop.set()
    meanwhile = inserted * _LAYOUT.nbytes / 1e9 / _SECONDS
    return [
        Figure.at_least("draw_256k", drawn.gigabytes_per_second, _BAR, "GB/s"),
        Figure.at_least("draw_256k.inserted_meanwhile", meanwhile, 0.5, "GB/s"),
    ]


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.join(5.0)
    process.kill()
    process.join()


def _serve(
    pipe: Connection, book: Reservoir, lock: Turnstile, receiver: ReceiverThread
) -> tuple[_Drawn, int]:
    """Answer the rank until it is done; what it measured, and samples inserted meanwhile."""
    before, deadline = 0, time.monotonic() + _TIMEOUT_SECONDS
    while True:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"not done after {_TIMEOUT_SECONDS} s: {book.stats()}")
        receiver.check()
        asked = pipe.recv()
        if isinstance(asked, _Drawn):
            return asked, book.inserted - before
        if asked == "start":
            before = book.inserted
            continue
        returned, batches, batch, timeout = asked
        with lock:
            for lease_id in returned:
                book.give_back(lease_id)
            lease = book.lease(batches, batch)
        receiver.wake()
        if lease.indices.size == 0:
            time.sleep(timeout)
        pipe.send(lease)


@final
class _PipeClient:
    """The rank's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def wait_for_watermark(self, timeout: float) -> bool:
        raise NotImplementedError

    def lease(self, returned: Returned, batches: int, batch: int, timeout: float) -> Lease:
        """Ask the other end."""
        self._pipe.send(([lease_id for lease_id, _ in returned], batches, batch, timeout))
        lease: Lease = self._pipe.recv()
        return lease

    def replay(self, batches: int, batch: int) -> Lease:
        raise NotImplementedError

    def held(self) -> HeldState:
        raise NotImplementedError

    def report(self, stats: TrainStats) -> None:
        raise NotImplementedError

    def begin_checkpoint(self, folder: Path, train_step: int) -> None:
        raise NotImplementedError

    def checkpoint_done(self) -> bool:
        raise NotImplementedError


def _draw(pipe: Connection, description: SlotsDescription) -> None:
    """The rank: gathers for ``_SECONDS`` and says how fast."""
    import torch

    from trainers.staging import tensor_over

    torch.set_num_threads(1)  # as Ray sets OMP_NUM_THREADS for a worker with one CPU
    source = ReservoirSource(
        client=_PipeClient(pipe),
        training=Slots.attach(description),
        validation=None,
        batch=_BATCH,
    )
    slots = tensor_over(source.fields)
    batch = torch.empty((_BATCH, *slots.shape[1:]))

    def gather(lease: Lease) -> int:
        for rows in lease.indices:
            torch.index_select(slots, 0, torch.from_numpy(rows), out=batch)
            _check(batch.numpy(), source.inputs[rows])
        source.give_back(lease.id, [])
        return len(lease.indices)

    while not gather(source.lease(_LEASE_BATCHES, timeout=1.0)):
        pass  # until the reservoir is full
    for _ in range(_CAPACITY // _BATCH // _LEASE_BATCHES):  # touch the mapping once
        gather(source.lease(_LEASE_BATCHES, timeout=1.0))
    pipe.send("start")
    batches, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < _SECONDS:
        batches += gather(source.lease(_LEASE_BATCHES, timeout=1.0))
    rate = batches * _BATCH * _LAYOUT.nbytes / 1e9 / seconds
    pipe.send(_Drawn(gigabytes_per_second=rate, batches=batches))


def _check(fields: np.ndarray, inputs: np.ndarray) -> None:
    """First and last value of a sample are the time it was sent with: it is whole."""
    time_sent = inputs[:, -1]
    if not (
        (fields[:, 0, 0, 0, 0] == time_sent).all() and (fields[:, 0, 0, -1, -1] == time_sent).all()
    ):
        raise RuntimeError("a leased slot was overwritten, or holds what nobody sent")


def _send(endpoint: Endpoint, keys: StudyKeys, rank: int, stop: Event) -> None:
    """One member after another, as fast as the reservoir takes them."""
    sender = Sender([endpoint], layout=_LAYOUT, keys=keys)
    fields = np.random.default_rng(rank).random((_LAYOUT.window, *_LAYOUT.sample_shape), np.float32)
    member = rank
    while not stop.is_set():
        sender.open(member=member, attempt=1, parameters=np.zeros(5), validation=False)
        for step in range(100):
            fields[0, 0, 0, 0] = fields[0, 0, -1, -1] = step
            sender.send(sample=step, step=step, times=np.full(1, float(step)), fields=fields)
            if stop.is_set():
                break
        member += _SENDERS
    sender.close()
