"""How far a prediction is from the truth, one number per sample.

Invariants (``tests/unit/test_trainer_losses.py``):

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


LOSSES: Final[dict[str, Loss]] = {
    "mse": mse,
    "mae": mae,
    "relative_l2": relative_l2,
}
