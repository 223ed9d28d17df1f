"""One train step of the weights: gradient, finite check, learning rate, optimiser.

A train step is one change of the weights. Its gradient is the mean over a group of ``accumulate``
batches of this rank, and over the ranks; with 1 a group is a batch.

Invariants (``tests/unit/trainers/loop/test_learner.py``):

1. A train step with a loss or gradient that is not finite never changes the weights.
2. It raises ``TrainingDiverged`` on every rank, whichever rank's batch it came from. In float16 it
   is first tried with smaller and smaller gradients, down to a scale of 1.
3. The learning rate of train step n is ``optimizer.lr`` times the schedule's factor for n.
4. A group that the end of the stream cuts short counts as the mean of the batches it has.
5. A learner that takes over the state of another goes on bit by bit as that one would.

On a GPU the check must not wait for the device in each step: the optimiser is told on the device to
skip the step (as gradient scalers do), and the host reads the flag ``LAG`` train steps later.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.base import TrainingDiverged
from trainers.config import OptimizerConfig, TrainerConfig
from trainers.loop.averaging import Average
from trainers.loop.progress import Progress

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


class _Flag(NamedTuple):
    """What the host reads later of a train step."""

    train_step: int
    loss: Tensor
    norm: Tensor
    scale: Tensor | None


@final
class Learner:
    """Owns the optimiser of one network.

    Attributes:
        train_step: Train steps so far; in float16 those that were skipped count, too.
        progress: What validations decide.
        last_step: Train step to end at, once nothing more will come; None before that is known.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainerConfig,
        *,
        expected_steps: int | None = None,
        lag: int | None = None,
    ) -> None:
        self._model = model
        self._weights = [each for each in model.parameters() if each.requires_grad]
        self._optimizer = _optimizer(self._weights, config.optimizer)
        self._config = config
        self._expected_steps = expected_steps
        device = self._weights[0].device.type
        self._scaler = torch.amp.GradScaler(device) if config.precision == "float16" else None
        self._average = None if config.ema is None else Average(model, config.ema)
        self._lag = lag if lag is not None else LAG if device == "cuda" else 0
        self._flags: deque[_Flag] = deque()
        self._group: list[Tensor] = []  # mean losses of its batches so far
        self.train_step = 0
        self.progress = Progress(config)
        self.last_step: int | None = None

    @property
    def learning_rate(self) -> float:
        """Of the next train step."""
        factor = self._config.schedule.factor(self.train_step, self._expected_steps)
        return self._config.optimizer.lr * factor * self.progress.factor

    @property
    def result(self) -> nn.Module:
        """The network to validate and export: with averaged weights where they are averaged."""
        return self._model if self._average is None else self._average.model

    @property
    def completes_group(self) -> bool:
        """Whether the batch to come is the last of its group."""
        return len(self._group) + 1 == self._config.accumulate

    @property
    def between_steps(self) -> bool:
        """Whether no group has begun."""
        return not self._group

    def batches_for(self, steps: int) -> int:
        """Batches that so many further train steps take, the begun group included."""
        return steps * self._config.accumulate - len(self._group)

    def whole_steps(self, batches: int) -> int:
        """Of so many batches those that end with a train step; all of them where none does."""
        beyond = (len(self._group) + batches) % self._config.accumulate
        return batches - beyond if beyond < batches else batches

    def learn(self, losses: Float32[Tensor, " batch"]) -> None:
        """Take in a batch; the last of its group changes the weights.

        Raises:
            TrainingDiverged: The loss or a gradient is not finite, in this train step or, on a GPU,
                in one of the last few.
        """
        if self.between_steps:
            self._optimizer.zero_grad(set_to_none=True)
        mean = losses.mean()
        # Times nan where the loss is not finite: that reaches all ranks with the gradient.
        weight = (mean.detach() * 0.0 + 1.0) / self._config.accumulate
        if self._scaler is not None:
            weight = self._scaler.scale(weight)
        torch.autograd.backward(mean, grad_tensors=weight)
        self._group.append(mean.detach())
        if len(self._group) == self._config.accumulate:
            self._step()

    def finish(self, average: Callable[[Sequence[Tensor]], None]) -> None:
        """End the training: with a last train step of the group that was cut short, if any.

        Args:
            average: Averages gradients over the ranks, in place, as its last batch would have.

        Raises:
            TrainingDiverged: A train step was not finite.
        """
        if self._group:
            gradients = self._gradients()
            torch._foreach_mul_(gradients, self._config.accumulate / len(self._group))
            average(gradients)
            self._step()
        self.check()

    def check(self) -> None:
        """Read what the device has said of all train steps so far.

        Raises:
            TrainingDiverged: One of them was not finite.
        """
        while self._flags:
            self._read_flag()

    def state_dict(self) -> LearnerState:
        """A copy of the state, between two train steps."""
        if not self.between_steps:
            raise ValueError(f"{len(self._group)} batches of a train step are taken in: finish it")
        tensors = {
            f"optimizer.{index}.{name}": value
            for index, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        if self._average is not None:
            kept = self._average.model.state_dict().items()
            tensors |= {f"average.{name}": value for name, value in kept}
        return LearnerState(
            tensors={name: value.detach().clone() for name, value in tensors.items()},
            facts={
                "train_step": self.train_step,
                "averaged": None if self._average is None else self._average.updates,
                "scaler": None if self._scaler is None else self._scaler.state_dict(),
                "progress": self.progress.state(),
                "last_step": self.last_step,
            },
        )

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from the state of a learner with the same settings and weights."""
        optimizer: dict[int, dict[str, Tensor]] = {}
        average: dict[str, Tensor] = {}
        for path, value in state.tensors.items():
            part, name = path.split(".", 1)
            if part == "average":
                average[name] = value
            else:
                index, name = name.split(".", 1)
                optimizer.setdefault(int(index), {})[name] = value.clone()
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        if self._average is not None:
            self._average.model.load_state_dict(average)
            self._average.updates = state.facts["averaged"]
        if self._scaler is not None:
            self._scaler.load_state_dict(state.facts["scaler"])
        self.progress.restore(state.facts["progress"])
        self.train_step = state.facts["train_step"]
        self.last_step = state.facts["last_step"]

    def _step(self) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        self._note(torch.stack(self._group).mean(), self._gradient_norm())
        self._group.clear()
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        if self._scaler is not None:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        if self._average is not None:
            self._average.update()
        self.train_step += 1

    def _gradients(self) -> list[Tensor]:
        return [each.grad for each in self._weights if each.grad is not None]

    def _gradient_norm(self) -> Tensor:
        if self._config.gradient_clip is not None:
            return nn.utils.clip_grad_norm_(self._weights, self._config.gradient_clip)
        return nn.utils.get_total_norm(self._gradients())

    def _note(self, loss: Tensor, norm: Tensor) -> None:
        # Times one, because the scaler changes its scale in place.
        scale = None if self._scaler is None else self._scaler.scale(torch.ones_like(loss))
        self._flags.append(_Flag(self.train_step, loss, norm, scale))
        if self._lag and self._scaler is None:
            self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        while len(self._flags) > self._lag:
            self._read_flag()

    def _read_flag(self) -> None:
        train_step, loss, norm, scale = self._flags.popleft()
        if norm.isfinite() or (scale is not None and scale > 1.0):
            return
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
