"""A U-shaped neural operator: Fourier layers on grids of half, a quarter, ... of the points.

On the way down the grid is halved and the features are doubled; on the way up they are interpolated
and put beside those of the finer grid. An odd axis of n points is halved to (n + 1) / 2.

Source: Rahman, Ross, Azizzadenesheli (2022), arXiv:2204.11127, of Fourier layers of the library
neuraloperator. Its own class for the whole network changes grids inside of a spectral convolution,
which there moves negative modes of all axes but the last; here that is done between the layers.
"""

from typing import final

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from trainers.configs.model_checks import halved, kept_modes
from trainers.configs.models import UnoConfig
from trainers.models.conditioning import Film, Inputs, modulated
from trainers.models.spectral import channel_mlp, fourier_layers, resampled


@final
class Uno(nn.Module):
    """Lifting, one Fourier layer per grid on the way down and on the way up, projection."""

    def __init__(
        self,
        config: UnoConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, *grid = field_shape
        self._grids = [halved(grid, level) for level in range(config.depth + 1)]
        widths = [config.channels * 2**level for level in range(config.depth + 1)]
        modes = [kept_modes(config.n_modes, each) for each in self._grids]
        self.inputs = Inputs(
            config.conditioning, num_inputs=num_inputs, given_channels=given_channels, grid=grid
        )
        self.lifting = channel_mlp(self.inputs.channels, 2 * widths[0], widths[0])
        self.down = nn.ModuleList(
            fourier_layers(widths[max(0, level - 1)], width, modes=modes[level])
            for level, width in enumerate(widths)
        )
        self.up = nn.ModuleList(
            fourier_layers(widths[level] + widths[level + 1], widths[level], modes=modes[level])
            for level in reversed(range(config.depth))
        )
        self.film = Film(num_inputs, widths + widths[-2::-1]) if self.inputs.film else None
        self.projection = channel_mlp(widths[0], 2 * widths[0], channels)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        by = [None] * len(self._grids) * 2 if self.film is None else list(self.film(numbers))
        features: Tensor = self.lifting(self.inputs(numbers, given))
        finer: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(resampled(features, self._grids[level]))
            features = functional.gelu(modulated(features, by[level]))
            finer.append(features)
        finer.pop()
        for place, block in enumerate(self.up, start=len(self.down)):
            beside = finer.pop()
            features = block(torch.cat([resampled(features, beside.shape[2:]), beside], dim=1))
            features = functional.gelu(modulated(features, by[place]))
        prediction: Tensor = self.projection(features)
        return prediction
