import pytest
import torch

from trainers.tasks.losses import LOSSES

ALL = pytest.mark.parametrize("name", sorted(LOSSES))


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (6, 2, 5, 7)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@ALL
def test_zero_where_equal_and_positive_elsewhere(
    name: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    prediction, truth = pair
    assert torch.equal(LOSSES[name](truth, truth), torch.zeros(6))
    assert (LOSSES[name](prediction, truth) > 0).all()


@ALL
def test_a_sample_does_not_depend_on_the_others(
    name: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    prediction, truth = pair
    whole = LOSSES[name](prediction, truth)
    alone = torch.cat([LOSSES[name](prediction[i : i + 1], truth[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(whole, alone)


@ALL
def test_finite_with_a_finite_gradient_where_the_truth_is_zero(name: str) -> None:
    prediction = torch.zeros(3, 1, 5, 7, requires_grad=True)
    loss = LOSSES[name](prediction, torch.zeros(3, 1, 5, 7)).sum()
    torch.autograd.backward(loss)
    assert prediction.grad is not None
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()


def test_values_of_a_known_error(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, truth = pair
    torch.testing.assert_close(LOSSES["mse"](truth + 0.3, truth), torch.full((6,), 0.09))
    torch.testing.assert_close(LOSSES["mae"](truth - 0.3, truth), torch.full((6,), 0.3))
    torch.testing.assert_close(LOSSES["relative_l2"](truth * 1.2, truth), torch.full((6,), 0.2))
