"""``checkpoint_cost``: train steps/s while checkpoints are taken, over the same without any.

A live reservoir, as in ``live_vs_resident``, with a checkpoint of all its slots now and then. Both
sides take turns in one process, so that a change of the machine's speed meets both of them.

1. The interval grows with the reservoir: a second for each 1/30 GB, as 30 s for 1 GB.
2. The clock runs over whole turns, which last longer than an interval.
3. Checkpoints really are completed: a turn without one fails.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure
from benchmarks.live_vs_resident import PROJECT, Turn, live
from pipeline.actors.trainer import problem_of
from pipeline.config import StudyConfig, load
from trainers.base import BatchSource
from trainers.checkpoint import Checkpoints
from trainers.checkpoint_files import steps_in
from trainers.distributed import World
from trainers.trainer import train

TURNS: Final = 6  # of each side
STEPS: Final = 4000  # train steps of a turn
CAPACITY: Final = 4000
BAR: Final = 0.97
_TIMEOUT_SECONDS: Final = 60.0
_SECONDS_PER_BYTE: Final = 30e-9


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
    every = CAPACITY * study.sample_bytes * _SECONDS_PER_BYTE
    rates: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = live(study, stack)
        if not source.wait_for_watermark(_TIMEOUT_SECONDS):
            raise TimeoutError(f"too few samples after {_TIMEOUT_SECONDS} s")
        for turn in range(TURNS + 1):
            for saving in (False, True):
                plan = Checkpoints(folder=folder / str(turn), every_seconds=every)
                rate = _rate(source, study, plan if saving else None)
                if turn:  # the first one warms up
                    rates[saving].append(rate)
            if not steps_in(folder / str(turn)):
                raise RuntimeError(f"no checkpoint in a turn, with one due every {every:.2f} s")
    with_them, without = median(rates[True]), median(rates[False])
    return [
        Figure.at_least("checkpoint_cost", with_them / without, BAR, "1"),
        Figure.at_least("checkpoint_cost.with", with_them, 0.0, "steps/s"),
        Figure.at_least("checkpoint_cost.without", without, 0.0, "steps/s"),
    ]


def _rate(source: BatchSource, study: StudyConfig, plan: Checkpoints | None) -> float:
    turn = Turn(source, STEPS)
    train(turn, study.trainer, problem_of(study), world=World(), checkpoints=plan)
    (first, begin), (last, end) = turn.seen[0], turn.seen[-2]  # the last one is after the loop
    return (last - first) / (end - begin)
