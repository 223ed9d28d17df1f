"""Tries a network and its task on two samples, before anything is started."""

from typing import Final

import numpy as np
import torch

from trainers.base import Moments, Problem
from trainers.config import TrainerConfig
from trainers.tasks.build import build_task
from trainers.tasks.normalization import Normalization

SAMPLES: Final = 2


def try_out(config: TrainerConfig, problem: Problem) -> None:
    """Build the network, and take its gradient and one prediction of random samples.

    Raises:
        Exception: Whatever the network does.
    """
    torch.manual_seed(0)
    normalization = Normalization.of(_plain(problem), problem)
    task = build_task(config, problem, normalization, torch.device("cpu"))
    network = task.network(config.model)
    inputs = torch.rand(SAMPLES, problem.num_inputs, dtype=torch.float64)
    fields = torch.randn(SAMPLES, problem.window, len(problem.field_names), *problem.shape)
    torch.autograd.backward(task.losses(network.train(), inputs, fields).mean())
    with torch.no_grad():
        task.one_step(network.eval(), inputs, fields)


def _plain(problem: Problem) -> Moments:
    """Statistics of samples that need no normalisation."""
    channels = np.zeros(len(problem.field_names))
    return Moments(
        count=1,
        field_count=1,
        field_mean=channels,
        field_m2=channels + 1.0,
        step_count=1,
        step_m2=channels + 1.0,
        time_low=problem.time.low,
        time_high=problem.time.high,
    )
