import pytest
import torch
from neuralop.models import FNO, TFNO
from torch import nn

from trainers.configs.models import FnoConfig, TfnoConfig
from trainers.models.conditioning import Inputs
from trainers.models.registry import build_model
from trainers.models.spectral import SpectralConv, fourier_layers, resampled


def shifted(fields: torch.Tensor) -> torch.Tensor:
    axes = list(range(2, fields.ndim))
    return fields.roll([axis + 1 for axis in axes], dims=axes)


@pytest.mark.parametrize("grid", [(16,), (9,), (8, 12), (9, 12), (8, 7), (9, 7), (5, 7, 6)])
@pytest.mark.parametrize("modes", [1, 4, 5, 64])
def test_a_spectral_convolution_commutes_with_shifts(grid: tuple[int, ...], modes: int) -> None:
    torch.manual_seed(1)
    kept = [min(modes, points) for points in grid]
    layer = SpectralConv(2, 3, kept, factorization=None)
    fields = torch.randn(2, 2, *grid)
    torch.testing.assert_close(layer(shifted(fields)), shifted(layer(fields)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(9,), (9, 8), (5, 7, 6)])
def test_with_all_modes_it_can_be_the_identity(grid: tuple[int, ...]) -> None:
    layer = SpectralConv(1, 1, grid, factorization=None, bias=False)
    with torch.no_grad():
        layer.parts[0][..., 0], layer.parts[0][..., 1] = 1.0, 0.0
    fields = torch.randn(3, 1, *grid)
    torch.testing.assert_close(layer(fields), fields)


def complex_weights(network: nn.Module) -> list[torch.Tensor]:
    return [each for each in network.parameters() if each.is_complex()]


@pytest.mark.parametrize("grid", [(16,), (8, 12), (4, 6, 8)])
@pytest.mark.parametrize("tucker", [False, True])
def test_on_even_grids_it_is_the_network_of_the_library(
    grid: tuple[int, ...], tucker: bool
) -> None:
    modes = tuple(points // 2 for points in grid)
    sizes = {"n_modes": modes, "in_channels": 3 + len(grid), "out_channels": 2}
    config: FnoConfig | TfnoConfig = FnoConfig(n_modes=modes, channels=6, layers=2)
    theirs = FNO(**sizes, hidden_channels=6, n_layers=2, positional_embedding=None)
    if tucker:
        config = TfnoConfig(n_modes=modes, channels=6, layers=2, rank=0.3)
        theirs = TFNO(**sizes, hidden_channels=6, n_layers=2, positional_embedding=None, rank=0.3)
    ours = build_model(config, num_inputs=2, field_shape=(2, *grid), given_channels=1)
    named = {name: each for name, each in ours.named_parameters() if ".parts." in name}
    with torch.no_grad():
        for mine, original in zip(named.values(), complex_weights(theirs), strict=True):
            mine.copy_(torch.view_as_real(original))
    plain = {n: each for n, each in theirs.named_parameters() if not each.is_complex()}
    plain = {name.replace("fno_blocks.", "blocks."): each for name, each in plain.items()}
    missing = ours.load_state_dict(plain, strict=False)
    assert set(missing.missing_keys) == set(named)
    assert missing.unexpected_keys == []
    inputs = Inputs("channels", num_inputs=2, given_channels=1, grid=grid)
    numbers, given = torch.randn(4, 2), torch.randn(4, 1, *grid)
    torch.testing.assert_close(ours(numbers, given), theirs(inputs(numbers, given)))


def test_all_weights_are_real_numbers_for_the_fused_optimiser() -> None:
    layers = fourier_layers(4, 4, modes=(4, 4), layers=2, tucker_rank=0.5)
    assert {each.dtype for each in layers.parameters()} == {torch.float32}
    optimizer = torch.optim.Adam(layers.parameters(), fused=True)
    layers(torch.randn(2, 4, 8, 8), 0).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("grid", [(8,), (8, 6), (6, 6, 8)])
def test_resampling_keeps_constants_and_grids(grid: tuple[int, ...]) -> None:
    fields = torch.ones(2, 3, *grid) * torch.arange(1.0, 4.0).view(1, 3, *[1] * len(grid))
    finer = tuple(2 * points - 1 for points in grid)
    there = resampled(fields, finer)
    assert there.shape == (2, 3, *finer)
    torch.testing.assert_close(
        there, fields.flatten(2)[..., :1].expand(2, 3, there[0, 0].numel()).view_as(there)
    )
    torch.testing.assert_close(resampled(there, grid), fields)
    assert resampled(fields, grid) is fields
