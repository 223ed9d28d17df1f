import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainers.configs.models import (
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
from trainers.models.registry import MODELS, build_model, count_weights

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


def make(
    config: AnyModelConfig, shape: tuple[int, ...], *, seed: int = 11, given: int = GIVEN
) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, num_inputs=NUM_INPUTS, field_shape=shape, given_channels=given)


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
def test_numbers_count(config: AnyModelConfig, shape: tuple[int, ...]) -> None:
    network, (numbers, given) = make(config, shape).eval(), inputs(3, shape)
    before = network(numbers, given)
    for column in range(NUM_INPUTS):
        other = numbers.clone()
        other[:, column] += 1
        change = (network(other, given) - before).flatten(1).norm(dim=1)
        assert (change > 1e-4 * before.flatten(1).norm(dim=1)).all(), column


@ALL
def test_there_may_be_no_numbers(config: AnyModelConfig, shape: tuple[int, ...]) -> None:
    numbers, given = inputs(3, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: a layer of no inputs has nothing to initialise
        network = build_model(config, num_inputs=0, field_shape=shape, given_channels=GIVEN)
    assert network(numbers[:, :0], given).shape == (3, *shape)


@ALL
def test_the_same_seed_gives_the_same_weights(
    config: AnyModelConfig, shape: tuple[int, ...]
) -> None:
    first, second, third = (make(config, shape, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first(*inputs(3, shape)), second(*inputs(3, shape)))
    assert not torch.equal(first(*inputs(3, shape)), third(*inputs(3, shape)))


@ALL
@pytest.mark.parametrize("given", [0, GIVEN])
def test_every_weight_gets_a_finite_gradient(
    config: AnyModelConfig, shape: tuple[int, ...], given: int
) -> None:
    network = make(config, shape, given=given)
    numbers, fields = inputs(9, shape)
    network(numbers, fields[:, :given]).square().mean().backward()
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


def dense(*widths: int) -> int:
    """Weights and biases of linear layers from each width to the next."""
    return sum(before * after + after for before, after in itertools.pairwise(widths))


def fourier(source: int, width: int, modes: int) -> int:
    """Complex modes and a bias, a linear skip, a half as wide MLP with a gated or linear skip."""
    gate = width if source == width else source * width
    return source * width * (2 * modes + 1) + width + dense(width, round(width / 2), width) + gate


# Two channels on 24 x 40 points; 10 channels go in (6 numbers, 2 input fields, 2 coordinates), or 4
# and a FiLM of 64 hidden features.
TUCKER = 2 * (4 * 4 * 3 * 2 + 5 * 4 + 5 * 4 + 4 * 3 + 3 * 2)  # about half of 2 * 5 * 5 * 4 * 3
UNET = (9 * 3 * 3 + 9) + (9 * 3 * 6 + 9 * 6 * 6 + 36) + (9 * 9 * 3 + 9 * 3 * 3 + 18) + dense(3, 2)
COUNTS: list[tuple[AnyModelConfig, int]] = [
    (MlpConfig(hidden=(48, 31)), dense(6 + 2 * 960, 48, 31, 2 * 960)),
    (UnetConfig(channels=3, depth=1), 9 * 10 * 3 + 9 + UNET),
    (
        UnetConfig(channels=3, depth=1, conditioning="film"),
        9 * 4 * 3 + 9 + UNET + dense(6, 64, 2 * (3 + 6 + 3)),
    ),
    (
        FnoConfig(n_modes=(4, 6), channels=5, layers=2),
        dense(10, 10, 5) + 2 * fourier(5, 5, 4 * 4) + dense(5, 10, 2),
    ),
    (
        FnoConfig(n_modes=(4, 6), channels=5, layers=2, conditioning="film"),
        dense(4, 10, 5) + 2 * fourier(5, 5, 4 * 4) + dense(5, 10, 2) + dense(6, 64, 2 * 10),
    ),
    (
        TfnoConfig(n_modes=4, channels=5, layers=2, rank=0.5),
        dense(10, 10, 5) + 2 * (fourier(5, 5, 0) + TUCKER) + dense(5, 10, 2),
    ),
    (
        UnoConfig(n_modes=4, channels=3, depth=1),
        dense(10, 6, 3)
        + sum(fourier(*each, 4 * 3) for each in ((3, 3), (3, 6), (9, 3)))
        + dense(3, 6, 2),
    ),
    (
        DeepONetConfig(basis=5, branch=(9,), trunk=(7,), stride=7),
        dense(6 + 2 * 4 * 6, 9, 2 * 5) + dense(2, 7, 2 * 5) + 2,
    ),
    (
        MessagePassingConfig(channels=5, layers=2),
        dense(10, 5, 5)
        + 2 * (dense(5, 5) + 5 * 5 + 2 * 5 + 2 * 5 + 6 * 10 + dense(5, 5) + dense(10, 5, 5) + 10)
        + dense(5, 5, 2),
    ),
]


@pytest.mark.parametrize(("config", "count"), COUNTS, ids=str)
def test_a_network_has_as_many_weights_as_its_layers_say(
    config: AnyModelConfig, count: int
) -> None:
    assert count_weights(make(config, (2, 24, 40))) == count


def test_every_kind_is_described_with_its_options() -> None:
    assert MODELS["unet"].options[1] == ("depth", 3, "times the grid is halved")
    assert [option.name for option in MODELS["own"].options] == ["path", "class"]
    assert MODELS["own"].options[0].default is None
    for kind, each in MODELS.items():
        assert each.summary
        assert all(option.description for option in each.options), kind


def test_the_registry_names_every_kind_once() -> None:
    assert set(EXAMPLES) == set(MODELS)
    for kind, entry in MODELS.items():
        assert entry.config.model_fields["kind"].default == kind
        assert entry.summary
