"""What a network does in a train step is found out before anything starts."""

from pathlib import Path

import pytest

from trainers.base import Input, Problem
from trainers.config import TrainerConfig
from trainers.tasks.trial import try_out

PROBLEM = Problem(
    field_names=("u", "v", "given"),
    field_units=("K", "m/s", "1"),
    shape=(4, 5),
    spacing=(0.1, 0.2),
    parameters=(
        Input(name="speed", unit="m/s", low=1.0, high=2.0),
        Input(name="seed", unit="1", low=0.0, high=9.0, learnt=False),
    ),
    time=Input(name="time", unit="s", low=0.0, high=1.0),
    window=3,
    input_fields=("given",),
)
NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, *, num_inputs, field_shape, given_channels):
        super().__init__()
        self.field_shape = field_shape
        self.layer = nn.Linear(num_inputs, torch.Size(field_shape).numel())

    def forward(self, numbers, given):
        result = self.layer(numbers).view(-1, *self.field_shape)
        return result
"""


def config(folder: Path, text: str, task: dict[str, object]) -> TrainerConfig:
    path = folder / "net.py"
    path.write_text(text)
    return TrainerConfig.model_validate(
        {"model": {"path": str(path), "class": "Net"}, "task": task}
    )


@pytest.mark.parametrize("task", [{"kind": "direct"}, {"kind": "next"}])
def test_a_right_network_passes(tmp_path: Path, task: dict[str, object]) -> None:
    try_out(config(tmp_path, NETWORK, task), PROBLEM)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("result = result.detach()", "does not require grad"),
        ("assert not (self.training and torch.is_grad_enabled()), 'trains'", "trains"),
    ],
    ids=["no gradient", "in training only"],
)
def test_what_only_a_train_step_shows_is_raised(tmp_path: Path, line: str, words: str) -> None:
    text = NETWORK.replace("        return result", f"        {line}\n        return result")
    with pytest.raises((AssertionError, RuntimeError), match=words):
        try_out(config(tmp_path, text, {"kind": "direct"}), PROBLEM)
