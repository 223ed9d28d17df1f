"""The finished surrogate as files, and back as something to call.

``model.safetensors`` holds the weights; ``card.json`` everything else: how it was trained, the
normalisation, names, units, ranges and errors. There is no pickle in either.

1. The card is written last and at once: where there is one, the folder is complete
   (``tests/unit/trainers/surrogate/test_export.py``).
"""

import platform
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.models.registry import count_weights
from trainers.results import TrainStats
from trainers.surrogate import card
from trainers.surrogate.surrogate import Surrogate
from trainers.tasks.build import build_task
from trainers.tasks.normalization import Normalization
from trainers.validation.evaluate import evaluating
from trainers.validation.speed import query_time


def export(
    folder: Path,
    model: nn.Module,
    config: TrainerConfig,
    problem: Problem,
    normalization: Normalization,
    stats: TrainStats,
) -> None:
    """Write ``model.safetensors`` and the card into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    query = None if stats.validation is None else stats.validation.query
    if query is None:
        device = next(model.parameters()).device
        with evaluating(model):
            query = query_time(build_task(config, problem, normalization, device), model)
    facts = {
        "format": card.FORMAT,
        "trainer": config.model_dump(mode="json"),
        "network": {"parameters": count_weights(model)},
        "problem": asdict(problem),
        "normalization": normalization.as_json(),
        "weights_seed": torch.initial_seed(),
        "train_steps": stats.train_step,
        "validation": None if stats.validation is None else asdict(stats.validation),
        "query": asdict(query),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    card.write(folder, facts)


def load_surrogate(path: Path | str, outside: str = "warn") -> Surrogate:
    """Read an exported surrogate.

    Args:
        path: The folder with ``card.json``, or a run directory that has it under ``model/``.
        outside: What it does when it is asked outside of its training range: ``"warn"``,
            ``"raise"`` a ``ValueError``, or ``"ignore"`` it.

    Raises:
        FileNotFoundError: There is no complete surrogate.
        ValueError: It is of a format that this version does not know, or ``outside`` is none of
            the three.
    """
    folder = card.find(path)
    return Surrogate.read(folder, card.read(folder), outside=outside)
