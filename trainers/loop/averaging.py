"""A moving average of a network's weights, which is smoother than the weights themselves.

    average <- d * average + (1 - d) * weights,     d = min(decay, (1 + n) / (10 + n))

after train step n = 0, 1, ...: early on, when little was averaged, the newest weights count more
(``num_updates`` of TensorFlow's ``ExponentialMovingAverage``). Buffers are copied.

Invariants (``tests/unit/trainers/loop/test_averaging.py``):

1. The average is that of the formula.
2. The network itself is only read.
"""

import copy
from typing import final

import torch
from torch import Tensor, nn


@final
class Average:
    """Follows one network.

    Attributes:
        model: A network with the averaged weights, to validate and export.
        updates: Train steps that were averaged over.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._followed, self._decay = model, decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a train step."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine: list[Tensor] = list(self.model.parameters())
        theirs: list[Tensor] = list(self._followed.parameters())
        torch._foreach_lerp_(mine, theirs, 1.0 - decay)
        for kept, new in zip(self.model.buffers(), self._followed.buffers(), strict=True):
            kept.copy_(new)
