"""The task that a study asks for."""

import torch

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.configs.tasks import DirectConfig, OperatorConfig
from trainers.tasks.direct import Direct
from trainers.tasks.losses import LOSSES, Loss, weighted
from trainers.tasks.normalization import Normalization
from trainers.tasks.scaling import Scaling
from trainers.tasks.stepping import Stepping

Task = Direct | Stepping


def build_task(
    config: TrainerConfig, problem: Problem, normalization: Normalization, device: torch.device
) -> Task:
    """The task that a study asks for."""
    scaling, loss = Scaling(problem, normalization, device), _loss(config, problem, device)
    if isinstance(config.task, DirectConfig | OperatorConfig):
        return Direct(loss, problem, scaling, device)
    return Stepping(config.task, loss, problem, scaling, device)


def _loss(config: TrainerConfig, problem: Problem, device: torch.device) -> Loss:
    if not config.field_weights:
        return LOSSES[config.loss]
    names = problem.field_names[: problem.num_predicted]
    weights = [config.field_weights.get(name, 1.0) for name in names]
    return weighted(LOSSES[config.loss], torch.tensor(weights, device=device))
