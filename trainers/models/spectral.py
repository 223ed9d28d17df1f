"""The parts that Fourier neural operators are put together of, from the library neuraloperator.

The only importer of that library. Its blocks, channel MLPs, initial values and Tucker ranks are
used as they are; its spectral convolution is replaced in two respects (checked for 2.0.0):

1. The library ends with ``fftshift`` where the inverse is ``ifftshift``. The two differ along axes
   with an odd number of points, where its layer was no convolution any more.
2. Its weights are complex, and PyTorch's fused Adam takes real ones only. Here they are kept as
   pairs of real numbers, and seen as complex while they are used.
"""

import string
import warnings
from collections.abc import Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn

with warnings.catch_warnings():  # on import the library changes which warnings are shown
    from neuralop.layers.channel_mlp import ChannelMLP
    from neuralop.layers.fno_block import FNOBlocks
    from neuralop.layers.resample import resample
    from neuralop.layers.spectral_convolution import SpectralConv as LibrarySpectralConv


@final
class SpectralConv(LibrarySpectralConv):  # type: ignore[misc]
    """A convolution whose kernel has few Fourier modes, for FNOBlocks of the library.

    Modes are kept symmetrically around the constant one; with an even number of them along an axis
    there is one more on the negative side.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._kept: Final = tuple(self.max_n_modes)
        tucker = self.factorization is not None
        parts = [_complex(each) for each in self.weight.parameters()]
        del self.weight, self._contract
        self.parts = nn.ParameterList(torch.view_as_real(part.detach()).clone() for part in parts)
        self._equation = _equation(self.order, tucker=tucker)

    def forward(self, features: Tensor, output_shape: Sequence[int] | None = None) -> Tensor:
        """Fields of the same grid; ``output_shape`` may only name that."""
        grid, axes = features.shape[2:], tuple(range(-self.order, 0))
        assert output_shape is None or tuple(output_shape) == tuple(grid)
        spectrum = torch.fft.rfftn(features, dim=axes, norm="forward")
        if self.order > 1:
            spectrum = torch.fft.fftshift(spectrum, dim=axes[:-1])
        kept = (slice(None), slice(None), *self._slices(grid))
        weights = [torch.view_as_complex(part) for part in self.parts]
        changed = torch.zeros(
            (len(features), self.out_channels, *spectrum.shape[2:]),
            dtype=spectrum.dtype,
            device=spectrum.device,
        )
        changed[kept] = torch.einsum(self._equation, spectrum[kept], *weights)
        if self.order > 1:
            changed = torch.fft.ifftshift(changed, dim=axes[:-1])
        fields: Tensor = torch.fft.irfftn(changed, s=grid, dim=axes, norm="forward")
        if self.bias is not None:
            fields = fields + self.bias
        return fields

    def _slices(self, grid: Sequence[int]) -> list[slice]:
        """Where the kept modes lie, with the constant one in the middle of each shifted axis."""
        both = [
            slice(points // 2 - modes // 2, points // 2 - modes // 2 + modes)
            for points, modes in zip(grid[:-1], self._kept[:-1], strict=True)
        ]
        return [*both, slice(None, self._kept[-1])]


def _complex(weight: Tensor) -> Tensor:
    return weight if weight.is_complex() else torch.view_as_complex(weight)


def _equation(axes: int, *, tucker: bool) -> str:
    """Einsum of a spectrum with dense weights, or with a Tucker core and its factors.

    Dense, in two dimensions: ``BIxy,IOxy->BOxy``; Tucker: ``BIxy,abcd,Ia,Ob,xc,yd->BOxy``.
    """
    places = string.ascii_lowercase[-axes:]
    spectrum, result = f"BI{places}", f"BO{places}"
    if not tucker:
        return f"{spectrum},IO{places}->{result}"
    core = string.ascii_lowercase[: axes + 2]
    factors = [f"{mode}{rank}" for mode, rank in zip(f"IO{places}", core, strict=True)]
    return f"{spectrum},{core},{','.join(factors)}->{result}"


def fourier_layers(
    source: int,
    width: int,
    *,
    modes: Sequence[int],
    layers: int = 1,
    tucker_rank: float | None = None,
) -> nn.Module:
    """Fourier layers of the library, called with features and the number of the layer.

    The last of them has no activation behind it.
    """
    # A gate per feature is the library's choice beside the channel MLP; it keeps their number.
    skip = "soft-gating" if source == width else "linear"
    blocks: nn.Module = FNOBlocks(
        source,
        width,
        tuple(modes),
        n_layers=layers,
        channel_mlp_skip=skip,
        factorization=None if tucker_rank is None else "Tucker",
        rank=1.0 if tucker_rank is None else tucker_rank,
        conv_module=SpectralConv,
    )
    return blocks


def channel_mlp(source: int, hidden: int, width: int) -> nn.Module:
    """The same two-layer MLP at every point."""
    mlp: nn.Module = ChannelMLP(source, width, hidden, n_layers=2)
    return mlp


def resampled(features: Tensor, grid: Sequence[int]) -> Tensor:
    """The same features on another grid of the same axes."""
    if tuple(features.shape[2:]) == tuple(grid):
        return features
    fields: Tensor = resample(features, 1.0, list(range(2, features.ndim)), output_shape=list(grid))
    return fields
