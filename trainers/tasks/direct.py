"""What is predicted from what: turns samples into a network's inputs and targets, and back.

Invariants of every task (``tests/contract/test_task_contract.py``):

1. The network sees normalised numbers only; predictions are in the fields' units.
   Seeds of random draws are not among its inputs; the input fields that they draw are.
2. ``losses`` has one number for each sample, of the fields that are predicted.
3. ``one_step`` puts a prediction beside its truth, for every sample.
4. What is given in is never written to.

Networks are called ``network(numbers, fields)``: ``(batch, n)`` and ``(batch, channel, *grid)``.
"""

from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from trainers.base import Problem
from trainers.configs.models import AnyModelConfig
from trainers.models.registry import build_model
from trainers.tasks.losses import Loss
from trainers.tasks.scaling import Scaling


class Compared(NamedTuple):
    """Predictions and what the solver says, in the fields' units."""

    prediction: Float32[Tensor, " batch snapshot channel *grid"]
    truth: Float32[Tensor, " batch snapshot channel *grid"]


@final
class Direct:
    """(parameters, time, input fields where there are any) -> fields.

    A window of w snapshots counts as w pairs of inputs and fields.
    """

    def __init__(
        self, loss: Loss, problem: Problem, scaling: Scaling, device: torch.device
    ) -> None:
        self.problem: Final = problem
        self.device: Final = device
        self._loss, self._scaling = loss, scaling
        self._parameters = len(problem.parameters)
        self._predicted = problem.num_predicted

    def network(self, config: AnyModelConfig) -> nn.Module:
        """A fresh network of the sizes that this task needs."""
        return build_model(
            config,
            num_inputs=len(self.problem.learnt) + 1,
            field_shape=self.problem.field_shape,
            given_channels=len(self.problem.input_fields),
        )

    def losses(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Float32[Tensor, " batch"]:
        """Loss of each sample, of normalised fields; those that are given count as inputs."""
        window = fields.shape[1]
        values = self._scaling.normalise(fields.flatten(0, 1))
        numbers = self._scaling.normalise_inputs(self._pairs(inputs, window))
        prediction = network(numbers, values[:, self._predicted :])
        loss = self._loss(prediction, values[:, : self._predicted])
        return loss if window == 1 else loss.view(-1, window).mean(1)

    def one_step(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Compared:
        """Every snapshot of the window."""
        prediction = self.predict(network, inputs, fields[:, :, self._predicted :])
        return Compared(prediction, fields[:, :, : self._predicted].float())

    def predict(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        given: Float[Tensor, " batch window given *grid"],
    ) -> Float32[Tensor, " batch window channel *grid"]:
        """Fields in their units, from inputs and input fields in theirs."""
        window = inputs.shape[1] - self._parameters
        numbers = self._scaling.normalise_inputs(self._pairs(inputs, window))
        prediction: Tensor = network(numbers, self._scaling.normalise_given(given.flatten(0, 1)))
        return self._scaling.to_physical(prediction).view(-1, window, *self.problem.field_shape)

    def _pairs(
        self, inputs: Float64[Tensor, " batch sample_inputs"], window: int
    ) -> Float64[Tensor, " pair inputs"]:
        """Parameters repeated for each time of the window."""
        if window == 1:
            return inputs
        parameters = inputs[:, None, :-window].expand(-1, window, -1)
        return torch.cat([parameters, inputs[:, -window:, None]], dim=2).flatten(0, 1)
