from pathlib import Path

import pytest
import torch

from trainers.configs.model_checks import halved, kept_modes, model_problems, own_model_problems
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
from trainers.models.registry import build_model

REFUSED: list[tuple[AnyModelConfig, tuple[int, ...], list[str]]] = [
    (FnoConfig(n_modes=(4, 4)), (9,), ["n_modes=[4, 4]:", "1 axes", "Give 1, or a single number"]),
    (TfnoConfig(n_modes=(4, 10)), (9, 9), ["n_modes=[4, 10]:", "[9, 9] points", "Lower n_modes"]),
    (
        UnetConfig(depth=4),
        (16, 15),
        ["depth=4:", "[16, 15]", "3 times", "Lower depth to at most 3"],
    ),
    (UnoConfig(depth=1), (1,), ["depth=1:", "0 times", "Take a kind that halves no grid"]),
    (MessagePassingConfig(), (1,), ["kind=message_passing:", "no neighbours", "Take mlp"]),
    (
        MessagePassingConfig(neighbours=3, periodic=True),
        (9, 6),
        ["neighbours=3:", "axis of 6 points", "the 7 that", "Lower neighbours to at most 2"],
    ),
    (UnetConfig(), (8, 8, 8, 8), ["kind=unet:", "1 to 3 axes", "have 4", "Take mlp or deeponet"]),
    (FnoConfig(), (), ["kind=fno:", "have 0"]),
]

# As near to a refusal as can be.
ACCEPTED: list[tuple[AnyModelConfig, tuple[int, ...]]] = [
    (FnoConfig(n_modes=(9, 8), channels=2, layers=1), (9, 8)),
    (FnoConfig(n_modes=1, channels=2, layers=1, domain_padding=1.0), (1,)),
    (TfnoConfig(n_modes=64, channels=3, layers=1), (5, 4)),
    (UnetConfig(channels=2, depth=3), (16, 8)),
    (UnetConfig(channels=2, depth=2, periodic=True), (4, 5, 7)),
    (UnoConfig(channels=2, depth=2), (4, 5, 7)),
    (MessagePassingConfig(channels=2, layers=1, neighbours=3, periodic=True), (9, 7)),
    (MessagePassingConfig(channels=2, layers=1, neighbours=9), (2, 1)),
    (DeepONetConfig(stride=100), (1,)),
    (MlpConfig(), ()),
]


@pytest.mark.parametrize(("config", "grid", "words"), REFUSED, ids=str)
def test_what_cannot_work_is_refused_with_key_value_limit_and_remedy(
    config: AnyModelConfig, grid: tuple[int, ...], words: list[str]
) -> None:
    (line,) = model_problems(config, grid)
    assert line.startswith(words[0])
    for word in words:
        assert word in line
    with pytest.raises(ValueError, match=r"trainer\.model\."):
        build_model(config, num_inputs=1, field_shape=(1, *grid))


@pytest.mark.parametrize(("config", "grid"), ACCEPTED, ids=str)
def test_what_is_not_refused_can_be_built_and_predicts(
    config: AnyModelConfig, grid: tuple[int, ...]
) -> None:
    assert model_problems(config, grid) == []
    network = build_model(config, num_inputs=3, field_shape=(2, *grid), given_channels=1).eval()
    prediction = network(torch.randn(2, 3), torch.randn(2, 1, *grid))
    assert prediction.shape == (2, 2, *grid)
    assert prediction.isfinite().all()


def test_a_single_number_of_modes_is_cut_to_each_axis() -> None:
    assert kept_modes(16, (24, 9)) == (16, 9)
    assert kept_modes((5, 3), (24, 9)) == (5, 3)


def test_odd_grids_are_halved_upwards() -> None:
    assert halved((9, 8), 0) == (9, 8)
    assert halved((9, 8), 1) == (5, 4)
    assert halved((9, 8), 3) == (2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["path=", "cannot be read", "Give the path of a Python file"]),
        ("class Net(:\n", ["path=", "is not Python"]),
        (
            "class Nett: ...\nclass B: ...\n",
            ["class=Net:", "no such class, but: Nett, B", "Correct"],
        ),
        ("x = 1\n", ["class=Net:", "no such class, but: none"]),
    ],
)
def test_a_wrong_file_is_found_without_running_it(
    text: str | None, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "net.py"
    if text is not None:
        path.write_text(text)
    config = OwnModelConfig.model_validate({"path": str(path), "class": "Net"})
    (line,) = own_model_problems(config)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "text",
    [
        "class Net: ...",
        "from a import Net",
        "from a import B as Net",
        "Net = make()",
        "from a import *",
    ],
)
def test_a_class_may_be_defined_imported_or_assigned(text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(f"raise SystemExit\n{text}\n")
    assert (
        own_model_problems(OwnModelConfig.model_validate({"path": str(path), "class": "Net"})) == []
    )
