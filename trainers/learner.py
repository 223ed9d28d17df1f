"""One train step of the weights: gradient, finite check, learning rate, optimiser.

Invariants (``tests/unit/test_trainer_learner.py``):

1. A train step with a loss or gradient that is not finite never changes the weights.
2. It raises ``TrainingDiverged`` on every rank, whichever rank's batch it came from.
3. The learning rate of train step n is ``optimizer.lr`` times the schedule's factor for n.
4. A learner that takes over the state of another goes on bit by bit as that one would.

On a GPU the check must not wait for the device in each step: the optimiser is told on the device to
skip the step (as gradient scalers do), and the host reads the flag ``LAG`` train steps later.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.base import TrainingDiverged
from trainers.config import OptimizerConfig, TrainerConfig

LAG: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerState:
    """All that a learner knows besides the weights.

    Attributes:
        tensors: By name, as safetensors keeps them.
        facts: Plain JSON.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@final
class Learner:
    """Owns the optimiser of one network."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainerConfig,
        *,
        expected_steps: int | None = None,
        lag: int | None = None,
    ) -> None:
        self._weights = [each for each in model.parameters() if each.requires_grad]
        self._optimizer = _optimizer(self._weights, config.optimizer)
        self._config = config
        self._expected_steps = expected_steps
        on_gpu = self._weights[0].device.type == "cuda"
        self._lag = lag if lag is not None else LAG if on_gpu else 0
        self._flags: deque[tuple[int, Tensor, Tensor]] = deque()
        self.train_step = 0

    @property
    def learning_rate(self) -> float:
        """Of the next train step."""
        factor = self._config.schedule.factor(self.train_step, self._expected_steps)
        return self._config.optimizer.lr * factor

    def step(self, losses: Float32[Tensor, " batch"]) -> None:
        """Change the weights by the gradient of the mean loss.

        Raises:
            TrainingDiverged: The loss or a gradient is not finite, in this train step or, on a GPU,
                in one of the last few.
        """
        self._optimizer.zero_grad(set_to_none=True)
        mean = losses.mean()
        # Times nan where the loss is not finite: that reaches all ranks with the gradient.
        torch.autograd.backward(mean, grad_tensors=mean.detach() * 0.0 + 1.0)
        norm = self._gradient_norm()
        self._check(mean.detach(), norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.step()
        self.train_step += 1

    def check(self) -> None:
        """Read the flags of all train steps so far.

        Raises:
            TrainingDiverged: One of them was not finite.
        """
        while self._flags:
            self._read_flag()

    def state_dict(self) -> LearnerState:
        """A copy of the state, between two train steps."""
        tensors = {
            f"optimizer.{index}.{name}": value
            for index, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        return LearnerState(
            tensors={name: value.detach().clone() for name, value in tensors.items()},
            facts={"train_step": self.train_step},
        )

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from the state of a learner with the same settings and weights."""
        optimizer: dict[int, dict[str, Tensor]] = {}
        for path, value in state.tensors.items():
            _, index, name = path.split(".", 2)
            optimizer.setdefault(int(index), {})[name] = value.clone()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        self.train_step = state.facts["train_step"]

    def _gradient_norm(self) -> Tensor:
        if self._config.gradient_clip is not None:
            return nn.utils.clip_grad_norm_(self._weights, self._config.gradient_clip)
        gradients = [each.grad for each in self._weights if each.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def _check(self, loss: Tensor, norm: Tensor) -> None:
        self._flags.append((self.train_step, loss, norm))
        if self._lag:
            self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        while len(self._flags) > self._lag:
            self._read_flag()

    def _read_flag(self) -> None:
        train_step, loss, norm = self._flags.popleft()
        if not norm.isfinite():
            kind = self._config.optimizer.kind
            raise TrainingDiverged(
                f"train step {train_step}: loss={loss:g}, gradient norm={norm:g}, and both must be "
                f"finite. Lower trainer.optimizer.lr={self._config.optimizer.lr:g} ({kind}), set "
                "trainer.gradient_clip or a schedule with warmup_steps, and look for extreme "
                "values in the fields"
            )


def _optimizer(weights: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    # Fused: 0.6 ms instead of 3 ms for a million weights on one core, and it can skip a step.
    return kind(weights, lr=config.lr, weight_decay=config.weight_decay, fused=True)
