"""Fourier neural operators, dense (fno) and with weights in Tucker form (tfno).

A lifting MLP at each point, Fourier layers, a projecting MLP. A Fourier layer multiplies the lowest
modes of its features by learnt weights, and adds a linear map and an MLP at each point. It sees the
whole domain at once, as periodic: where it is not, ``domain_padding`` keeps its ends apart.

Sources: Li et al. (2021), arXiv:2010.08895; Kossaifi et al. (2023), arXiv:2310.00120. Widths of
lifting and projection are those of the library neuraloperator: twice the features.
"""

from typing import final

from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from trainers.configs.model_checks import kept_modes
from trainers.configs.models import FnoConfig, TfnoConfig
from trainers.models.conditioning import Film, Inputs, modulated
from trainers.models.spectral import channel_mlp, fourier_layers


@final
class Fno(nn.Module):
    """Lifting, ``layers`` Fourier layers, projection."""

    def __init__(
        self,
        config: FnoConfig | TfnoConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, *grid = field_shape
        width = config.channels
        zeros = [round(config.domain_padding * points) for points in grid]
        self._padding = [each for count in reversed(zeros) for each in (0, count)]
        self._field = (slice(None), slice(None), *(slice(None, points) for points in grid))
        self._layers = config.layers
        self.inputs = Inputs(
            config.conditioning, num_inputs=num_inputs, given_channels=given_channels, grid=grid
        )
        self.lifting = channel_mlp(self.inputs.channels, 2 * width, width)
        self.blocks = fourier_layers(
            width,
            width,
            modes=kept_modes(config.n_modes, grid),
            layers=config.layers,
            tucker_rank=config.rank if isinstance(config, TfnoConfig) else None,
        )
        self.film = Film(num_inputs, [width] * config.layers) if self.inputs.film else None
        self.projection = channel_mlp(width, 2 * width, channels)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        by = [None] * self._layers if self.film is None else self.film(numbers)
        features: Tensor = self.lifting(self.inputs(numbers, given))
        if any(self._padding):
            features = functional.pad(features, self._padding)
        for layer in range(self._layers):
            features = modulated(self.blocks(features, layer), by[layer])
        prediction: Tensor = self.projection(features[self._field])
        return prediction
