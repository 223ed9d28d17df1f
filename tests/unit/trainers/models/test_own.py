from pathlib import Path

import pytest
import torch

from trainers.config import TrainerConfig
from trainers.models.registry import build_model

SIZES = "num_inputs, field_shape, given_channels"
HEAD = "import torch\nfrom torch import nn\n"
GOOD = f"""{HEAD}
class Net(nn.Module):
    def __init__(self, *, {SIZES}, scale=1.0, widths=()):
        super().__init__()
        self.scale, self.widths, self.field_shape = scale, widths, field_shape
        self.layer = nn.Linear(num_inputs, torch.Size(field_shape).numel())

    def forward(self, numbers, given):
        return self.layer(numbers).view(-1, *self.field_shape) * self.scale
"""


def build(tmp_path: Path, text: str, **settings: object) -> torch.nn.Module:
    path = tmp_path / "json.py"  # called like a module that everybody imports
    path.write_text(text)
    config = TrainerConfig.model_validate(
        {"model": {"path": str(path), "class": "Net", **settings}}
    ).model
    return build_model(config, num_inputs=3, field_shape=(2, 4, 5), given_channels=1)


def test_settings_reach_the_class(tmp_path: Path) -> None:
    network = build(tmp_path, GOOD, scale=2.5, widths=[3, 4])
    assert vars(network)["scale"] == 2.5
    assert vars(network)["widths"] == (3, 4)
    assert network.training
    assert network(torch.randn(7, 3), torch.randn(7, 1, 4, 5)).shape == (7, 2, 4, 5)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("(nn.Module)", "", ["is no torch.nn.Module", "Derive it"]),
        (", given_channels", "", ["unexpected keyword argument 'given_channels'", "must take"]),
        ("scale=1.0", "scale", ["missing a required argument: 'scale'"]),
        ("self.layer(numbers)", "self.layer(given)", ["fails on numbers (2, 3)", "Correct its"]),
        (".view(-1, *self.field_shape)", "", ["predicts (2, 40)", "must predict (2, 2, 4, 5)"]),
        ("* self.scale", "* self.scale, 1", ["predicts tuple", "must predict (2, 2, 4, 5)"]),
        ("* self.scale", ".double()", ["predicts torch.float64"]),
        (
            "        return",
            "        {}['oops']\n        return",
            ["KeyError: 'oops' (", "py:11, in fo"],
        ),
        (
            "self.layer =",
            "1 / 0\n        self.layer =",
            ["cannot be made: ZeroDiv", "py:8, in __in"],
        ),
        (HEAD, HEAD + "\n\nassert False\n", ["cannot be loaded: Assertion", "py:5, in <mod"]),
    ],
)
def test_what_is_wrong_with_a_class_is_said_before_training(
    old: str, new: str, words: list[str], tmp_path: Path
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    with pytest.raises(ValueError, match=r"trainer\.model") as caught:
        build(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


def test_a_network_without_weights_is_refused(tmp_path: Path) -> None:
    text = f"{HEAD}class Net(nn.Module):\n    def __init__(self, {SIZES}): super().__init__()\n"
    with pytest.raises(ValueError, match="has no weights to train"):
        build(tmp_path, text)


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"json\.py:4 .*unexpected keyword argument 'scal'"):
        build(tmp_path, GOOD, scal=2.0)


def test_the_trial_leaves_batch_statistics_alone(tmp_path: Path) -> None:
    text = GOOD.replace("self.layer =", "self.norm = nn.BatchNorm1d(3)\n        self.layer =")
    network = build(tmp_path, text.replace("self.layer(numbers)", "self.layer(self.norm(numbers))"))
    assert network.get_buffer("norm.num_batches_tracked") == 0
    assert network.get_submodule("norm").training
