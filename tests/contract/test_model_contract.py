from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainers.model_config import (
    AnyModelConfig,
    DeepONetConfig,
    FnoConfig,
    MessagePassingConfig,
    MlpConfig,
    OwnModelConfig,
    TfnoConfig,
    UnetConfig,
    UnoConfig,
)
from trainers.models import MODELS, build_model

NUM_INPUTS, GIVEN = 6, 2
SHAPES = [(1, 24, 40), (3, 17), (2, 4, 5, 6)]
OWN = Path(__file__).with_name("own_network.py")
EXAMPLES: dict[str, list[AnyModelConfig]] = {
    "mlp": [
        MlpConfig(hidden=(48, 31)),
        MlpConfig(hidden=(), activation="relu"),
        MlpConfig(hidden=(16,), activation="tanh"),
    ],
    "unet": [
        UnetConfig(channels=3, depth=2, conditioning="film"),
        UnetConfig(channels=3, depth=1, norm="none", periodic=True, activation="silu"),
    ],
    "fno": [
        FnoConfig(n_modes=4, channels=4, layers=2, conditioning="film", domain_padding=0.2),
        FnoConfig(n_modes=50, channels=3, layers=1),
    ],
    "tfno": [TfnoConfig(n_modes=4, channels=5, layers=2, rank=0.5)],
    "uno": [
        UnoConfig(n_modes=4, channels=3, depth=2, conditioning="film"),
        UnoConfig(n_modes=3, channels=3, depth=1),
    ],
    "deeponet": [
        DeepONetConfig(basis=5, branch=(9,), trunk=(7, 8), stride=3),
        DeepONetConfig(basis=3, branch=(), trunk=(6,)),
    ],
    "message_passing": [
        MessagePassingConfig(channels=5, layers=2),
        MessagePassingConfig(channels=4, layers=1, neighbours=1, norm="instance", periodic=True),
    ],
    "own": [OwnModelConfig.model_validate({"path": str(OWN), "class": "Scaled", "start": 0.5})],
}
CASES = [(config, shape) for kind in MODELS for config in EXAMPLES[kind] for shape in SHAPES]
ALL = pytest.mark.parametrize(("config", "shape"), CASES, ids=str)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(config: AnyModelConfig, shape: tuple[int, ...], *, seed: int = 11) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, num_inputs=NUM_INPUTS, field_shape=shape, given_channels=GIVEN)


def inputs(count: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers, and fields on the grid of ``shape``."""
    random = torch.Generator().manual_seed(2)
    numbers = torch.rand(count, NUM_INPUTS, generator=random) * 2 - 1
    return numbers, torch.randn(count, GIVEN, *shape[1:], generator=random)


@ALL
@pytest.mark.parametrize("count", [1, 7])
def test_shape_and_type_of_a_prediction(
    config: AnyModelConfig, shape: tuple[int, ...], count: int
) -> None:
    prediction = make(config, shape)(*inputs(count, shape))
    assert prediction.shape == (count, *shape)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()


@ALL
def test_a_sample_does_not_depend_on_the_others(
    config: AnyModelConfig, shape: tuple[int, ...]
) -> None:
    network, (numbers, given) = make(config, shape).eval(), inputs(5, shape)
    other, around = numbers.clone(), given.clone()
    other[1:] += 0.7
    around[1:] -= 0.3
    torch.testing.assert_close(network(numbers, given)[0], network(other, around)[0])


@ALL
def test_input_fields_may_be_absent_and_count_where_they_are_there(
    config: AnyModelConfig, shape: tuple[int, ...]
) -> None:
    numbers, given = inputs(3, shape)
    torch.manual_seed(1)
    without = build_model(config, num_inputs=NUM_INPUTS, field_shape=shape)
    assert without(numbers, given[:, :0]).shape == (3, *shape)
    network = make(config, shape)
    assert not torch.equal(network(numbers, given), network(numbers, given + 1))


@ALL
def test_the_same_seed_gives_the_same_weights(
    config: AnyModelConfig, shape: tuple[int, ...]
) -> None:
    first, second, third = (make(config, shape, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first(*inputs(3, shape)), second(*inputs(3, shape)))
    assert not torch.equal(first(*inputs(3, shape)), third(*inputs(3, shape)))


@ALL
def test_every_weight_gets_a_finite_gradient(
    config: AnyModelConfig, shape: tuple[int, ...]
) -> None:
    network = make(config, shape)
    network(*inputs(9, shape)).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


@ALL
def test_the_state_survives_safetensors(
    config: AnyModelConfig, shape: tuple[int, ...], tmp_path: Path
) -> None:
    network, other = make(config, shape, seed=1), make(config, shape, seed=2)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(network(*inputs(4, shape)), other(*inputs(4, shape)))


def test_the_registry_names_every_kind_once() -> None:
    assert set(EXAMPLES) == set(MODELS)
    for kind, entry in MODELS.items():
        assert entry.config.model_fields["kind"].default == kind
        assert entry.summary
