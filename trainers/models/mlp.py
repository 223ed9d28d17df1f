"""A fully connected network that yields the whole field at once.

Good where the field is smooth in its inputs and the grid is small: the last layer alone has
``hidden[-1] * channels * points`` weights.
"""

import math
from typing import final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.configs.models import MlpConfig
from trainers.models.conditioning import ACTIVATIONS


@final
class Mlp(nn.Module):
    """``inputs -> hidden[0] -> ... -> channel x grid``, an activation after each hidden layer.

    Input fields are flattened and stand behind the numbers.
    """

    def __init__(
        self,
        config: MlpConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        self._field_shape = field_shape
        activation = ACTIVATIONS[config.activation]
        layers: list[nn.Module] = []
        width = num_inputs + given_channels * math.prod(field_shape[1:])
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), activation()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, math.prod(field_shape)))

    def forward(
        self,
        inputs: Float32[Tensor, " batch inputs"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        everything = torch.cat([inputs, given.flatten(1)], dim=1) if given.shape[1] else inputs
        flat: Tensor = self.layers(everything)
        return flat.view(-1, *self._field_shape)
