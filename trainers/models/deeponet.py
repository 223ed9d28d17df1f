"""A deep operator network: fields as sums of learnt basis functions.

``field[c](x) = bias[c] + sum over p of branch[c, p](numbers, input fields) * trunk[c, p](x)``

The trunk sees coordinates only, so it is evaluated once for a whole batch. Where the branch has no
hidden layer, the prediction is linear in numbers and input fields.

Source: Lu, Jin, Pang, Zhang, Karniadakis (2021), arXiv:1910.03193, unstacked with bias.
"""

import math
from typing import final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.configs.models import DeepONetConfig
from trainers.models.conditioning import ACTIVATIONS, coordinates, fully_connected


@final
class DeepONet(nn.Module):
    """Branch and trunk, each fully connected, meet in ``basis`` products for each channel."""

    def __init__(
        self,
        config: DeepONetConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, *grid = field_shape
        self._field_shape, self._basis = field_shape, config.basis
        every = slice(None, None, config.stride)
        self._looked_at = (slice(None), slice(None), *[every] * len(grid))
        looked_at = math.prod(-(-points // config.stride) for points in grid)
        terms = channels * config.basis
        self.branch = fully_connected(
            [num_inputs + given_channels * looked_at, *config.branch, terms], config.activation
        )
        self.trunk = nn.Sequential(
            *fully_connected([len(grid), *config.trunk, terms], config.activation),
            ACTIVATIONS[config.activation](),
        )
        self.bias = nn.Parameter(torch.zeros(channels, 1))
        points = coordinates(grid).flatten(1).T.contiguous()
        self.register_buffer("points", points, persistent=False)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        seen = given[self._looked_at].flatten(1)
        weights: Tensor = self.branch(torch.cat([numbers, seen], dim=1))
        functions: Tensor = self.trunk(self.get_buffer("points"))
        flat = torch.einsum(
            "bcp,ncp->bcn",
            weights.view(len(weights), -1, self._basis),
            functions.view(len(functions), -1, self._basis) * self._basis**-0.5,
        )
        return (flat + self.bias).view(-1, *self._field_shape)
