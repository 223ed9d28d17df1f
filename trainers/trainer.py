"""The training loop: draw, forward, loss, backward, finite check, step, log.

It takes any ``BatchSource`` and any number of ranks, and knows nothing of where samples come from.

Invariants (``tests/unit/trainers/test_trainer.py``, ``tests/integration/test_ddp.py``):

1. Every batch that the source hands out is trained on, once; with early stop, until then.
2. All ranks take the same number of batches and of train steps, and end together.
3. A train step that is not finite ends the training with ``TrainingDiverged``.
4. Validation takes place after every ``validate_every`` train steps once all samples for it have
   arrived, and at the end; it draws no training batch.
5. The same seed and the same batches give the same weights.
6. Asked to stop, it takes a checkpoint and leaves, without validation and export.
7. What is validated is what is exported: in float32, with averaged weights where they are averaged.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, final

import torch

from trainers.base import BatchSource, Moments, NothingToTrainOn, PeerFailed, Problem
from trainers.checkpoints.saver import Checkpoints, Resumed, Saver, Trained
from trainers.config import StepsAfter, TrainerConfig
from trainers.durable import LOCK_SECONDS, sole_writer
from trainers.log import Log
from trainers.loop.forward import training_network
from trainers.loop.learner import Learner
from trainers.loop.lockstep import LockStep, World, pick_device
from trainers.loop.staging import Staging
from trainers.results import TrainStats, ValidationResult
from trainers.surrogate.export import export
from trainers.tasks.build import build_task
from trainers.tasks.moments import moments_of_members
from trainers.tasks.normalization import Normalization
from trainers.validation.evaluate import Validation

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
    report: Callable[[TrainStats], None] | None = None,
) -> TrainStats:
    """Train until the source has nothing left; called by all ranks together.

    Args:
        source: This rank's batches, of ``config.batch`` samples.
        config: The ``trainer`` section of a study.
        problem: What is learnt.
        world: This rank; ``torch.distributed`` is initialised when there are several.
        out: Where ``model/``, ``validation/`` and loggers write; None: nowhere.
        seed: Of the weights; the same on all ranks.
        expected_steps: Train steps the stream will allow, for the schedule; may be wrong.
        checkpoints: Where they are written, and the one to go on from; None: there are none.
        report: Is told how the training goes; must not wait.

    Raises:
        TrainingDiverged: The loss or a gradient is not finite.
        NothingToTrainOn: The stream ended before a rank got a sample.
        PeerFailed: Another rank failed.
        ValueError: This machine lacks what the config asks for.
    """
    with _writing(checkpoints, world), Log(report, config, world, out) as log:
        device = pick_device(world, config.device)
        torch.set_num_threads(config.threads)
        torch.manual_seed(seed)
        ranks = LockStep(world, device)
        resumed = _resumed(checkpoints, world)
        if resumed is None:
            moments = _moments_of_whole_members(source, ranks)
            problem = problem.with_times(moments.time_low, moments.time_high)
            normalization = Normalization.of(moments, problem)
        else:
            problem = problem.with_times(*resumed.times)
            normalization = resumed.normalization
        task = build_task(config, problem, normalization, device)
        model = task.network(config.model).to(device)
        if resumed is not None:
            model.load_state_dict(resumed.model)
        network, notes = training_network(model, config, device, ranks)
        log.note(*notes)
        learner = Learner(model, config, expected_steps=expected_steps)
        if resumed is not None:
            learner.load_state_dict(resumed.learner)
            log.resumed(resumed.validation)
            resumed.restore_generators()
        saver = Saver(checkpoints, world)
        saver.begin_at(learner.train_step)
        table = out / "validation.jsonl" if out is not None and world.rank == 0 else None
        validation = Validation(source, task, learner.result, ranks, table)
        with Staging(source, config, device) as staging:
            trained = Trained(
                model=model,
                learner=learner,
                normalization=normalization,
                times=(problem.time.low, problem.time.high),
                validation=lambda: log.validation,
                batches=lambda: staging.trained,
            )
            pace = _Pace(staging, ranks, config, saver)
            while batches := pace.next_burst(trained, log):
                for batch in staging.take(batches, replay=pace.over):
                    with ranks.exchanging(network, when=learner.completes_group):
                        losses = task.losses(network, batch.inputs, batch.fields)
                        learner.learn(losses)
                    staging.done()
                    log.batch(losses, learner)
                if learner.between_steps and learner.train_step % config.validate_every == 0:
                    _judge(validation.measure(learner.train_step), learner, ranks, log)
            if saver.left:
                return log.last(learner)
            learner.finish(ranks.average)
        saver.finish(ranks, trained)
        log.checkpointed(saver)
        log.validated(validation.measure_what_is_there(learner.train_step))
        later, _ = ranks.merge(source.moments())
        log.note(*normalization.misfits(later, problem))
        problem = problem.with_times(
            min(problem.time.low, later.time_low), max(problem.time.high, later.time_high)
        )
        stats = log.last(learner)
        if out is not None and stats.validation is not None:
            validation.write(out / "validation" / f"rank{world.rank}.npz")
        if out is not None and world.rank == 0:
            export(out / "model", learner.result, config, problem, normalization, stats)
        return stats


def _judge(result: ValidationResult | None, learner: Learner, ranks: LockStep, log: Log) -> None:
    """Take in a validation, where there was one, alike on all ranks."""
    log.validated(result)
    if result is not None:
        learner.progress.validated(ranks.of_first(result.error), learner.train_step)
        if learner.progress.stopped is not None:
            log.note(learner.progress.stopped)


def _writing(checkpoints: Checkpoints | None, world: World) -> AbstractContextManager[None]:
    if checkpoints is None or world.rank > 0:
        return nullcontext()
    return sole_writer(checkpoints.folder, LOCK_SECONDS)


def _resumed(checkpoints: Checkpoints | None, world: World) -> Resumed | None:
    if checkpoints is None or checkpoints.resume is None:
        return None
    return Resumed.read(checkpoints.resume, world.rank)


def _moments_of_whole_members(source: BatchSource, ranks: LockStep) -> Moments:
    """Wait until every rank may start; then the statistics that fields are normalised by.

    They are those of the validation members: these are simulated first and are whole by then, while
    the training samples of that moment are the beginnings of a few members, and depend on timing.
    A mean and a spread of each field tell nothing of single members that could be learnt by heart.
    A study without validation members takes the first training members instead.
    """
    while not ranks.all(source.wait_for_watermark(POLL_SECONDS)):
        pass
    trained, counts = ranks.merge(source.moments())
    if counts.min() == 0:
        raise NothingToTrainOn(
            f"the stream ended, and the ranks hold {counts.tolist()} samples: each needs at least "
            "one. See which members failed, and why; or use fewer ranks"
        )
    validation, _ = ranks.merge(moments_of_members(source.held_validation()))
    return validation if validation.count else trained


@final
class _Pace:
    """How many batches all ranks take next."""

    def __init__(
        self, staging: Staging, ranks: LockStep, config: TrainerConfig, saver: Saver
    ) -> None:
        self._staging, self._ranks, self._config = staging, ranks, config
        self._saver = saver
        after = config.after_production
        self._steps_after = after.steps if isinstance(after, StepsAfter) else 0
        self.over = False  # this rank has drawn everything and draws again

    def next_burst(self, trained: Trained, log: Log) -> int:
        """Batches up to the next agreement, none when the training is to end."""
        learner = trained.learner
        if learner.progress.stopped is not None:
            return 0
        begin = time.perf_counter()
        step, every = learner.train_step, self._config.validate_every
        most = min(self._config.lease_batches, learner.batches_for(every - step % every))
        while True:
            mine = self._staging.readiness(POLL_SECONDS)
            everyone = self._ranks.agree(self._saver.say(mine))
            if everyone.failed:
                self._staging.raise_failure()
                raise PeerFailed(
                    f"after train step {step} another rank could not go on; see its message"
                )
            self._saver.follow(everyone, trained)
            log.checkpointed(self._saver)
            if self._saver.left:
                return 0
            if everyone.stop and learner.between_steps:
                continue
            if everyone.over or everyone.steps:
                log.waited(time.perf_counter() - begin)
                self.over = mine.over
                batches = self._left(learner) if everyone.over else everyone.steps
                return learner.whole_steps(min(most, batches))

    def _left(self, learner: Learner) -> int:
        """Batches that are drawn again although every rank is over."""
        if learner.last_step is None:
            learner.last_step = learner.train_step + self._steps_after
        steps = learner.last_step - learner.train_step
        return learner.batches_for(steps) if steps > 0 else 0
