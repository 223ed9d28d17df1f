import copy
import json

import pytest
import torch
from torch import nn

from trainers.base import TrainingDiverged
from trainers.config import TrainerConfig
from trainers.loop.learner import Learner, LearnerState


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


def batch_losses(network: nn.Module, batch: int, samples: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    inputs = torch.randn(samples, 3, generator=generator)
    prediction: torch.Tensor = network(inputs)
    return (prediction - inputs.sum(1, keepdim=True)).square().mean(1)


def test_a_group_of_batches_counts_as_one_large_batch(network: nn.Module) -> None:
    together = copy.deepcopy(network)
    apart, whole = Learner(network, config(accumulate=3)), Learner(together, config())
    for group in range(8):
        for batch in range(3):
            assert apart.train_step == group
            assert apart.completes_group == (batch == 2)
            assert apart.batches_for(5) == 15 - batch
            apart.learn(batch_losses(network, 3 * group + batch))
        assert apart.between_steps
        batches = [batch_losses(together, 3 * group + batch) for batch in range(3)]
        whole.learn(torch.cat(batches))
    assert apart.train_step == whole.train_step == 8
    for mine, theirs in zip(network.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_group_cut_short_counts_as_the_batches_it_has(network: nn.Module) -> None:
    together = copy.deepcopy(network)
    apart, whole = Learner(network, config(accumulate=5)), Learner(together, config())
    for batch in range(3):
        apart.learn(batch_losses(network, batch))
    assert apart.train_step == 0
    apart.finish(lambda _: None)
    apart.finish(lambda _: None)  # nothing is left
    assert apart.train_step == 1
    whole.learn(torch.cat([batch_losses(together, batch) for batch in range(3)]))
    for mine, theirs in zip(network.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_one_bad_batch_of_a_group_stops_it_before_the_weights_change(network: nn.Module) -> None:
    learner = Learner(network, config(accumulate=3))
    before = copy.deepcopy(network.state_dict())
    learner.learn(batch_losses(network, 0) * float("nan"))
    learner.learn(batch_losses(network, 1))
    with pytest.raises(TrainingDiverged, match="train step 0: loss=nan"):
        learner.learn(batch_losses(network, 2))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_is_validated_is_the_average_of_the_weights(network: nn.Module) -> None:
    assert Learner(network, config()).result is network
    learner = Learner(network, config(ema=0.25))
    expected = [each.detach().clone() for each in network.parameters()]
    for step in range(7):
        learner.learn(batch_losses(network, step))
        decay = min(0.25, (1 + step) / (10 + step))
        expected = [
            decay * mean + (1 - decay) * each.detach()
            for mean, each in zip(expected, network.parameters(), strict=True)
        ]
    for mine, theirs in zip(learner.result.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert not any(torch.equal(mine, each) for each in network.parameters())


def test_on_a_plateau_the_learning_rate_drops_below_the_schedule(network: nn.Module) -> None:
    settings = {"kind": "plateau", "patience": 2, "drop": 0.25, "warmup_steps": 1}
    learner = Learner(network, config(schedule=settings), expected_steps=100)
    rates = []
    for error in (0.5, 0.6, 0.7, 0.4, 0.5, 0.6):
        rates.append(learner.learning_rate)
        learner.learn(losses_of(network))
        learner.progress.validated(error, learner.train_step)
    rates.append(learner.learning_rate)
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.0025, 0.0025, 0.0025, 0.000625])


def test_in_float16_scaled_gradients_change_the_weights_as_plain_ones(network: nn.Module) -> None:
    """The network's precision is not the learner's business: here it is float32."""
    plain = copy.deepcopy(network)
    scaled = Learner(network, config(precision="float16", gradient_clip=0.5, accumulate=2))
    reference = Learner(plain, config(gradient_clip=0.5, accumulate=2))
    for batch in range(24):
        scaled.learn(batch_losses(network, batch))
        reference.learn(batch_losses(plain, batch))
    assert scaled.train_step == 12
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def overflowing(network: nn.Module, limit: float) -> torch.Tensor:
    """A loss whose gradient is infinite where it is scaled by more than ``limit``."""
    losses = losses_of(network)

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return torch.where(gradient * len(gradient) > limit, torch.inf, gradient)

    losses.register_hook(overflow)  # type: ignore[no-untyped-call]
    return losses


@pytest.mark.parametrize("lag", [0, 2])
def test_in_float16_a_gradient_that_overflows_is_left_out_and_scaled_less(
    lag: int, network: nn.Module
) -> None:
    learner = Learner(network, config(precision="float16"), lag=lag)
    before = copy.deepcopy(network.state_dict())
    for step in range(4):  # at scales of 65536, 32768, 16384, 8192
        learner.learn(overflowing(network, 5000.0))
        assert learner.train_step == step + 1
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
    learner.learn(overflowing(network, 5000.0))  # 4096
    assert not torch.equal(network.state_dict()["0.weight"], before["0.weight"])
    learner.finish(lambda _: None)


@pytest.mark.parametrize("lag", [0, 2])
def test_in_float16_it_has_diverged_when_no_scale_helps(lag: int, network: nn.Module) -> None:
    learner = Learner(network, config(precision="float16"), lag=lag)
    before = copy.deepcopy(network.state_dict())
    for _ in range(16 + lag):
        learner.learn(losses_of(network, float("nan")))
    with pytest.raises(TrainingDiverged, match="train step 16: loss=nan"):
        learner.learn(losses_of(network, float("nan")))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_learner_that_takes_over_a_state_goes_on_bit_by_bit(
    kind: str, precision: str, network: nn.Module
) -> None:
    settings = config(
        optimizer={"kind": kind, "lr": 0.01},
        schedule={"kind": "plateau", "patience": 2, "warmup_steps": 3},
        precision=precision,
        accumulate=2,
        ema=0.9,
        early_stop={"patience": 50},
    )

    def go_on(model: nn.Module, learner: Learner, batches: range) -> None:
        for batch in batches:
            learner.learn(batch_losses(model, batch))
            if batch % 6 == 5:
                learner.progress.validated(0.3, learner.train_step)

    first = Learner(network, settings)
    go_on(network, first, range(20))
    state, weights = first.state_dict(), copy.deepcopy(network.state_dict())
    kept = {name: value.clone() for name, value in state.tensors.items()}
    facts = json.loads(json.dumps(state.facts, allow_nan=False))
    go_on(network, first, range(20, 60))
    for name, value in state.tensors.items():
        assert torch.equal(value, kept[name]), f"{name} is no copy"
    fresh = copy.deepcopy(network)
    fresh.load_state_dict(weights)
    second = Learner(fresh, settings)
    second.load_state_dict(LearnerState(tensors=state.tensors, facts=facts))
    assert second.train_step == 10
    go_on(fresh, second, range(20, 60))
    for name, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    for name, value in first.result.state_dict().items():
        assert torch.equal(second.result.state_dict()[name], value), name
    ended, again = first.state_dict(), second.state_dict()
    assert again.facts == ended.facts
    assert ended.facts["progress"]["factor"] < 1.0
    assert again.tensors.keys() == ended.tensors.keys()
    for name, value in ended.tensors.items():
        assert torch.equal(again.tensors[name], value), name
    for name, value in state.tensors.items():
        assert torch.equal(value, kept[name]), f"{name} was written to"


def test_there_is_no_state_within_a_train_step(network: nn.Module) -> None:
    learner = Learner(network, config(accumulate=2))
    learner.learn(losses_of(network))
    with pytest.raises(ValueError, match="1 batches of a train step are taken in"):
        learner.state_dict()
