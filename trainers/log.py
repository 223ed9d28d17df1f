"""What a rank says of its training: to whoever watches, and to the study's loggers.

Invariants (``tests/unit/trainers/test_trainer.py``, ``tests/unit/trainers/loop/test_loggers.py``):

1. A report comes after the first batch, after every ``log_every`` train steps, and at the end.
2. Only rank 0 writes to loggers, and only where there is a run directory.
3. Loggers are closed however the training ends.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, final

import torch
from jaxtyping import Float32
from torch import Tensor

from trainers.checkpoints.saver import Saver
from trainers.config import TrainerConfig
from trainers.loop.learner import Learner
from trainers.loop.lockstep import World
from trainers.loop.loggers import Logger, open_loggers
from trainers.results import TrainStats, ValidationResult


@final
class Log:
    """Collects between reports.

    Attributes:
        validation: The newest result there is.
    """

    def __init__(
        self,
        report: Callable[[TrainStats], None] | None,
        config: TrainerConfig,
        world: World,
        out: Path | None,
    ) -> None:
        self._watcher, self._every, self._rank = report, config.log_every, world.rank
        self._samples_per_batch = config.batch * world.size
        self._loggers: list[Logger] = []
        if world.rank == 0 and out is not None:
            self._loggers = open_loggers(config, out)
        self._begin = self._reported = time.perf_counter()
        self._first_step_seconds: float | None = None
        self._wait_seconds = 0.0
        self._losses: list[Tensor] = []
        self._loss = float("nan")
        self.validation: ValidationResult | None = None
        self._checkpoint: int | None = None
        self._checkpoints_failed = 0
        self._notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for logger in self._loggers:
            logger.close()

    def note(self, *notes: str) -> None:
        """Add what a person should know; it is in every report from now on."""
        self._notes += notes

    def resumed(self, validation: ValidationResult | None) -> None:
        """Take over the newest result of an earlier life, which its loggers have been told."""
        self.validation = validation

    def checkpointed(self, saver: Saver) -> None:
        """Note how far checkpoints are."""
        self._checkpoint, self._checkpoints_failed = saver.newest, saver.failed

    def waited(self, seconds: float) -> None:
        """Count a wait for batches; the one before the first train step is not one."""
        if self._first_step_seconds is not None:
            self._wait_seconds += seconds

    def batch(self, losses: Float32[Tensor, " batch"], learner: Learner) -> None:
        """Note a batch, and report every so often."""
        if self._first_step_seconds is None:
            self._first_step_seconds = time.perf_counter() - self._begin
            self._loss = float(losses.detach().mean())
            self._say(learner)  # whoever wants to stop the training must know that it has begun
        self._losses.append(losses.detach())
        if learner.between_steps and learner.train_step % self._every == 0:
            self._report(learner)

    def validated(self, result: ValidationResult | None) -> None:
        """Note a validation result where there is one."""
        if result is None:
            return
        self.validation = result
        figures = {"validation/error": result.error}
        for kind, errors in (("validation", result.one_step), ("rollout", result.rollout)):
            for one in () if errors is None else errors.fields:
                figures |= {
                    f"{kind}/{one.name}/mse": one.mse,
                    f"{kind}/{one.name}/nrmse": one.nrmse,
                }
        self._tell(result.train_step, figures)

    def last(self, learner: Learner) -> TrainStats:
        """Report once more, and return what was reported."""
        return self._report(learner)

    def _report(self, learner: Learner) -> TrainStats:
        batches, now = len(self._losses), time.perf_counter()
        if self._losses:
            self._loss = float(torch.stack(self._losses).mean())
            self._losses.clear()
            rate = batches * self._samples_per_batch / (now - self._reported)
            self._tell(
                learner.train_step,
                {
                    "loss": self._loss,
                    "learning_rate": learner.learning_rate,
                    "samples_per_second": rate,
                    "wait_seconds": self._wait_seconds,
                },
            )
        self._reported = now
        return self._say(learner)

    def _say(self, learner: Learner) -> TrainStats:
        stats = TrainStats(
            rank=self._rank,
            train_step=learner.train_step,
            loss=self._loss,
            learning_rate=learner.learning_rate,
            wait_seconds=self._wait_seconds,
            first_step_seconds=self._first_step_seconds,
            validation=self.validation,
            checkpoint=self._checkpoint,
            checkpoints_failed=self._checkpoints_failed,
            notes=self._notes,
        )
        if self._watcher is not None:
            self._watcher(stats)
        return stats

    def _tell(self, train_step: int, figures: dict[str, float]) -> None:
        for logger in self._loggers:
            logger.log(train_step, figures)
