"""``checkpoint_cost``: train steps/s with a checkpoint of a 1 GB reservoir every 30 s, over none.

A live reservoir, as in ``live_vs_resident``. A checkpoint is begun every 60 s in one training; the
figure is the median ratio of the first half of such a minute, in which it is written, and the
second, in which nothing is: neighbours, so that a change of the machine's speed meets both of them.

1. Every checkpoint is completed in its half: what is copied, written, hashed and synchronised lies
   in there.
2. The folder is on the disk of the project, for ``/tmp`` may be in memory; it grows to 7 GB.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final, final

import numpy as np

from benchmarks.figures import Figure
from benchmarks.live_vs_resident import PROJECT, Turn, live
from pipeline.study.config import StudyConfig
from pipeline.study.for_trainer import problem_of
from pipeline.study.load import load
from trainers.base import BatchSource
from trainers.checkpoints.files import MANIFEST, final_folder, steps_in
from trainers.checkpoints.saver import Checkpoints, HeldSamples
from trainers.loop.lockstep import World
from trainers.trainer import train

CAPACITY: Final = 65_536  # samples of 16 KB
HALF_SECONDS: Final = 30.0
MINUTES: Final = 4
BAR: Final = 0.97
_WARMING: Final = 2000  # train steps
_TIMEOUT_SECONDS: Final = 120.0


def run() -> list[Figure]:
    """The ratio, and both rates."""
    study = load(
        PROJECT / "examples" / "heat.yaml",
        [
            "trainer.ranks=1",
            "trainer.log_every=50",
            "ensemble.members=1000000",  # a receiver takes no others, and the senders do not stop
            f"reservoir.capacity={CAPACITY}",
            f"reservoir.watermark={CAPACITY // 2}",
            "reservoir.max_reuse=8",
            f"reservoir.max_surplus={16 * CAPACITY}",
        ],
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        source, reservoir = live(study, stack)
        if not source.wait_for_watermark(_TIMEOUT_SECONDS):
            raise TimeoutError(f"too few samples after {_TIMEOUT_SECONDS} s")
        warm = _train(source, study, _WARMING, None)
        speed = _rate(warm, warm.seen[0][1], warm.seen[-1][1])
        steps = int(speed * 2 * HALF_SECONDS * (MINUTES + 1.5))
        held = Timed(reservoir)
        plan = Checkpoints(
            folder=folder, every_seconds=2 * HALF_SECONDS, keep_last=MINUTES + 2, held=held
        )
        turn = _train(source, study, steps, plan)
        halves = [
            (_rate(turn, begin, middle), _rate(turn, middle, middle + HALF_SECONDS))
            for begin in held.began
            if (middle := begin + HALF_SECONDS) + HALF_SECONDS < turn.seen[-1][1]
        ]
        _check(folder, held.began, len(halves))
    return [
        Figure.at_least("checkpoint_cost", median(a / b for a, b in halves), BAR, "1"),
        Figure.at_least("checkpoint_cost.with", median(a for a, _ in halves), 0.0, "steps/s"),
        Figure.at_least("checkpoint_cost.without", median(b for _, b in halves), 0.0, "steps/s"),
    ]


@final
class Timed:
    """Samples that a reservoir writes into checkpoints.

    Attributes:
        began: When each checkpoint was begun.
    """

    def __init__(self, held: HeldSamples) -> None:
        self._held = held
        self.began: list[float] = []
        self.checkpoint_done = held.checkpoint_done

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """As the reservoir; note the time."""
        self.began.append(time.perf_counter())
        self._held.begin_checkpoint(folder, batches)


def _train(source: BatchSource, study: StudyConfig, steps: int, plan: Checkpoints | None) -> Turn:
    turn = Turn(source, steps)
    train(
        turn,
        study.trainer,
        problem_of(study),
        world=World(),
        checkpoints=plan,
        report=turn.report,
    )
    return turn


def _rate(turn: Turn, begin: float, end: float) -> float:
    """Train steps per second between two moments."""
    steps, times = np.array(turn.seen, np.float64).T
    first, last = np.interp([begin, end], times, steps)
    return float(last - first) / (end - begin)


def _check(folder: Path, began: Sequence[float], halves: int) -> None:
    """Every checkpoint was sealed before its half was over, and there were enough of them."""
    since = time.time() - time.perf_counter()
    manifests = [final_folder(folder, step) / MANIFEST for step in steps_in(folder)]
    sealed = [path.stat().st_mtime - since for path in manifests]
    took = [end - begin for begin, end in zip(began, sealed, strict=True)]
    if halves < MINUTES or max(took) > HALF_SECONDS:
        raise RuntimeError(f"{halves} minutes were measured; the checkpoints took {took} s")
