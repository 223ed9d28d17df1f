"""Which libraries a study's loggers need; asked on a login node, too, so nothing is imported.

Invariant (``tests/unit/trainers/loop/test_loggers.py``): a logger whose library is missing is
named once, with the line that installs it.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from trainers.config import LoggerConfig

LIBRARIES: Final = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def missing_libraries(loggers: Sequence[LoggerConfig]) -> list[str]:
    """A line for each logger that cannot work in this environment."""
    kinds = dict.fromkeys(each.kind for each in loggers)
    return [
        f"trainer.loggers={kind}: the Python package {LIBRARIES[kind]} is not installed here. "
        f"Install it (pip install -r tools/requirements-{kind}.txt), or leave this logger out"
        for kind in kinds
        if find_spec(LIBRARIES[kind]) is None
    ]
