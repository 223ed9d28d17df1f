"""``trainer_idle``: share of a training's wall time spent waiting for data, with a full reservoir.

The rank is a process of its own, as in a study: it maps the slots, leases through a
``ReservoirSource`` and runs the ordinary ``train`` with each kind of network that is built in among
mlp, unet and fno. Its leases come from this process, where a receiver fills the slots from a sender
in a third one, over a pipe instead of Ray.

1. The clock runs from the first report of a training to its last: no start-up, no validation.
2. Waiting is what the loop itself counts as waiting (``TrainStats.wait_seconds``).
3. The reservoir is full before the first train step, and the sender goes on meanwhile.
"""

from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import numpy as np

from benchmarks.endless_sender import send_until
from benchmarks.figures import Figure
from benchmarks.processes import running_until_left
from benchmarks.rank_rig import PipeClient, on_rank
from benchmarks.store_rig import store
from pipeline.flow import FlowControl
from pipeline.reservoir.batches import ReservoirSource
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots, SlotsDescription
from trainers.base import Input, Problem

KINDS: Final = ("mlp", "unet", "fno")
BAR: Final = 0.02
_LAYOUT: Final = SampleLayout(window=2, sample_shape=(1, 64, 64), num_parameters=5)
_CAPACITY: Final = 3000
_REUSE: Final = 8.0
_BATCH: Final = 16
_SECONDS: Final = 8.0  # of each training
_TIMEOUT_SECONDS: Final = 120.0


def run() -> list[Figure]:
    """The share for each kind of network, and its train steps."""
    from trainers.models.registry import MODELS

    figures = []
    for kind in KINDS:
        if kind in MODELS:
            idle, train_steps = _measured(kind)
            rate = train_steps / _SECONDS
            figures += [
                Figure.at_most(f"trainer_idle.{kind}", idle, BAR, "1"),
                Figure.at_least(f"trainer_idle.{kind}.rate", rate, 0.0, "steps/s"),
            ]
    return figures


def _measured(kind: str) -> tuple[float, int]:
    book = Reservoir(
        policy="reservoir",
        capacity=_CAPACITY,
        flow=FlowControl(max_reuse=_REUSE, max_surplus=2 * _REUSE * _CAPACITY, watermark=_CAPACITY),
        rng=np.random.default_rng(6),
    )
    with (
        store(_LAYOUT, book) as stored,
        running_until_left(send_until, stored.endpoint, stored.keys, _LAYOUT),
    ):
        return on_rank(partial(_train, kind), stored, within=_TIMEOUT_SECONDS)


def _train(kind: str, pipe: Connection, description: SlotsDescription) -> tuple[float, int]:
    """The rank trains for ``_SECONDS``: the share, and its train steps."""
    from trainers.config import TrainerConfig
    from trainers.loop.lockstep import World
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
    client = PipeClient(pipe, _SECONDS)
    source = ReservoirSource(
        client=client, training=Slots.attach(description), validation=None, batch=_BATCH
    )
    last = train(source, config, _problem(), world=World(), report=client.report)
    source.close()
    (begin, first), (end, _) = client.seen[0], client.seen[-1]
    idle = (last.wait_seconds - first.wait_seconds) / (end - begin)
    return idle, last.train_step - first.train_step


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
        snapshots=101,
        window=_LAYOUT.window,
        time_step=0.01,
    )
