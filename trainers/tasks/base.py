"""One way to use a network on the samples of a problem."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.configs.models import AnyModelConfig
from trainers.tasks.losses import LOSSES, Loss, weighted


class Compared(NamedTuple):
    """Predictions and what the solver says, in the fields' units."""

    prediction: Float32[Tensor, " batch snapshot channel *grid"]
    truth: Float32[Tensor, " batch snapshot channel *grid"]


@runtime_checkable
class Task(Protocol):
    """One way to use a network on the samples of a problem."""

    @property
    def problem(self) -> Problem:
        """Names, units, shapes and ranges of what is learnt."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    def network(self, config: AnyModelConfig) -> nn.Module:
        """A fresh network of the sizes that this task needs."""
        ...

    def losses(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Float32[Tensor, " batch"]:
        """Loss of each sample, of normalised fields."""
        ...

    def one_step(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Compared:
        """Prediction of one evaluation of the network for each sample, and the truth."""
        ...


def loss_of(config: TrainerConfig, problem: Problem, device: torch.device) -> Loss:
    """The loss of a study, with its weights."""
    if not config.field_weights:
        return LOSSES[config.loss]
    names = problem.field_names[: problem.num_predicted]
    weights = [config.field_weights.get(name, 1.0) for name in names]
    return weighted(LOSSES[config.loss], torch.tensor(weights, device=device))
