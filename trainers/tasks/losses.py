"""How far a prediction is from the truth, one number per sample.

Invariants (``tests/unit/trainers/tasks/test_losses.py``):

1. Zero where prediction and truth are equal, positive elsewhere.
2. A sample's loss does not depend on the other samples of its batch.
3. Finite, and with a finite gradient, where the truth is zero.
"""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float32
from torch import Tensor

Batch = Float32[Tensor, " batch *field"]
PerSample = Float32[Tensor, " batch"]
Loss = Callable[[Batch, Batch], PerSample]


def mse(prediction: Batch, truth: Batch) -> PerSample:
    """Mean of the squared error."""
    return (prediction - truth).square().flatten(1).mean(1)


def mae(prediction: Batch, truth: Batch) -> PerSample:
    """Mean of the absolute error."""
    return (prediction - truth).abs().flatten(1).mean(1)


def relative_l2(prediction: Batch, truth: Batch) -> PerSample:
    """``||prediction - truth|| / ||truth||``; root mean squares have a floor of 1e-6."""
    floor = 1e-12
    error = (prediction - truth).square().flatten(1).mean(1)
    size = truth.square().flatten(1).mean(1)
    # The floor keeps the root's gradient finite at zero error; taking its root off keeps zero zero.
    root = torch.sqrt(error + floor) - torch.sqrt(torch.full_like(error, floor))
    return root / torch.sqrt(size + floor)


def h1(prediction: Batch, truth: Batch) -> PerSample:
    """Mean squared error of the fields and of their gradients, lengths in units of the domain.

    Gradients are differences of neighbours; an axis with a single point has none.
    """
    error = prediction - truth
    total = error.square().flatten(1).mean(1)
    for axis in range(2, error.dim()):
        points = error.shape[axis]
        if points > 1:
            slope = torch.diff(error, dim=axis) * (points - 1)
            total = total + slope.square().flatten(1).mean(1)
    return total


def weighted(loss: Loss, weights: Float32[Tensor, " channel"]) -> Loss:
    """``loss`` in which the error of each channel counts by its weight; on average by 1.

    Args:
        loss: One of ``LOSSES``.
        weights: One per channel of a prediction.
    """
    scale = weights / weights.mean()
    if loss is not mae:  # all others are of squares
        scale = torch.sqrt(scale)

    def scaled(prediction: Batch, truth: Batch) -> PerSample:
        factors = scale.view(-1, *[1] * (truth.dim() - 2))
        return loss(prediction * factors, truth * factors)

    return scaled


LOSSES: Final[dict[str, Loss]] = {
    "mse": mse,
    "mae": mae,
    "relative_l2": relative_l2,
    "h1": h1,
}
