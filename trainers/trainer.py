"""The training loop: draw, forward, loss, backward, finite check, step, log.

It takes any ``BatchSource`` and any number of ranks, and knows nothing of where samples come from.

Invariants (``tests/unit/test_trainer_loop.py``, ``tests/integration/test_ddp.py``):

1. Every batch that the source hands out is trained on, once.
2. All ranks take the same number of train steps and end together.
3. A train step that is not finite ends the training with ``TrainingDiverged``.
4. Validation takes place after every ``validate_every`` train steps once all samples for it have
   arrived, and at the end; it draws no training batch.
5. The same seed and the same batches give the same weights.
6. Asked to stop, it takes a checkpoint and leaves, without validation and export.
"""

import time
from pathlib import Path
from typing import Final, final

import torch
from jaxtyping import Float32
from torch import Tensor

from trainers.base import (
    BatchSource,
    Moments,
    NothingToTrainOn,
    PeerFailed,
    Problem,
    TrainStats,
    ValidationResult,
)
from trainers.checkpoint import Checkpoints, Resumed, Saver, Trained
from trainers.config import TrainerConfig
from trainers.distributed import LockStep, World, pick_device
from trainers.evaluate import Validation
from trainers.export import export
from trainers.learner import Learner
from trainers.staging import Staging
from trainers.state import Normalization
from trainers.tasks import build_task

POLL_SECONDS: Final = 0.5  # longest a rank waits before it tells the others that it still does


def train(
    source: BatchSource,
    config: TrainerConfig,
    problem: Problem,
    *,
    world: World,
    out: Path | None = None,
    seed: int = 0,
    expected_steps: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainStats:
    """Train until the source has nothing left; called by all ranks together.

    Args:
        source: This rank's batches, of ``config.batch`` samples.
        config: The ``trainer`` section of a study.
        problem: What is learnt.
        world: This rank; ``torch.distributed`` is initialised when there are several.
        out: Where ``model/`` and ``validation/`` are written; None: nowhere.
        seed: Of the weights; the same on all ranks.
        expected_steps: Train steps the stream will allow, for the schedule; may be wrong.
        checkpoints: Where they are written, and the one to go on from; None: there are none.

    Raises:
        TrainingDiverged: The loss or a gradient is not finite.
        NothingToTrainOn: The stream ended before a rank got a sample.
        PeerFailed: Another rank failed.
    """
    log = _Log(source, config.log_every, world.rank)
    device = pick_device(world, config.device)
    torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    ranks = LockStep(world, device)
    resumed = _resumed(checkpoints, world)
    if resumed is None:
        normalization = Normalization.of(_moments_at_watermark(source, ranks), problem)
    else:
        normalization = resumed.normalization
    task = build_task(config, problem, normalization, device)
    model = task.network(config.model)
    if resumed is not None:
        model.load_state_dict(resumed.model)
    network = ranks.wrap(model.to(device))
    learner = Learner(model, config, expected_steps=expected_steps)
    if resumed is not None:
        learner.load_state_dict(resumed.learner)
        log.validated(resumed.validation)
        resumed.restore_generators()
    saver = Saver(source, checkpoints, world)
    saver.begin_at(learner.train_step)
    trained = Trained(
        model=model,
        learner=learner,
        normalization=normalization,
        validation=lambda: log.validation,
    )
    validation = Validation(source, task, model, ranks)
    with Staging(source, config, device) as staging:
        pace = _Pace(staging, ranks, config, saver)
        while steps := pace.next_burst(trained, log):
            for batch in staging.take(steps, replay=pace.over):
                losses = task.losses(network, batch.inputs, batch.fields)
                learner.step(losses)
                staging.done(losses)
                log.step(losses, learner)
            if learner.train_step % config.validate_every == 0:
                log.validated(validation.measure(learner.train_step))
    learner.check()
    if saver.left:
        return log.last(learner)
    saver.finish(ranks, trained)
    log.checkpointed(saver)
    log.validated(validation.measure_what_is_there(learner.train_step))
    stats = log.last(learner)
    if out is not None and stats.validation is not None:
        validation.write(out / "validation" / f"rank{world.rank}.npz", stats.validation)
    if out is not None and world.rank == 0:
        export(out / "model", model, config, problem, normalization, stats)
    return stats


def _resumed(checkpoints: Checkpoints | None, world: World) -> Resumed | None:
    if checkpoints is None or checkpoints.resume is None:
        return None
    return Resumed.read(checkpoints.resume, world.rank)


def _moments_at_watermark(source: BatchSource, ranks: LockStep) -> Moments:
    """Wait until every rank may start, then the statistics of what all of them hold."""
    while not ranks.all(source.wait_for_watermark(POLL_SECONDS)):
        pass
    moments, counts = ranks.merge(source.moments())
    if counts.min() == 0:
        raise NothingToTrainOn(
            f"the stream ended, and the ranks hold {counts.tolist()} samples: each needs at least "
            "one. See which members failed, and why; or use fewer ranks"
        )
    return moments


@final
class _Pace:
    """How many train steps all ranks take next."""

    def __init__(
        self, staging: Staging, ranks: LockStep, config: TrainerConfig, saver: Saver
    ) -> None:
        self._staging, self._ranks, self._config = staging, ranks, config
        self._saver = saver
        self.over = False  # this rank has drawn everything and draws again

    def next_burst(self, trained: Trained, log: "_Log") -> int:
        """Train steps up to the next agreement, none when all ranks are over or asked to stop."""
        begin = time.perf_counter()
        train_step, every = trained.learner.train_step, self._config.validate_every
        most = min(self._config.lease_batches, every - train_step % every)
        while True:
            mine = self._staging.readiness(POLL_SECONDS)
            everyone = self._ranks.agree(self._saver.say(mine))
            if everyone.failed:
                self._staging.raise_failure()
                raise PeerFailed(
                    f"after train step {train_step} another rank could not go on; see its message"
                )
            self._saver.follow(everyone, trained)
            log.checkpointed(self._saver)
            if self._saver.left:
                return 0
            if everyone.stop:
                continue
            if everyone.over or everyone.steps:
                log.waited(time.perf_counter() - begin)
                self.over = mine.over
                return 0 if everyone.over else min(most, everyone.steps)


@final
class _Log:
    """What this rank says of itself."""

    def __init__(self, source: BatchSource, every: int, rank: int) -> None:
        self._source, self._every, self._rank = source, every, rank
        self._begin = time.perf_counter()
        self._first_step_seconds: float | None = None
        self._wait_seconds = 0.0
        self._losses: list[Tensor] = []
        self._loss = float("nan")
        self._checkpoint: int | None = None
        self._checkpoints_failed = 0
        self.validation: ValidationResult | None = None

    def checkpointed(self, saver: Saver) -> None:
        """Note how far checkpoints are."""
        self._checkpoint, self._checkpoints_failed = saver.newest, saver.failed

    def waited(self, seconds: float) -> None:
        """Count a wait for batches; the one before the first train step is not one."""
        if self._first_step_seconds is not None:
            self._wait_seconds += seconds

    def step(self, losses: Float32[Tensor, " batch"], learner: Learner) -> None:
        """Note a train step, and report every so often."""
        if self._first_step_seconds is None:
            self._first_step_seconds = time.perf_counter() - self._begin
        self._losses.append(losses.detach())
        if learner.train_step % self._every == 0:
            self._source.report(self._stats(learner))

    def validated(self, result: ValidationResult | None) -> None:
        """Note a validation result where there is one."""
        if result is not None:
            self.validation = result

    def last(self, learner: Learner) -> TrainStats:
        """Report once more, and return what was reported."""
        stats = self._stats(learner)
        self._source.report(stats)
        return stats

    def _stats(self, learner: Learner) -> TrainStats:
        if self._losses:
            self._loss = float(torch.stack(self._losses).mean())
            self._losses.clear()
        return TrainStats(
            rank=self._rank,
            train_step=learner.train_step,
            loss=self._loss,
            learning_rate=learner.learning_rate,
            wait_seconds=self._wait_seconds,
            first_step_seconds=self._first_step_seconds,
            validation=self.validation,
            checkpoint=self._checkpoint,
            checkpoints_failed=self._checkpoints_failed,
        )
