"""``live_vs_resident``: train steps/s from a live reservoir, over the same on a resident tensor.

The network, the batch and the loop are those of the demo. Both sides take turns in one process, so
that a change of the machine's speed meets both of them.

1. The live side is the real one: a Ray actor with receiver and slots in a process of its own, which
   a sender in another process keeps full; leases are Ray calls.
2. The resident side is the same ``train`` over arrays of this process.
3. The clock runs from the first report of a turn to its last: no start-up, no validation.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final, final

import numpy as np
import ray
from jaxtyping import Float32, Float64

from benchmarks.endless_sender import send_until
from benchmarks.figures import Figure
from benchmarks.processes import running_until_left
from benchmarks.resident_source import ResidentSource
from pipeline.actors.cluster import Actor, close_all, cluster
from pipeline.actors.reservoir import THREADS, ReservoirActor
from pipeline.actors.trainer import RayReservoir
from pipeline.reservoir.batches import ReservoirSource
from pipeline.slots.memory import Slots
from pipeline.stream.endpoint import StudyKeys
from pipeline.study.config import StudyConfig
from pipeline.study.for_trainer import problem_of
from pipeline.study.load import load
from trainers.base import BatchSource, Held, Lease, Moments
from trainers.loop.lockstep import World
from trainers.results import TrainStats
from trainers.trainer import train

PROJECT: Final = Path(__file__).resolve().parent.parent
TURNS: Final = 10  # of each side
STEPS: Final = 400  # train steps of a turn
CAPACITY: Final = 6000
WATERMARK: Final = 3000
REUSE: Final = 8  # draws per sample: the sender has to follow the rank, and is kept back otherwise
BAR: Final = 0.95
_TIMEOUT_SECONDS: Final = 60.0


def run() -> list[Figure]:
    """The ratio, and both rates."""
    study = load(
        PROJECT / "examples" / "heat.yaml",
        [
            "ensemble.members=1000000",  # a receiver takes no others, and the senders do not stop
            "trainer.ranks=1",
            "trainer.log_every=50",
            f"reservoir.capacity={CAPACITY}",
            f"reservoir.watermark={WATERMARK}",
            f"reservoir.max_reuse={REUSE}",
            f"reservoir.max_surplus={2 * REUSE * CAPACITY}",
        ],
    )
    resident_rates, live_rates = [], []
    with ExitStack() as stack:
        source, _ = live(study, stack)
        if not source.wait_for_watermark(_TIMEOUT_SECONDS):
            raise TimeoutError(f"fewer than {WATERMARK} samples after {_TIMEOUT_SECONDS} s")
        resident = _resident(study)
        for turn in range(TURNS + 1):
            rates = _rate(resident, study), _rate(source, study)
            if turn:  # the first one warms up
                resident_rates.append(rates[0])
                live_rates.append(rates[1])
    live_rate, resident_rate = median(live_rates), median(resident_rates)
    return [
        Figure.at_least("live_vs_resident", live_rate / resident_rate, BAR, "1"),
        Figure.at_least("live_vs_resident.live", live_rate, 0.0, "steps/s"),
        Figure.at_least("live_vs_resident.resident", resident_rate, 0.0, "steps/s"),
    ]


def _rate(source: BatchSource, study: StudyConfig) -> float:
    turn = Turn(source, STEPS)
    train(turn, study.trainer, problem_of(study), world=World(), report=turn.report)
    (first, begin), (last, end) = turn.seen[0], turn.seen[-2]  # the last one is after the loop
    return (last - first) / (end - begin)


@final
class Turn:
    """A source that ends after so many batches, and what its training said.

    Attributes:
        seen: Train step and time of each report of the rank.
    """

    def __init__(self, source: BatchSource, batches: int) -> None:
        self._source, self._left = source, batches
        self.seen: list[tuple[int, float]] = []

    @property
    def fields(self) -> Float32[np.ndarray, " slot window channel *grid"]:
        """Of the source."""
        return self._source.fields

    @property
    def inputs(self) -> Float64[np.ndarray, " slot inputs"]:
        """Of the source."""
        return self._source.inputs

    def wait_for_watermark(self, timeout: float) -> bool:
        """As the source."""
        return self._source.wait_for_watermark(timeout)

    def moments(self) -> Moments:
        """As the source."""
        return self._source.moments()

    def lease(self, batches: int, *, timeout: float) -> Lease:
        """As the source, until the turn is over."""
        lease = self._source.lease(min(batches, self._left), timeout=timeout)
        self._left -= len(lease.indices)
        return Lease(id=lease.id, indices=lease.indices, finished=self._left == 0)

    def replay(self, batches: int) -> Lease:
        """A single rank never asks for it."""
        raise NotImplementedError

    def give_back(self, lease_id: int) -> None:
        """As the source."""
        self._source.give_back(lease_id)

    def held_validation(self) -> Held:
        """As the source: nothing, here."""
        return self._source.held_validation()

    def report(self, stats: TrainStats) -> None:
        """Note the time."""
        self.seen.append((stats.train_step, time.perf_counter()))


def _resident(study: StudyConfig) -> ResidentSource:
    """As many samples as the reservoir has slots."""
    layout, rng = study.sample_layout(), np.random.default_rng(5)
    shape = (CAPACITY, layout.window, *layout.sample_shape)
    return ResidentSource(
        fields=rng.random(shape, np.float32),
        inputs=rng.random((CAPACITY, layout.num_inputs)),
        batch=study.trainer.batch,
        rng=rng,
        total_batches=10**9,
    )


def live(study: StudyConfig, stack: ExitStack) -> tuple[ReservoirSource, RayReservoir]:
    """What reads the slots of a reservoir that a sender fills, and the reservoir itself."""
    keys = StudyKeys.generate()
    stack.enter_context(cluster(cpus=1, project_root=PROJECT))
    actor: Actor = ReservoirActor.options(max_concurrency=THREADS).remote(
        study, 0, f"bench-live-{keys.study:x}", keys, None
    )
    stack.callback(close_all, [actor], within=5.0)
    ray.get(actor.begin_training.remote())  # there are no validation members to wait for
    description = ray.get(actor.describe.remote())
    client = RayReservoir(actor, loop_began_after=0.0)
    source = ReservoirSource(
        client=client,
        training=Slots.attach(description.training),
        validation=None,
        batch=study.trainer.batch,
    )
    stack.callback(source.close)
    endpoint = ray.get(actor.endpoint.remote())
    sending = running_until_left(send_until, endpoint, keys, study.sample_layout())
    stack.enter_context(sending)
    return source, client
