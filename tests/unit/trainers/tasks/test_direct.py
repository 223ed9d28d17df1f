from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.array_source import (
    GRID,
    linear_problem,
    linear_samples,
    linear_source,
    nothing_given,
)
from trainers.base import Input, Problem
from trainers.config import TrainerConfig
from trainers.configs.models import MlpConfig
from trainers.tasks.build import build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization


class Constant(nn.Module):
    """Remembers what it saw; predicts one normalised number everywhere."""

    def __init__(self, value: float, field_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value, self.field_shape = value, field_shape
        self.seen = self.given = torch.empty(0)

    def forward(self, inputs: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        self.seen, self.given = inputs, given
        return torch.full((len(inputs), *self.field_shape), self.value)


@pytest.fixture
def normalization() -> Normalization:
    return Normalization.of(linear_source().moments(), linear_problem())


def direct(problem: Problem, normalization: Normalization) -> Direct:
    task = build_task(TrainerConfig(), problem, normalization, torch.device("cpu"))
    assert isinstance(task, Direct)
    return task


def make(normalization: Normalization, window: int = 1) -> Direct:
    problem = linear_problem(window=window)
    return direct(problem, normalization)


def test_the_network_sees_normalised_inputs_and_predicts_in_field_units(
    normalization: Normalization,
) -> None:
    task = make(normalization)
    network = Constant(0.5, task.problem.field_shape)
    fields = task.predict(
        network, torch.tensor([[100, 3, 0.25], [500, -2, 0]], dtype=torch.float64), nothing_given(2)
    )
    torch.testing.assert_close(network.seen, torch.tensor([[-1.0, 1.0, 0.0], [1.0, -1.0, -1.0]]))
    assert fields.shape == (2, 1, 2, 5, 7)
    expected = normalization.field_offset + 0.5 * normalization.field_scale
    np.testing.assert_allclose(fields[1, 0, :, 3, 2], expected, rtol=1e-6)


def test_the_loss_is_that_of_normalised_fields(normalization: Normalization) -> None:
    task = make(normalization)
    fields, inputs = (
        torch.from_numpy(each) for each in linear_samples(np.random.default_rng(1), 9)
    )
    losses = task.losses(Constant(0.25, task.problem.field_shape), inputs, fields)
    scaled = (np.moveaxis(fields.numpy(), 2, -1) - normalization.field_offset) / (
        normalization.field_scale
    )
    np.testing.assert_allclose(losses, ((scaled - 0.25) ** 2).mean((1, 2, 3, 4)), rtol=1e-4)


def test_a_window_counts_as_so_many_pairs(normalization: Normalization) -> None:
    task = make(normalization, window=3)
    rng = np.random.default_rng(1)
    fields, inputs = (torch.from_numpy(each) for each in linear_samples(rng, 4, window=3))
    network = Constant(0.0, task.problem.field_shape)
    losses = task.losses(network, inputs, fields)
    assert losses.shape == (4,)
    assert network.seen.shape == (12, 3)
    single = make(normalization)
    apart = [
        single.losses(
            network, torch.cat([inputs[:, :2], inputs[:, 2 + k, None]], 1), fields[:, [k]]
        )
        for k in range(3)
    ]
    torch.testing.assert_close(losses, torch.stack(apart).mean(0))
    assert task.predict(network, inputs, nothing_given(4, window=3)).shape == (4, 3, 2, 5, 7)


def test_what_is_given_in_is_not_written_to(normalization: Normalization) -> None:
    task = make(normalization)
    fields, inputs = (
        torch.from_numpy(each) for each in linear_samples(np.random.default_rng(1), 9)
    )
    before = fields.clone(), inputs.clone()
    task.losses(Constant(0.0, task.problem.field_shape), inputs, fields)
    task.predict(Constant(0.0, task.problem.field_shape), inputs, nothing_given(9))
    assert torch.equal(before[0], fields)
    assert torch.equal(before[1], inputs)


def test_input_fields_are_given_and_seeds_are_not_seen() -> None:
    problem = replace(
        linear_problem(),
        input_fields=("pressure",),
        parameters=(
            Input(name="seed", unit="1", low=0.0, high=1e6, learnt=False),
            Input(name="load", unit="Pa", low=-2.0, high=3.0),
        ),
    )
    normalization = Normalization.of(linear_source().moments(), problem)
    task = direct(problem, normalization)
    assert task.problem.field_shape == (1, *GRID)
    fields, inputs = (
        torch.from_numpy(each) for each in linear_samples(np.random.default_rng(1), 9)
    )
    network = Constant(0.25, task.problem.field_shape)
    losses = task.losses(network, inputs, fields)
    offset, scale = normalization.field_offset, normalization.field_scale
    assert network.seen.shape == (9, 2)  # load and time
    torch.testing.assert_close(network.seen[:, 0], ((inputs[:, 1] - 0.5) / 2.5).float())
    pressure = (fields[:, 0, 1:].numpy() - offset[1]) / scale[1]
    np.testing.assert_allclose(network.given, pressure, rtol=1e-4, atol=1e-6)
    temperature = (fields[:, 0, 0].numpy() - offset[0]) / scale[0]
    np.testing.assert_allclose(losses, ((temperature - 0.25) ** 2).mean((1, 2)), rtol=1e-4)
    predicted = task.predict(network, inputs, fields[:, :, 1:])
    np.testing.assert_allclose(network.given, pressure, rtol=1e-4, atol=1e-6)
    assert predicted.shape == (9, 1, 1, *GRID)
    np.testing.assert_allclose(predicted, offset[0] + 0.25 * scale[0], rtol=1e-6)


def test_half_precision_samples_are_computed_with_in_single(normalization: Normalization) -> None:
    task = make(normalization)
    fields, inputs = (
        torch.from_numpy(each) for each in linear_samples(np.random.default_rng(1), 9)
    )
    network = task.network(MlpConfig(hidden=(8,)))
    torch.testing.assert_close(
        task.losses(network, inputs, fields.half()),
        task.losses(network, inputs, fields.half().float()),
    )
