"""A fully connected network that yields the whole field at once.

Good where the field is smooth in its inputs and the grid is small: the last layer alone has
``hidden[-1] * channels * points`` weights.
"""

import math
from typing import Final, final

from jaxtyping import Float32
from torch import Tensor, nn

from trainers.config import MlpConfig

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


@final
class Mlp(nn.Module):
    """``inputs -> hidden[0] -> ... -> channel x grid``, an activation after each hidden layer."""

    def __init__(self, config: MlpConfig, *, num_inputs: int, field_shape: tuple[int, ...]) -> None:
        super().__init__()
        self._field_shape = field_shape
        activation = ACTIVATIONS[config.activation]
        layers: list[nn.Module] = []
        width = num_inputs
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), activation()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, math.prod(field_shape)))

    def forward(
        self, inputs: Float32[Tensor, " batch inputs"]
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        flat: Tensor = self.layers(inputs)
        return flat.view(-1, *self._field_shape)
