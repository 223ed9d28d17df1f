"""A network as a user writes it, for the tests of the model contract."""

import math

import torch
from torch import Tensor, nn


class Scaled(nn.Module):
    """Linear in everything, times a learnt factor."""

    def __init__(
        self, *, num_inputs: int, field_shape: tuple[int, ...], given_channels: int, start: float
    ) -> None:
        super().__init__()
        self.field_shape = field_shape
        width = num_inputs + given_channels * math.prod(field_shape[1:])
        self.layer = nn.Linear(width, math.prod(field_shape))
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, numbers: Tensor, given: Tensor) -> Tensor:
        flat: Tensor = self.layer(torch.cat([numbers, given.flatten(1)], dim=1))
        return flat.view(-1, *self.field_shape) * self.factor
