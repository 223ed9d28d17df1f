"""What is predicted from what: turns samples into a network's inputs and targets, and back.

Invariants (``tests/unit/test_trainer_tasks.py``):

1. The network sees normalised numbers only; ``predict`` takes and returns physical ones.
2. A window of w snapshots counts as w pairs of inputs and field.
3. What is given in is never written to.
"""

from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor, nn

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.losses import LOSSES, Loss
from trainers.state import Normalization


def build_task(
    config: TrainerConfig, problem: Problem, normalization: Normalization, device: torch.device
) -> "Direct":
    """The task that a study asks for."""
    assert config.task.kind == "direct"
    return Direct(LOSSES[config.loss], problem, normalization, device)


@final
class Direct:
    """(parameters, time) -> field."""

    def __init__(
        self, loss: Loss, problem: Problem, normalization: Normalization, device: torch.device
    ) -> None:
        def tensor(values: Float64[np.ndarray, " n"]) -> Float32[Tensor, " n"]:
            return torch.tensor(values, dtype=torch.float32, device=device)

        channels = (-1, *[1] * len(problem.shape))
        self.device: Final = device
        self.num_inputs: Final = len(problem.parameters) + 1
        self.field_shape: Final = problem.field_shape
        self._loss = loss
        self._field_offset = tensor(normalization.field_offset).view(channels)
        self._field_scale = tensor(normalization.field_scale).view(channels)
        self._input_offset = tensor(normalization.input_offset)
        self._input_scale = tensor(normalization.input_scale)

    def losses(
        self,
        network: nn.Module,
        inputs: Float32[Tensor, " batch sample_inputs"],
        fields: Float32[Tensor, " batch window channel *grid"],
    ) -> Float32[Tensor, " batch"]:
        """Loss of each sample, of normalised fields."""
        window = fields.shape[1]
        prediction = network(self._normalised(self._pairs(inputs, window)))
        truth = (fields.flatten(0, 1) - self._field_offset) / self._field_scale
        loss = self._loss(prediction, truth)
        return loss if window == 1 else loss.view(-1, window).mean(1)

    def predict(
        self, network: nn.Module, inputs: Float32[Tensor, " batch sample_inputs"]
    ) -> Float32[Tensor, " batch window channel *grid"]:
        """Fields in their units."""
        window = inputs.shape[1] - self.num_inputs + 1
        prediction: Tensor = network(self._normalised(self._pairs(inputs, window)))
        fields = prediction * self._field_scale + self._field_offset
        return fields.view(-1, window, *self.field_shape)

    def _pairs(
        self, inputs: Float32[Tensor, " batch sample_inputs"], window: int
    ) -> Float32[Tensor, " pair inputs"]:
        """Parameters repeated for each time of the window."""
        if window == 1:
            return inputs
        parameters = inputs[:, None, :-window].expand(-1, window, -1)
        return torch.cat([parameters, inputs[:, -window:, None]], dim=2).flatten(0, 1)

    def _normalised(
        self, inputs: Float32[Tensor, " pair inputs"]
    ) -> Float32[Tensor, " pair inputs"]:
        return (inputs - self._input_offset) / self._input_scale
