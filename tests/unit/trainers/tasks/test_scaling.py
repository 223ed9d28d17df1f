"""trainers/tasks/scaling.py: between physical numbers and those that a network sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.array_source import linear_problem, linear_source
from trainers.base import Input
from trainers.tasks.normalization import Normalization
from trainers.tasks.scaling import Scaling

CONSTANT = Input(name="load", unit="Pa", low=0.1, high=0.1)


def scaling(first: Input, second: Input = CONSTANT) -> Scaling:
    problem = replace(linear_problem(), parameters=(first, second))
    normalization = Normalization.of(linear_source().moments(), problem)
    return Scaling(problem, normalization, torch.device("cpu"))


def seen(first: Input, values: list[float]) -> np.ndarray:
    rows = torch.tensor([[value, 0.1, 0.25] for value in values], dtype=torch.float64)
    numbers = scaling(first).normalise_inputs(rows)
    assert numbers.dtype == torch.float32
    assert (numbers[:, 1:] == 0).all()  # what is constant, and the middle of the times
    return numbers[:, 0].numpy()


@pytest.mark.parametrize(
    ("low", "high"), [(1.7e9, 1.7e9 + 60), (1e6, 1e6 + 1), (101_325.0, 101_325.2), (-3e-9, 5e-9)]
)
def test_a_narrow_range_keeps_its_values_however_far_from_zero(low: float, high: float) -> None:
    places = np.linspace(-1.0, 1.0, 4001)
    values = (low + high) / 2 + places * (high - low) / 2
    numbers = seen(Input(name="clock", unit="s", low=low, high=high), values.tolist())
    assert np.unique(numbers).size == 4001
    np.testing.assert_allclose(numbers, places, atol=1e-6)


def test_the_quartiles_of_a_log_uniform_range_are_evenly_spaced() -> None:
    quartiles = (2.0 * 5000.0 ** np.linspace(0.0, 1.0, 5)).tolist()
    rate = Input(name="rate", unit="1/s", low=2.0, high=1e4, log=True)
    np.testing.assert_allclose(seen(rate, quartiles), [-1, -0.5, 0, 0.5, 1], atol=1e-6)
    linear = seen(replace(rate, log=False), quartiles)
    np.testing.assert_allclose(linear, [-1, -0.9970, -0.9721, -0.7626, 1], atol=1e-4)


def test_a_logarithm_leaves_the_gradients_of_the_others_alone() -> None:
    rate = Input(name="rate", unit="1/s", low=2.0, high=1e4, log=True)
    rows = torch.tensor([[20.0, -0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    numbers = scaling(rate, Input(name="load", unit="Pa", low=-2.0, high=2.0)).normalise_inputs(
        rows
    )
    (gradient,) = torch.autograd.grad(numbers.sum(), rows)
    np.testing.assert_allclose(gradient[0], [2 / np.log(5000) / 20, 0.5, 4.0], rtol=1e-6)


def test_what_has_no_logarithm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'rate': 0 1/s has no logarithm"):
        Input(name="rate", unit="1/s", low=0.0, high=1.0, log=True)
