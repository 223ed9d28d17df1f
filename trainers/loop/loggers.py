"""Who else is told of losses and errors: TensorBoard, Weights & Biases, MLflow.

One small interface, a class for each library, which is imported when a study asks for it. Only
rank 0 has loggers.

Invariants (``tests/unit/trainers/loop/test_loggers.py``):

1. A library that is missing is an error before anything is trained, and says how to get it.
2. Nothing leaves the machine unless the study says so.
3. Importing this module brings none of the libraries.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

from trainers.config import (
    LoggerConfig,
    MlflowConfig,
    TensorBoardConfig,
    TrainerConfig,
    WandbConfig,
)
from trainers.libraries import missing_libraries

MLFLOW_FILE: Final = "mlflow.db"
# Both libraries report on their own use and errors, to their makers; an operator's values win.
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}


@runtime_checkable
class Logger(Protocol):
    """Where figures of one training go."""

    def log(self, train_step: int, figures: Mapping[str, float]) -> None:
        """Keep figures by name, such as ``loss`` or ``validation/mse``."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def open_loggers(config: TrainerConfig, out: Path) -> list[Logger]:
    """The loggers of a study.

    Args:
        config: Names them, and is kept by those that keep settings.
        out: Run directory, which files go to.

    Raises:
        ValueError: A library is not installed.
    """
    if found := missing_libraries(config.loggers):
        raise ValueError("; ".join(found))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    settings = config.model_dump(mode="json")
    return [_opened(each, settings, out) for each in config.loggers]


def _opened(config: LoggerConfig, settings: dict[str, Any], out: Path) -> Logger:
    if isinstance(config, TensorBoardConfig):
        return TensorBoard(out / "tensorboard")
    if isinstance(config, WandbConfig):
        return Wandb(config, settings, out)
    return Mlflow(config, settings, out)


@final
class TensorBoard:
    """Event files, written by tensorboardX: TensorBoard itself is only needed to look at them."""

    def __init__(self, folder: Path) -> None:
        self._writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder))

    def log(self, train_step: int, figures: Mapping[str, float]) -> None:
        """A scalar each."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, train_step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


@final
class Wandb:
    """A run of Weights & Biases; offline ones are sent later with ``wandb sync``."""

    def __init__(self, config: WandbConfig, settings: dict[str, Any], out: Path) -> None:
        wandb = importlib.import_module("wandb")
        out.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=config.project,
            name=out.name,
            mode=config.mode,
            dir=str(out),
            config=settings,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, train_step: int, figures: Mapping[str, float]) -> None:
        """A row of the run's history."""
        self._run.log(dict(figures), step=train_step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


@final
class Mlflow:
    """A run of an MLflow experiment."""

    def __init__(self, config: MlflowConfig, settings: dict[str, Any], out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        tracking = importlib.import_module("mlflow.tracking")
        uri = config.uri or f"sqlite:///{out.resolve() / MLFLOW_FILE}"
        self._client = tracking.MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(config.experiment)
        experiment = (
            self._client.create_experiment(config.experiment)
            if known is None
            else known.experiment_id
        )
        self._run = self._client.create_run(experiment, run_name=out.name).info.run_id
        for name in ("batch", "ranks", "precision", "loss"):
            self._client.log_param(self._run, name, settings[name])

    def log(self, train_step: int, figures: Mapping[str, float]) -> None:
        """A metric each."""
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=train_step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)
