"""Whole trainings, in bfloat16 and compiled, are in tests/integration/test_ddp_settings.py."""

import pytest
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.config import TrainerConfig
from trainers.loop.forward import InPrecision, training_network
from trainers.loop.lockstep import LockStep, World

CPU = torch.device("cpu")


class Product(nn.Module):
    """Notes what its product comes out in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 8)
        self.seen: list[torch.dtype] = []

    def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
        said: Tensor = self.layer(numbers)
        self.seen.append(said.dtype)
        return said.view(-1, 2, 4)


def alone() -> LockStep:
    return LockStep(World(), CPU)


def numbers() -> Float32[Tensor, "5 3"]:
    torch.manual_seed(2)
    return torch.randn(5, 3)


def test_what_comes_out_is_float32_and_products_are_not() -> None:
    model = Product()
    said = InPrecision(model, torch.bfloat16)(numbers(), torch.empty(5, 0, 4))
    assert model.seen == [torch.bfloat16]
    assert said.dtype == torch.float32
    exact = model(numbers(), torch.empty(5, 0, 4))
    assert model.seen[-1] == torch.float32
    assert 0.0 < float((said - exact).detach().abs().max()) < 0.03
    said.square().mean().backward()
    assert model.layer.weight.grad is not None
    assert model.layer.weight.grad.dtype == torch.float32


def test_in_float32_the_network_is_called_as_it_is() -> None:
    model = Product()
    network, notes = training_network(model, TrainerConfig(), CPU, alone())
    assert network is model
    assert notes == ()


def test_float16_on_a_cpu_is_refused() -> None:
    config = TrainerConfig(precision="float16")
    with pytest.raises(ValueError, match=r"trainer\.precision=float16: .*Use bfloat16 or float32"):
        training_network(Product(), config, CPU, alone())
