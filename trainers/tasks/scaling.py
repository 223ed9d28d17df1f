"""Between physical numbers and those that a network sees, on the device of the network.

1. ``to_physical`` undoes ``normalise_predicted``.
2. Seeds of random draws are taken out: a network does not see them.
3. Inputs are float64 until they are normalised: a narrow range far from zero keeps its values.
"""

from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from trainers.base import Problem
from trainers.tasks.normalization import Normalization


@final
class Scaling:
    """The normalisation of one problem, as tensors that broadcast over a batch.

    Attributes:
        change: Root mean square change from snapshot to snapshot, in normalised units.
    """

    def __init__(
        self, problem: Problem, normalization: Normalization, device: torch.device
    ) -> None:
        def tensor(values: Float64[np.ndarray, " n"]) -> Float32[Tensor, " n"]:
            return torch.tensor(values, dtype=torch.float32, device=device)

        channels, predicted = (-1, *[1] * len(problem.shape)), problem.num_predicted
        self._offset = tensor(normalization.field_offset).view(channels)
        self._scale = tensor(normalization.field_scale).view(channels)
        self._input_offset = torch.tensor(normalization.input_offset, device=device)
        self._input_scale = torch.tensor(normalization.input_scale, device=device)
        logs = [each.log for each in (*problem.parameters, problem.time)]
        self._logs = torch.tensor(logs, device=device) if any(logs) else None
        self._predicted = predicted
        self._seen = [i for i, each in enumerate(problem.parameters) if each.learnt]
        self._sees_all = len(self._seen) == len(problem.parameters)
        self._seen.append(len(problem.parameters))  # the time
        change = normalization.step_scale[:predicted] / normalization.field_scale[:predicted]
        self.change: Final = tensor(change).view(channels)

    def normalise(
        self, values: Float[Tensor, " batch channel *grid"]
    ) -> Float32[Tensor, " batch channel *grid"]:
        """All channels, predicted and given ones."""
        return (values.float() - self._offset) / self._scale

    def normalise_predicted(
        self, values: Float[Tensor, " *batch_channel_grid"]
    ) -> Float32[Tensor, " *batch_channel_grid"]:
        """The predicted channels alone."""
        kept = self._predicted
        return (values.float() - self._offset[:kept]) / self._scale[:kept]

    def normalise_given(
        self, values: Float[Tensor, " batch given *grid"]
    ) -> Float32[Tensor, " batch given *grid"]:
        """The input fields alone."""
        kept = self._predicted
        return (values.float() - self._offset[kept:]) / self._scale[kept:]

    def to_physical(
        self, values: Float32[Tensor, " *batch_channel_grid"]
    ) -> Float32[Tensor, " *batch_channel_grid"]:
        """Predicted channels in their units."""
        return values * self._scale[: self._predicted] + self._offset[: self._predicted]

    def normalise_inputs(
        self, inputs: Float64[Tensor, " batch inputs"]
    ) -> Float32[Tensor, " batch seen"]:
        """Parameters that are learnt, and the time.

        Args:
            inputs: All parameters and one time.
        """
        if self._logs is not None:
            # 1 for the others: a logarithm that nobody uses must not spoil their gradients.
            logarithms = torch.where(self._logs, inputs, 1.0).log()
            inputs = torch.where(self._logs, logarithms, inputs)
        numbers = ((inputs - self._input_offset) / self._input_scale).float()
        return numbers if self._sees_all else numbers[:, self._seen]
