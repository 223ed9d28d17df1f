"""Every task keeps its promises; a new kind adds a line to ``TASKS`` and to ``Exact``."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float32, Float64
from torch import Tensor, nn

from trainers.base import Input, Problem
from trainers.config import TrainerConfig
from trainers.configs.models import MlpConfig
from trainers.configs.tasks import (
    BundleConfig,
    DeltaConfig,
    DerivativeConfig,
    DirectConfig,
    NextConfig,
    OperatorConfig,
    TaskConfig,
)
from trainers.tasks.build import Task, build_task
from trainers.tasks.moments import moments_of
from trainers.tasks.normalization import Normalization
from trainers.tasks.stepping import Stepping

MAPS = DirectConfig | OperatorConfig
GRID, DT, COUNT = (3, 5), 0.25, 7
TASKS: dict[str, TaskConfig] = {
    "direct": DirectConfig(),
    "direct of 3": DirectConfig(window=3),
    "operator": OperatorConfig(),
    "next": NextConfig(),
    "next 2 to 3": NextConfig(history=2, ahead=3),
    "next in a long sample": NextConfig(trajectory=6),
    "delta": DeltaConfig(history=2),
    "derivative, euler": DerivativeConfig(integrator="euler"),
    "derivative, heun": DerivativeConfig(),
    "derivative, rk4": DerivativeConfig(integrator="rk4", trajectory=5),
    "bundle": BundleConfig(history=2, ahead=2, pushforward=2),
    "bundle without pushforward": BundleConfig(ahead=3, pushforward=0),
}
STEPPING = [name for name, config in TASKS.items() if not isinstance(config, MAPS)]


def samples(
    window: int, grid: tuple[int, ...] = GRID
) -> tuple[Float32[np.ndarray, " n w 3 y x"], Float32[np.ndarray, " n i"]]:
    """Two fields that grow at a constant rate, a parameter, from an input field that is the third.

    height = start + rate * time; depth = -2 * height.
    """
    rng = np.random.default_rng(4)
    rate, seed = rng.uniform(-3, 5, COUNT), rng.uniform(0, 1e6, COUNT)
    start = rng.normal(10, 2, (COUNT, 1, *grid))
    times = rng.integers(1, 9, COUNT)[:, None] * DT + DT * np.arange(window)
    height = start + (rate[:, None] * times).reshape(COUNT, window, *[1] * len(grid))
    given = np.broadcast_to(start, height.shape)
    fields = np.stack([height, -2 * height, given], axis=2).astype(np.float32)
    inputs = np.concatenate([rate[:, None], seed[:, None], times], axis=1)
    return fields, inputs


def problem(window: int, grid: tuple[int, ...] = GRID) -> Problem:
    return Problem(
        field_names=("height", "depth", "start"),
        field_units=("m", "m", "m"),
        shape=grid,
        spacing=(1.0,) * len(grid),
        parameters=(
            Input(name="rate", unit="m/s", low=-3.0, high=5.0),
            Input(name="seed", unit="1", low=0.0, high=1e6, learnt=False),
        ),
        time=Input(name="time", unit="s", low=DT, high=20 * DT),
        window=window,
        time_step=DT,
        input_fields=("start",),
    )


class Made:
    """A task with its samples."""

    def __init__(
        self, config: TaskConfig, *, grid: tuple[int, ...] = GRID, **settings: object
    ) -> None:
        fields, inputs = samples(config.window, grid)
        moments = moments_of(fields, inputs, np.arange(COUNT))
        self.problem = problem(config.window, grid)
        self.normalization = Normalization.of(moments, self.problem)
        trainer = TrainerConfig.model_validate({"task": config, **settings})
        self.task: Task = build_task(trainer, self.problem, self.normalization, torch.device("cpu"))
        self.config = config
        self.fields, self.inputs = torch.from_numpy(fields), torch.from_numpy(inputs)


class Exact(nn.Module):
    """Knows the answer: reads the rate out of the numbers and the fields out of the channels."""

    def __init__(self, made: Made) -> None:
        super().__init__()
        self.made = made
        self.calls = 0

    def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
        self.calls += 1
        made = self.made
        assert numbers.shape[1] == 2  # rate and time, no seed
        n = made.normalization
        rate = numbers[:, 0] * 4.0 + 1.0
        time = numbers[:, 1] * n.input_scale[2] + n.input_offset[2]
        factor = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
        rates = rate.view(-1, 1, 1, 1) * factor * torch.ones(len(rate), 2, *GRID)
        offset, scale, step = (
            torch.tensor(each[:2], dtype=torch.float32).view(1, 2, 1, 1)
            for each in (n.field_offset, n.field_scale, n.step_scale)
        )
        if isinstance(made.config, MAPS):
            start = fields[:, -1:] * n.field_scale[2] + n.field_offset[2]
            height = start + (rate * time).view(-1, 1, 1, 1)
            return torch.as_tensor((height * factor - offset) / scale).float()
        if isinstance(made.config, DerivativeConfig):
            return (rates * DT / step).float()
        last = fields[:, -3:-1] * scale + offset  # before the input field
        after = [rates * DT * (ahead + 1) for ahead in range(made.config.ahead)]
        if isinstance(made.config, NextConfig):
            return torch.cat([(last + each - offset) / scale for each in after], 1).float()
        return torch.cat([each / step for each in after], 1).float()


@pytest.fixture(params=TASKS)
def made(request: pytest.FixtureRequest) -> Made:
    return Made(TASKS[request.param])


def test_a_network_that_knows_the_answer_has_no_loss(made: Made) -> None:
    for _ in range(5):  # parts of long samples and pushes are drawn at random
        losses = made.task.losses(Exact(made), made.inputs, made.fields)
        assert losses.shape == (COUNT,)
        np.testing.assert_allclose(losses, 0.0, atol=1e-8)


def test_one_step_of_it_is_the_truth_in_the_fields_units(made: Made) -> None:
    compared = made.task.one_step(Exact(made), made.inputs, made.fields)
    predicted = compared.prediction.shape[1]
    first = (
        made.config.window - predicted if isinstance(made.config, MAPS) else (made.config.history)
    )
    torch.testing.assert_close(compared.truth, made.fields[:, first : first + predicted, :2])
    torch.testing.assert_close(compared.prediction, compared.truth, rtol=1e-4, atol=1e-4)


def test_a_network_of_the_right_sizes_trains(made: Made) -> None:
    torch.manual_seed(1)
    network = made.task.network(MlpConfig(hidden=(32,)))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = after = made.task.losses(network, made.inputs, made.fields).mean()
    for _ in range(60):
        optimizer.zero_grad()
        after = made.task.losses(network, made.inputs, made.fields).mean()
        torch.autograd.backward(after)
        optimizer.step()
    assert after < 0.3 * before


def test_nothing_that_is_given_in_is_written_to(made: Made) -> None:
    fields, inputs = made.fields.clone(), made.inputs.clone()
    network = made.task.network(MlpConfig(hidden=(4,)))
    made.task.losses(network, made.inputs, made.fields)
    made.task.one_step(network, made.inputs, made.fields)
    assert torch.equal(fields, made.fields)
    assert torch.equal(inputs, made.inputs)


def test_half_precision_samples_are_computed_with_in_single(made: Made) -> None:
    network = made.task.network(MlpConfig(hidden=(4,)))
    half = made.fields.half()
    torch.manual_seed(2)
    losses = made.task.losses(network, made.inputs, half)
    torch.manual_seed(2)
    assert torch.equal(losses, made.task.losses(network, made.inputs, half.float()))


@pytest.mark.parametrize("name", STEPPING)
def test_a_rollout_goes_on_from_its_own_predictions(name: str) -> None:
    made = Made(TASKS[name])
    task = made.task
    assert isinstance(task, Stepping)
    steps, history = 11, task.history
    predicted = task.rollout(
        Exact(made),
        made.inputs[:, :2],
        made.inputs[:, 1 + history],
        made.fields[:, :history, :2],
        made.fields[:, 0, 2:],
        steps=steps,
    )
    assert predicted.shape == (COUNT, steps, 2, *GRID)
    ahead = DT * torch.arange(1, steps + 1).view(1, -1, 1, 1)
    last = made.fields[:, history - 1, 0].unsqueeze(1)
    height = last + made.inputs[:, 0].float().view(-1, 1, 1, 1) * ahead
    torch.testing.assert_close(predicted[:, :, 0], height, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predicted[:, :, 1], -2 * height, rtol=1e-4, atol=1e-3)


def test_fields_count_by_their_weights() -> None:
    made = Made(DirectConfig())
    light = Made(DirectConfig(), field_weights={"depth": 3.0})

    class ZeroAndOne(nn.Module):
        def forward(self, _: Tensor, fields: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(fields), torch.ones_like(fields)], 1)

    network, n = ZeroAndOne(), made.normalization
    offset, scale = (
        torch.tensor(each[:2]).view(2, 1, 1) for each in (n.field_offset, n.field_scale)
    )
    truth = (made.fields[:, 0, :2] - offset) / scale
    height, depth = (truth[:, 0] ** 2).mean((1, 2)), ((1 - truth[:, 1]) ** 2).mean((1, 2))
    even = made.task.losses(network, made.inputs, made.fields)
    uneven = light.task.losses(network, made.inputs, made.fields)
    np.testing.assert_allclose(even, (height + depth) / 2, rtol=1e-4)
    np.testing.assert_allclose(uneven, (0.5 * height + 1.5 * depth) / 2, rtol=1e-4)


class Decay(nn.Module):
    """du/dt = -u, in the units of the derivative task."""

    def __init__(self, made: Made) -> None:
        super().__init__()
        n = made.normalization
        self.ratio = torch.tensor(n.field_scale[:2] / n.step_scale[:2] * DT).view(1, 2, 1, 1)
        self.offset = torch.tensor(n.field_offset[:2] / n.field_scale[:2]).view(1, 2, 1, 1)

    def forward(self, _: Tensor, fields: Tensor) -> Tensor:
        return (-(fields[:, :2] + self.offset) * self.ratio).float()


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_integrators_have_their_order(integrator: str, order: int) -> None:
    config = DerivativeConfig.model_validate({"integrator": integrator})
    made = Made(config)
    assert isinstance(made.task, Stepping)
    predicted = made.task.rollout(
        Decay(made),
        made.inputs[:, :2],
        made.inputs[:, 2],
        made.fields[:, :1, :2],
        made.fields[:, 0, 2:],
        steps=1,
    )
    # One step of a Runge-Kutta scheme of order p is the exponential's series up to the power p.
    factor = sum((-DT) ** power / math.factorial(power) for power in range(order + 1))
    expected: Float64[Tensor, " _ _ _ _"] = made.fields[:, 0, :2].double() * factor
    torch.testing.assert_close(predicted[:, 0].double(), expected, rtol=1e-5, atol=1e-5)


def test_pushforward_starts_from_predictions_and_trains_the_last_step_only() -> None:
    made = Made(BundleConfig(history=2, ahead=2, pushforward=2))
    torch.manual_seed(0)
    calls = []
    for _ in range(30):
        network = Exact(made)
        made.task.losses(network, made.inputs, made.fields)
        calls.append(network.calls)
    assert set(calls) == {1, 2, 3}

    class Off(Exact):
        """Wrong by one in every prediction."""

        def __init__(self, made: Made) -> None:
            super().__init__(made)
            self.error = nn.Parameter(torch.ones(()))

        def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
            return super().forward(numbers, fields) + self.error

    losses = []
    for seed in range(12):
        network = Off(made)
        torch.manual_seed(seed)
        loss = made.task.losses(network, made.inputs, made.fields).mean()
        torch.autograd.backward(loss)
        pushes = network.calls - 1
        losses.append((pushes, float(loss.detach())))
        assert network.error.grad is not None
        # The start is off by `pushes`, which the target takes into account; its gradient is cut.
        assert float(network.error.grad) == pytest.approx(2 * (1 + pushes), rel=0.01)
        assert float(loss.detach()) == pytest.approx((1 + pushes) ** 2, rel=0.01)
    assert {pushes for pushes, _ in losses} == {0, 1, 2}


def test_parts_of_a_long_sample_are_drawn_afresh() -> None:
    made = Made(NextConfig(trajectory=4))
    seen: set[float] = set()

    class Watch(Exact):
        def forward(self, numbers: Tensor, fields: Tensor) -> Tensor:
            n = made.normalization
            seen.update((numbers[:, 1] * n.input_scale[2] + n.input_offset[2]).tolist())
            return super().forward(numbers, fields)

    for _ in range(20):
        made.task.losses(Watch(made), made.inputs, made.fields)
    starts = made.inputs[:, 2:5].flatten().tolist()  # the last snapshot can only be a target
    assert {round(each, 3) for each in seen} == {round(each, 3) for each in starts}
