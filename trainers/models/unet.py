"""A U-Net in one, two or three dimensions, for grids of any size.

Features are averaged to grids of half the points, changed there, interpolated back and put beside
those of the finer grid. An axis of n points is halved to ceil(n / 2), so that no size is excluded;
the way up ends on exactly the grids of the way down.

Each block is two convolutions of 3 points per axis; one scale and shift (``film``) lies between.

Source: Ronneberger, Fischer, Brox (2015), arXiv:1505.04597, with addition of coordinates.
"""

from typing import Final, Literal, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from trainers.configs.model_checks import halved
from trainers.configs.models import UnetConfig
from trainers.models.conditioning import ACTIVATIONS, Film, Inputs, modulated

_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AVERAGES: Final = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
_INTERPOLATIONS: Final = ("linear", "bilinear", "trilinear")


@final
class Unet(nn.Module):
    """``depth`` halvings, with twice the features after each."""

    def __init__(
        self,
        config: UnetConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, *grid = field_shape
        axes = len(grid)
        self._grids = [halved(grid, level) for level in range(config.depth + 1)]
        self._periodic = config.periodic
        self._average, self._interpolation = _AVERAGES[axes - 1], _INTERPOLATIONS[axes - 1]
        self.inputs = Inputs(
            config.conditioning, num_inputs=num_inputs, given_channels=given_channels, grid=grid
        )
        widths = [config.channels * 2**level for level in range(config.depth + 1)]
        before = [self.inputs.channels, *widths[:-1]]
        self.down = nn.ModuleList(
            _Block(config, axes, source, width)
            for source, width in zip(before, widths, strict=True)
        )
        self.up = nn.ModuleList(
            _Block(config, axes, coarse + fine, fine)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.film = Film(num_inputs, widths + widths[-2::-1]) if self.inputs.film else None
        self.last = _CONVOLUTIONS[axes - 1](widths[0], channels, 1)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        by = [None] * len(self._grids) * 2 if self.film is None else list(self.film(numbers))
        features: Tensor = self.inputs(numbers, given)
        finer: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                features = self._halve(features)
            features = block(features, by[level])
            finer.append(features)
        finer.pop()
        for place, block in enumerate(self.up, start=len(self.down)):
            beside = finer.pop()
            features = functional.interpolate(
                features, size=beside.shape[2:], mode=self._interpolation, align_corners=False
            )
            features = block(torch.cat([features, beside], dim=1), by[place])
        prediction: Tensor = self.last(features)
        return prediction

    def _halve(self, features: Tensor) -> Tensor:
        """Averages of two points; the last point of an odd axis stands for itself."""
        return self._average(features, 2, ceil_mode=True, count_include_pad=False)


@final
class _Block(nn.Module):
    """Two convolutions, each with a normalisation and an activation behind it."""

    def __init__(self, config: UnetConfig, axes: int, source: int, width: int) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[axes - 1]
        padding: Literal["circular", "zeros"] = "circular" if config.periodic else "zeros"
        self.first = convolution(source, width, 3, padding=1, padding_mode=padding)
        self.second = convolution(width, width, 3, padding=1, padding_mode=padding)
        grouped = config.norm == "group"
        self.norms = nn.ModuleList(
            nn.GroupNorm(1, width) if grouped else nn.Identity() for _ in range(2)
        )
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, features: Tensor, by: Tensor | None) -> Tensor:
        features = self.activation(modulated(self.norms[0](self.first(features)), by))
        result: Tensor = self.activation(self.norms[1](self.second(features)))
        return result
