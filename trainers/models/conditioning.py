"""How numbers and places enter a network that works on grids.

Invariants (``tests/unit/trainers/models/test_conditioning.py``):

1. Coordinates run from -1 to 1 along each axis, whatever its length; an axis of one point is at 0.
2. With ``channels`` each number is a channel of constant value; with ``film`` none is, and every
   block's features are scaled and shifted instead (arXiv:1709.07871).
3. Nothing here depends on values: shapes are known when the network is built.
"""

import itertools
from collections.abc import Sequence
from typing import Final, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

FILM_WIDTH: Final = 64  # hidden layer of the MLP behind scales and shifts


def coordinates(grid: Sequence[int]) -> Float32[Tensor, " axes *grid"]:
    """Where each point is, from -1 to 1 along each axis."""
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def fully_connected(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers from each width to the next, an activation between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


@final
class Inputs(nn.Module):
    """Input fields, coordinates and, unless there is ``film``, numbers as channels on the grid.

    Attributes:
        channels: How many there are.
        film: Whether numbers are to enter by ``Film``.
    """

    def __init__(
        self, conditioning: str, *, num_inputs: int, given_channels: int, grid: Sequence[int]
    ) -> None:
        super().__init__()
        self._grid = tuple(grid)
        self.film: Final = conditioning == "film" and num_inputs > 0
        self.channels: Final = given_channels + len(grid) + (0 if self.film else num_inputs)
        self.register_buffer("coordinates", coordinates(grid), persistent=False)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """All channels of the network's first layer."""
        where: Tensor = self.get_buffer("coordinates")
        parts = [given, where.expand(numbers.shape[0], *where.shape)]
        if not self.film:
            constant = numbers.view(*numbers.shape, *[1] * len(self._grid))
            parts.append(constant.expand(*numbers.shape, *self._grid))
        return torch.cat(parts, dim=1)


@final
class Film(nn.Module):
    """A scale and a shift of each feature of each block, from the numbers by a small MLP."""

    def __init__(self, num_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self._widths = [2 * width for width in widths]
        self.layers = fully_connected([num_inputs, FILM_WIDTH, sum(self._widths)], "silu")

    def forward(self, numbers: Float32[Tensor, " batch numbers"]) -> tuple[Tensor, ...]:
        """Scales and shifts of each block, for ``modulated``."""
        scales_and_shifts: Tensor = self.layers(numbers)
        return torch.split(scales_and_shifts, self._widths, dim=1)


def modulated(
    features: Float32[Tensor, " batch feature *grid"],
    by: Float32[Tensor, " batch twice_feature"] | None,
) -> Float32[Tensor, " batch feature *grid"]:
    """``features * (1 + scale) + shift``, or the features where there is nothing to do it by."""
    if by is None:
        return features
    scale, shift = by.view(*by.shape, *[1] * (features.ndim - 2)).chunk(2, dim=1)
    return torch.addcmul(features + shift, features, scale)
