import copy

import pytest
import torch
from torch import nn

from trainers.base import TrainingDiverged
from trainers.config import TrainerConfig
from trainers.learner import Learner


def config(**changes: object) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {"optimizer": {"kind": "adam", "lr": 0.01, "weight_decay": 0.001}, **changes}
    )


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(3, 17), nn.Tanh(), nn.Linear(17, 5))


def losses_of(network: nn.Module, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    inputs = torch.randn(7, 3, generator=generator)
    prediction: torch.Tensor = network(inputs) * scale
    return (prediction - inputs.sum(1, keepdim=True)).square().mean(1)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_it_steps_as_torch_does_without_a_fused_optimizer(kind: str, network: nn.Module) -> None:
    reference = copy.deepcopy(network)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](
        reference.parameters(), lr=0.01, weight_decay=0.001, foreach=False
    )
    settings = {"kind": kind, "lr": 0.01, "weight_decay": 0.001}
    learner = Learner(network, config(optimizer=settings))
    for _ in range(20):
        learner.learn(losses_of(network))
        optimizer.zero_grad()
        torch.autograd.backward(losses_of(reference).mean())
        optimizer.step()
    assert learner.train_step == 20
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e30])
def test_a_train_step_that_is_not_finite_never_changes_the_weights(
    lag: int, scale: float, network: nn.Module
) -> None:
    learner = Learner(network, config(), lag=lag)
    learner.learn(losses_of(network))
    before = copy.deepcopy(network.state_dict())

    def steps() -> None:
        for _ in range(lag + 1):
            learner.learn(losses_of(network, scale))

    with pytest.raises(TrainingDiverged, match=r"train step 1: .*Lower trainer.optimizer.lr=0.01"):
        steps()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_flags_that_were_not_read_yet_are_read_at_the_end(network: nn.Module) -> None:
    learner = Learner(network, config(), lag=2)
    learner.learn(losses_of(network, float("nan")))
    with pytest.raises(TrainingDiverged, match="train step 0"):
        learner.finish(lambda _: None)


def test_one_bad_sample_spoils_the_gradient_of_the_whole_network(network: nn.Module) -> None:
    """So every rank sees it after the gradients were averaged."""
    learner = Learner(network, config())
    losses = losses_of(network)
    poison = torch.zeros(7)
    poison[4] = float("inf")
    with pytest.raises(TrainingDiverged, match="loss=inf, gradient norm=nan"):
        learner.learn(losses + poison)
    assert all(each.grad is not None and each.grad.isnan().any() for each in network.parameters())


def test_the_gradient_is_clipped_to_its_largest_norm(network: nn.Module) -> None:
    learner = Learner(network, config(gradient_clip=0.125))
    learner.learn(losses_of(network, 30.0))
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    assert float(nn.utils.get_total_norm(gradients)) == pytest.approx(0.125, rel=1e-4)


def test_the_learning_rate_follows_the_schedule(network: nn.Module) -> None:
    settings = {"kind": "cosine", "final": 0.0, "warmup_steps": 1}
    learner = Learner(network, config(schedule=settings), expected_steps=5)
    rates = []
    for _ in range(6):
        rates.append(learner.learning_rate)
        learner.learn(losses_of(network))
    assert rates == pytest.approx(
        [0.005, 0.01, 0.01 * (2 + 2**0.5) / 4, 0.005, 0.01 * (2 - 2**0.5) / 4, 0.0]
    )
