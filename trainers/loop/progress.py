"""What the errors of validations decide: when the learning rate drops, and when training stops.

A pure state machine over one number per validation. Ranks that are told the same numbers decide
alike (``LockStep.of_first``).

Invariants (``tests/unit/trainers/loop/test_progress.py``):

1. An error that is not finite decides nothing: it is neither lower nor waited for.
2. After ``patience`` validations in a row without a lower error, once; then it is counted anew.
3. Its state is plain JSON, and goes on where it was.
"""

import math
from typing import Any, final

from trainers.config import PlateauConfig, TrainerConfig


@final
class Patience:
    """Counts validations since the error was last lower.

    Args:
        patience: Validations without a lower error.
        min_delta: How much below the lowest so far an error must be to count as lower.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self._patience, self._min_delta = patience, min_delta
        self.lowest = math.inf
        self._without = 0

    def ends(self, error: float) -> bool:
        """Take in an error; whether it is the last that is waited for."""
        if not math.isfinite(error):
            return False
        if error < self.lowest - self._min_delta:
            self.lowest, self._without = error, 0
            return False
        self._without += 1
        if self._without < self._patience:
            return False
        self._without = 0
        return True

    def state(self) -> dict[str, Any]:
        """As JSON; there is no infinity in it."""
        lowest = None if math.isinf(self.lowest) else self.lowest
        return {"lowest": lowest, "without": self._without}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]
        self._without = state["without"]


@final
class Progress:
    """Plateau and early stop of one training.

    Attributes:
        factor: What the learning rate is multiplied with.
        stopped: Why training is over, once it is; None before.
    """

    def __init__(self, config: TrainerConfig) -> None:
        schedule, early = config.schedule, config.early_stop
        self._schedule = schedule if isinstance(schedule, PlateauConfig) else None
        self._early = early
        self._plateau = Patience(self._schedule.patience) if self._schedule else None
        self._end = Patience(early.patience, early.min_delta) if early else None
        self.factor = 1.0
        self.stopped: str | None = None

    def validated(self, error: float, train_step: int) -> None:
        """Take in the error of a validation; the same on all ranks."""
        if self._plateau and self._schedule and self._plateau.ends(error):
            self.factor *= self._schedule.drop
        if self._end and self._early and self._end.ends(error):
            self.stopped = (
                f"stopped early at train step {train_step}: in {self._early.patience} validations "
                f"the error was never more than {self._early.min_delta:g} below "
                f"{self._end.lowest:.4g} (trainer.early_stop)"
            )

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "factor": self.factor,
            "stopped": self.stopped,
            "plateau": self._plateau.state() if self._plateau else None,
            "end": self._end.state() if self._end else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the state of a training with the same settings."""
        self.factor, self.stopped = state["factor"], state["stopped"]
        for patience, kept in ((self._plateau, state["plateau"]), (self._end, state["end"])):
            if patience is not None and kept is not None:
                patience.restore(kept)
