"""Tries somebody's own network in a process of its own, before anything else is started.

1. The answer comes within ``LIMIT_SECONDS``, or is an error.
2. Without torch, as on a login node, nothing can be said of the network, and nothing is.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline.study.config import StudyConfig
from pipeline.study.for_trainer import problem_of
from solvers.own.apart import answer, ask_apart
from solvers.own.load import Unusable, user_part
from trainers.base import Problem
from trainers.config import TrainerConfig
from trainers.configs.models import OwnModelConfig

LIMIT_SECONDS: Final = 300.0  # torch alone takes a minute to load from a busy shared disk


def network_problems(study: StudyConfig) -> list[str]:
    """What is wrong with the network and its task on two samples; nothing where it is not own."""
    config = study.trainer
    if not isinstance(config.model, OwnModelConfig) or find_spec("torch") is None:
        return []
    try:
        ask_apart(
            "pipeline.study.own_network",
            (config, problem_of(study)),
            what=f"trainer.model: {config.model.class_name} of {config.model.path}",
            limit=LIMIT_SECONDS,
            remedy="Make it smaller, or leave long work out of the file",
        )
    except Unusable as error:
        return error.problems
    return []


def _try_out(question: tuple[TrainerConfig, Problem]) -> None:
    """Build a network and its task once, and train them on two samples."""
    from trainers.tasks.trial import try_out

    config, problem = question
    assert isinstance(config.model, OwnModelConfig)
    try:
        try_out(config, problem)
    except Exception as error:
        line = str(error)
        if not line.startswith("trainer."):
            what, _ = user_part(error, Path(config.model.path))
            line = f"trainer.model: {config.model.class_name} cannot be trained: {what}. Correct it"
        raise Unusable([line]) from error


if __name__ == "__main__":
    answer(_try_out)
