"""``trainer_idle``: share of a training's wall time spent waiting for data, with a full reservoir.

The rank is a process of its own, as in a study: it maps the slots, leases through a
``ReservoirSource`` and runs the ordinary ``train`` with each kind of network that is built in among
mlp, unet and fno. Its leases come from this process, where a receiver fills the slots from a sender
in a third one, over a pipe instead of Ray.

1. The clock runs from the first report of a training to its last: no start-up, no validation.
2. Waiting is what the loop itself counts as waiting (``TrainStats.wait_seconds``).
3. The reservoir is full before the first train step, and the sender goes on meanwhile.
"""

import multiprocessing
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
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
from trainers.base import Input, Lease, Problem, TrainStats

KINDS: Final = ("mlp", "unet", "fno")
BAR: Final = 0.02
_LAYOUT: Final = SampleLayout(window=2, sample_shape=(1, 64, 64), num_parameters=5)
_CAPACITY: Final = 3000
_REUSE: Final = 8.0
_BATCH: Final = 16
_SECONDS: Final = 8.0  # of each training
_TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained:
    """What a rank measured."""

    kind: str
    idle: float
    train_steps: int


def run() -> list[Figure]:
    """The share for each kind of network, and its train steps."""
    from trainers.models import MODELS

    figures = []
    for kind in KINDS:
        if kind in MODELS:
            trained = _measured(kind)
            rate = trained.train_steps / _SECONDS
            figures += [
                Figure.at_most(f"trainer_idle.{kind}", trained.idle, BAR, "1"),
                Figure.at_least(f"trainer_idle.{kind}.rate", rate, 0.0, "steps/s"),
            ]
    return figures


def _measured(kind: str) -> _Trained:
    with ExitStack() as stack:
        path = slots_path(f"bench-idle-{time.time_ns():x}", 0, "train")
        slots = stack.enter_context(Slots.create(path, capacity=_CAPACITY, layout=_LAYOUT))
        slots.populate()
        lock, keys = Turnstile(), StudyKeys.generate()
        book = Reservoir(
            policy="reservoir",
            capacity=_CAPACITY,
            flow=FlowControl(
                max_reuse=_REUSE, max_surplus=2 * _REUSE * _CAPACITY, watermark=_CAPACITY
            ),
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
        for process in (
            context.Process(target=_send, args=(endpoint, keys, stop), daemon=True),
            context.Process(target=_train, args=(theirs, slots.description, kind), daemon=True),
        ):
            process.start()
            stack.callback(_end, process, stop)
        return _serve(ours, book, lock, receiver)


def _end(process: multiprocessing.process.BaseProcess, stop: Event) -> None:
    stop.set()
    process.join(2.0)  # a sender may wait for credit that nobody gives any more
    process.kill()
    process.join()


def _serve(
    pipe: Connection, book: Reservoir, lock: Turnstile, receiver: ReceiverThread
) -> _Trained:
    """Answer the rank until it is done."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"not done after {_TIMEOUT_SECONDS} s: {book.stats()}")
        receiver.check()
        asked = pipe.recv()
        if isinstance(asked, _Trained):
            return asked
        if asked == "ready":
            with lock:
                pipe.send(book.ready)
            continue
        if asked == "held":
            with lock:
                pipe.send(book.filled())
            continue
        returned, batches, batch = asked
        with lock:
            for lease_id in returned:
                book.give_back(lease_id)
            lease = book.lease(batches, batch)
        receiver.wake()
        pipe.send(lease)


@final
class _PipeClient:
    """The rank's end of the pipe; stops handing out batches after a while."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.seen: list[tuple[float, TrainStats]] = []

    def wait_for_watermark(self, timeout: float) -> bool:
        """Ask the other end, a little later."""
        time.sleep(0.01)
        self._pipe.send("ready")
        return bool(self._pipe.recv())

    def lease(self, returned: Returned, batches: int, batch: int, timeout: float) -> Lease:
        """Ask the other end; the stream is over when the time is."""
        over = bool(self.seen) and time.perf_counter() - self.seen[0][0] > _SECONDS
        asked = 0 if over else batches
        self._pipe.send(([lease_id for lease_id, _ in returned], asked, batch))
        lease: Lease = self._pipe.recv()
        if lease.indices.size == 0 and not over:
            time.sleep(min(timeout, 0.002))
        return Lease(id=lease.id, indices=lease.indices, finished=over)

    def replay(self, batches: int, batch: int) -> Lease:
        raise NotImplementedError

    def held(self) -> HeldState:
        """All slots, and no validation."""
        self._pipe.send("held")
        return HeldState(slots=self._pipe.recv(), validation=0, validation_complete=True)

    def report(self, stats: TrainStats) -> None:
        """Note the time."""
        self.seen.append((time.perf_counter(), stats))


def _train(pipe: Connection, description: SlotsDescription, kind: str) -> None:
    """The rank."""
    from trainers.config import TrainerConfig
    from trainers.distributed import World
    from trainers.trainer import train

    config = TrainerConfig.model_validate(
        {
            "batch": _BATCH,
            "model": {"kind": kind},
            "task": {"kind": "delta"},
            "log_every": 5,
            "validate_every": 10**6,
            "lease_batches": 16,
        }
    )
    client = _PipeClient(pipe)
    source = ReservoirSource(
        client=client, training=Slots.attach(description), validation=None, batch=_BATCH
    )
    last = train(source, config, _problem(), world=World())
    source.close()
    (begin, first), (end, _) = client.seen[0], client.seen[-1]
    idle = (last.wait_seconds - first.wait_seconds) / (end - begin)
    pipe.send(_Trained(kind=kind, idle=idle, train_steps=last.train_step - first.train_step))


def _problem() -> Problem:
    return Problem(
        field_names=("u",),
        field_units=("1",),
        shape=_LAYOUT.sample_shape[1:],
        spacing=(1 / 64, 1 / 64),
        parameters=tuple(
            Input(name=f"p{index}", unit="1", low=0.0, high=1.0)
            for index in range(_LAYOUT.num_parameters)
        ),
        time=Input(name="time", unit="s", low=0.0, high=1.0),
        window=_LAYOUT.window,
        time_step=0.01,
    )


def _send(endpoint: Endpoint, keys: StudyKeys, stop: Event) -> None:
    """One member after another, as fast as the reservoir takes them."""
    sender = Sender([endpoint], layout=_LAYOUT, keys=keys)
    rng = np.random.default_rng(1)
    fields = rng.random((16, _LAYOUT.window, *_LAYOUT.sample_shape), np.float32)
    member = 0
    while not stop.is_set():
        sender.open(member=member, attempt=1, parameters=rng.random(5), validation=False)
        for step in range(100):
            times = 0.01 * (step + np.arange(_LAYOUT.window))
            sender.send(sample=step, step=step, times=times, fields=fields[step % 16])
            if stop.is_set():
                break
        member += 1
