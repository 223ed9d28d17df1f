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


class WithBuffers(Scaled):
    """With a constant that is a view, kept in the weights, and a count that training changes."""

    def __init__(
        self, *, num_inputs: int, field_shape: tuple[int, ...], given_channels: int
    ) -> None:
        super().__init__(
            num_inputs=num_inputs, field_shape=field_shape, given_channels=given_channels, start=1.0
        )
        self.register_buffer("ones", torch.ones(1).expand(field_shape))
        self.register_buffer("column", torch.ones(1, 9).T, persistent=False)
        self.norm = nn.BatchNorm1d(num_inputs)

    def forward(self, numbers: Tensor, given: Tensor) -> Tensor:
        """As Scaled."""
        scale = self.get_buffer("ones") * self.get_buffer("column").mean()
        return super().forward(self.norm(numbers), given) * scale
