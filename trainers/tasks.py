"""What is predicted from what: turns samples into a network's inputs and targets, and back.

Invariants (``tests/unit/test_trainer_tasks.py``):

1. The network sees normalised numbers only; ``predict`` takes and returns physical ones.
   Seeds of random draws are not among them; the input fields that they draw are.
2. A window of w snapshots counts as w pairs of inputs and field.
3. What is given in is never written to.
"""

from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.losses import LOSSES, Loss
from trainers.model_config import AnyModelConfig
from trainers.models import build_model
from trainers.state import Normalization


def build_task(
    config: TrainerConfig, problem: Problem, normalization: Normalization, device: torch.device
) -> "Direct":
    """The task that a study asks for."""
    assert config.task.kind == "direct"
    return Direct(LOSSES[config.loss], problem, normalization, device)


@final
class Direct:
    """(parameters, time, input fields where there are any) -> fields."""

    def __init__(
        self, loss: Loss, problem: Problem, normalization: Normalization, device: torch.device
    ) -> None:
        def tensor(values: Float64[np.ndarray, " n"]) -> Float32[Tensor, " n"]:
            return torch.tensor(values, dtype=torch.float32, device=device)

        channels = (-1, *[1] * len(problem.shape))  # broadcast over a batch of fields
        self.device: Final = device
        self.problem: Final = problem
        self.num_inputs: Final = len(problem.learnt) + 1
        self.field_shape: Final = problem.field_shape
        self._parameters = len(problem.parameters)
        seen = [place for place, each in enumerate(problem.parameters) if each.learnt]
        self._seen = None if len(seen) == self._parameters else [*seen, self._parameters]
        self._loss = loss
        self._field_offset = tensor(normalization.field_offset).view(channels)
        self._field_scale = tensor(normalization.field_scale).view(channels)
        self._input_offset = tensor(normalization.input_offset)
        self._input_scale = tensor(normalization.input_scale)

    def network(self, config: AnyModelConfig) -> nn.Module:
        """A fresh network of the sizes that this task needs."""
        return build_model(
            config,
            num_inputs=self.num_inputs,
            field_shape=self.field_shape,
            given_channels=len(self.problem.input_fields),
        )

    def losses(
        self,
        network: nn.Module,
        inputs: Float32[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Float32[Tensor, " batch"]:
        """Loss of each sample, of normalised fields; those that are given count as inputs."""
        window, predicted = fields.shape[1], self.field_shape[0]
        values = (fields.flatten(0, 1).float() - self._field_offset) / self._field_scale
        numbers = self._normalised(self._pairs(inputs, window))
        loss = self._loss(network(numbers, values[:, predicted:]), values[:, :predicted])
        return loss if window == 1 else loss.view(-1, window).mean(1)

    def predict(
        self,
        network: nn.Module,
        inputs: Float32[Tensor, " batch sample_inputs"],
        given: Float[Tensor, " batch window given *grid"],
    ) -> Float32[Tensor, " batch window channel *grid"]:
        """Fields in their units, from inputs and input fields in theirs."""
        window, predicted = inputs.shape[1] - self._parameters, self.field_shape[0]
        offset, scale = self._field_offset, self._field_scale
        values = (given.flatten(0, 1).float() - offset[predicted:]) / scale[predicted:]
        prediction: Tensor = network(self._normalised(self._pairs(inputs, window)), values)
        fields = prediction * scale[:predicted] + offset[:predicted]
        return fields.view(-1, window, *self.field_shape)

    def _pairs(
        self, inputs: Float32[Tensor, " batch sample_inputs"], window: int
    ) -> Float32[Tensor, " pair inputs"]:
        """Parameters repeated for each time of the window."""
        if window == 1:
            return inputs
        parameters = inputs[:, None, :-window].expand(-1, window, -1)
        return torch.cat([parameters, inputs[:, -window:, None]], dim=2).flatten(0, 1)

    def _normalised(self, inputs: Float32[Tensor, " pair inputs"]) -> Float32[Tensor, " pair seen"]:
        numbers = (inputs - self._input_offset) / self._input_scale
        return numbers if self._seen is None else numbers[:, self._seen]
