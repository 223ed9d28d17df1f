"""Batches of 32 samples of 256 KB gathered out of the slots while two senders insert.

The rank is a process of its own, as in a study: it maps the slots read-only, leases through a
``ReservoirSource`` and gathers with one ``index_select`` per batch into a buffer that stays. Its
leases come from this process, where the receiver fills the slots, over a pipe instead of Ray.

1. The clock runs over leasing, gathering and giving back, while the senders never pause.
2. The reservoir is full and larger than any cache: what is drawn is read from memory.
3. Every gathered sample is one that was sent, or the measurement raises.
"""

import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Final

import numpy as np

from benchmarks.figures import Figure
from benchmarks.processes import running_until_left
from benchmarks.rank_rig import PipeClient, on_rank
from benchmarks.store_rig import store
from benchmarks.stream_rig import SENDING
from pipeline.flow import FlowControl
from pipeline.reservoir.batches import ReservoirSource
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots, SlotsDescription
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sender import Sender
from trainers.base import Lease

_LAYOUT: Final = SampleLayout(window=1, sample_shape=(1, 256, 256), num_parameters=5)
_CAPACITY: Final = 3000  # 786 MB
_SENDERS: Final = 2
_BATCH: Final = 32
_LEASE_BATCHES: Final = 8
_SECONDS: Final = 4.0
_TIMEOUT_SECONDS: Final = 60.0
_BAR: Final = 4.0  # GB/s


def run() -> list[Figure]:
    """Gathered and, at the same time, inserted field bytes per second."""
    book = Reservoir(
        policy="reservoir",
        capacity=_CAPACITY,
        flow=FlowControl(max_reuse=None, max_surplus=None, watermark=_CAPACITY),
        rng=np.random.default_rng(6),
    )
    with ExitStack() as stack:
        stored = stack.enter_context(store(_LAYOUT, book))
        for rank in range(_SENDERS):
            sending = running_until_left(_send, stored.endpoint, stored.keys, rank)
            stack.enter_context(sending)
        drawn, inserted = on_rank(_draw, stored, within=_TIMEOUT_SECONDS)
    meanwhile = inserted * _LAYOUT.nbytes / 1e9 / _SECONDS
    return [
        Figure.at_least("draw_256k", drawn, _BAR, "GB/s"),
        Figure.at_least("draw_256k.inserted_meanwhile", meanwhile, 0.5, "GB/s"),
    ]


def _draw(pipe: Connection, description: SlotsDescription) -> tuple[float, int]:
    """The rank gathers for ``_SECONDS``: GB/s, and samples inserted meanwhile."""
    import torch

    from trainers.loop.staging import tensor_over

    torch.set_num_threads(1)  # as Ray sets OMP_NUM_THREADS for a worker with one CPU
    client = PipeClient(pipe)
    source = ReservoirSource(
        client=client, training=Slots.attach(description), validation=None, batch=_BATCH
    )
    slots = tensor_over(source.fields)
    batch = torch.empty((_BATCH, *slots.shape[1:]))

    def gather(lease: Lease) -> int:
        for rows in lease.indices:
            torch.index_select(slots, 0, torch.from_numpy(rows), out=batch)
            _check(batch.numpy(), source.inputs[rows])
        source.give_back(lease.id)
        return len(lease.indices)

    while not gather(source.lease(_LEASE_BATCHES, timeout=1.0)):
        pass  # until the reservoir is full
    for _ in range(_CAPACITY // _BATCH // _LEASE_BATCHES):  # touch the mapping once
        gather(source.lease(_LEASE_BATCHES, timeout=1.0))
    before = client.inserted()
    batches, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < _SECONDS:
        batches += gather(source.lease(_LEASE_BATCHES, timeout=1.0))
    inserted = client.inserted() - before
    return batches * _BATCH * _LAYOUT.nbytes / 1e9 / seconds, inserted


def _check(fields: np.ndarray, inputs: np.ndarray) -> None:
    """First and last value of a sample are the time it was sent with: it is whole."""
    time_sent = inputs[:, -1]
    if not (
        (fields[:, 0, 0, 0, 0] == time_sent).all() and (fields[:, 0, 0, -1, -1] == time_sent).all()
    ):
        raise RuntimeError("a leased slot was overwritten, or holds what nobody sent")


def _send(endpoint: Endpoint, keys: StudyKeys, rank: int, stop: Event) -> None:
    """One member after another, as fast as the reservoir takes them."""
    sender = Sender([endpoint], layout=_LAYOUT, keys=keys, **SENDING)
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
