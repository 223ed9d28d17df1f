"""Every network trains with every task, and its weights restore to bit-equal predictions."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.contract.test_model_contract import EXAMPLES, one_thread
from tests.contract.test_task_contract import TASKS, Made
from trainers.models.registry import MODELS

__all__ = ["one_thread"]

GRID = (8, 10)
STEPS = 40
PAIRS = [
    (kind, task)
    for kind in MODELS
    for task in ("direct", "operator", "next 2 to 3", "delta", "derivative, rk4", "bundle")
]


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_a_pair_trains_and_restores(kind: str, task: str, tmp_path: Path) -> None:
    made, config = Made(TASKS[task], grid=GRID), EXAMPLES[kind][0]
    torch.manual_seed(3)
    network = made.task.network(config)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = made.task.losses(network, made.inputs, made.fields).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses

    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = made.task.network(config)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    network.eval(), other.eval()
    with torch.inference_mode():
        expected = made.task.one_step(network, made.inputs, made.fields).prediction
        restored = made.task.one_step(other, made.inputs, made.fields).prediction
    assert torch.equal(expected, restored)
