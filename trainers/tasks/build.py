"""The task that a study asks for."""

import torch

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.configs.tasks import DirectConfig, OperatorConfig
from trainers.tasks.base import Task, loss_of
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization
from trainers.tasks.scaling import Scaling
from trainers.tasks.stepping import Stepping


def build_task(
    config: TrainerConfig, problem: Problem, normalization: Normalization, device: torch.device
) -> Task:
    """The task that a study asks for."""
    scaling = Scaling(problem, normalization, device)
    loss = loss_of(config, problem, device)
    if isinstance(config.task, DirectConfig | OperatorConfig):
        return Direct(loss, problem, scaling, device)
    return Stepping(config.task, loss, problem, scaling, device)
