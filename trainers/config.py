"""How a surrogate is trained, as it stands under ``trainer:`` in a study.

Invariants (``tests/unit/trainers/test_config.py``):

1. Importing it brings no torch: a study can be checked on a login node.
2. Unknown keys are refused at every level.
3. A schedule never raises the learning rate above ``optimizer.lr`` and never makes it negative.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from trainers.configs.models import (
    MlpConfig,  # a part of this config's own names
    ModelConfig,
)
from trainers.configs.models import Section as _Section
from trainers.configs.tasks import DirectConfig, TaskConfig


class AdamConfig(_Section):
    """Adam (arXiv:1412.6980); the weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0.0, le=10.0, description="learning rate")
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0, description="L2 penalty")


class AdamWConfig(_Section):
    """AdamW (arXiv:1711.05101); the weight decay is decoupled from the gradient."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0.0, le=10.0, description="learning rate")
    weight_decay: float = Field(default=1e-2, ge=0.0, le=1.0, description="decay per step and lr")


class _Schedule(_Section):
    warmup_steps: int = Field(
        default=0, ge=0, description="train steps over which the learning rate rises from zero"
    )

    def factor(self, train_step: int, expected_steps: int | None) -> float:
        """What ``optimizer.lr`` is multiplied with in a train step.

        Args:
            train_step: Train steps taken before this one.
            expected_steps: Train steps the stream is expected to allow; None where nobody knows.
                It may be wrong: from there on a schedule stays where it ended.
        """
        rise = min(1.0, (train_step + 1) / (self.warmup_steps + 1))
        if expected_steps is None:
            return rise
        length = max(1, expected_steps - self.warmup_steps)
        done = min(1.0, max(0, train_step - self.warmup_steps) / length)
        return rise * self._decay(done)

    def _decay(self, done: float) -> float:
        """Factor after a fraction ``done`` of the expected train steps."""
        raise NotImplementedError


class ConstantConfig(_Schedule):
    """The same learning rate all the time."""

    kind: Literal["constant"] = "constant"

    def _decay(self, done: float) -> float:
        return 1.0


class CosineConfig(_Schedule):
    """Half a cosine from ``lr`` down to ``final * lr``, over the expected train steps."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.01, ge=0.0, le=1.0, description="last factor of lr")

    def _decay(self, done: float) -> float:
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


class StepConfig(_Schedule):
    """``lr`` times ``factor`` after each of ``stages`` equal parts of the expected train steps."""

    kind: Literal["step"] = "step"
    stages: int = Field(default=4, ge=1, le=1000, description="parts of equal length")
    drop: float = Field(default=0.5, gt=0.0, le=1.0, description="factor from one part to the next")

    def _decay(self, done: float) -> float:
        return self.drop ** min(self.stages - 1, int(done * self.stages))


class PlateauConfig(_Schedule):
    """``lr`` times ``drop`` whenever the validation error has not fallen for a while."""

    kind: Literal["plateau"] = "plateau"
    patience: int = Field(
        default=3, ge=1, le=10_000, description="validations without a lower error before a drop"
    )
    drop: float = Field(default=0.5, gt=0.0, le=1.0, description="factor of a drop")

    def _decay(self, done: float) -> float:
        return 1.0  # the drops are counted by trainers/loop/progress.py


class EarlyStopConfig(_Section):
    """Training stops when the validation error has not fallen for a while."""

    patience: int = Field(
        default=10, ge=1, le=10_000, description="validations without a lower error before the stop"
    )
    min_delta: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="how much lower the relative error must be to count as lower",
    )


class DrainAfter(_Section):
    """Draws go on until the reuse asked for is reached and every sample was drawn."""

    kind: Literal["drain"] = "drain"


class StopAfter(_Section):
    """Training ends at once, with the batches that are leased already."""

    kind: Literal["stop"] = "stop"


class StepsAfter(_Section):
    """As ``drain``, then uniformly over what is held for a number of train steps."""

    kind: Literal["steps"] = "steps"
    steps: int = Field(
        default=1000, ge=1, le=1_000_000_000, description="train steps after the drain"
    )


class TensorBoardConfig(_Section):
    """Event files under ``tensorboard/`` in the run directory."""

    kind: Literal["tensorboard"] = "tensorboard"


class WandbConfig(_Section):
    """Weights & Biases, under ``wandb/`` in the run directory."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field(default="headrace", min_length=1, description="name of the project")
    mode: Literal["offline", "online"] = Field(
        default="offline", description="whether anything leaves this machine"
    )


class MlflowConfig(_Section):
    """An MLflow tracking store."""

    kind: Literal["mlflow"] = "mlflow"
    experiment: str = Field(default="headrace", min_length=1, description="name of the experiment")
    uri: str | None = Field(
        default=None,
        min_length=1,
        description="of the tracking store; null: mlflow.db in the run directory",
    )


OptimizerConfig = Annotated[AdamConfig | AdamWConfig, Field(discriminator="kind")]
ScheduleConfig = Annotated[
    ConstantConfig | CosineConfig | StepConfig | PlateauConfig, Field(discriminator="kind")
]
AfterConfig = Annotated[DrainAfter | StopAfter | StepsAfter, Field(discriminator="kind")]
LoggerConfig = Annotated[
    TensorBoardConfig | WandbConfig | MlflowConfig, Field(discriminator="kind")
]


class TrainerConfig(_Section):
    """The training loop."""

    ranks: int = Field(default=1, ge=1, le=4096, description="data-parallel training processes")
    batch: int = Field(default=32, ge=1, le=1_048_576, description="samples per batch and rank")
    accumulate: int = Field(
        default=1, ge=1, le=65_536, description="batches per train step and rank"
    )
    task: TaskConfig = Field(default=DirectConfig(), description="what is predicted from what")
    model: ModelConfig = Field(default=MlpConfig(), description="the network")
    loss: Literal["mse", "mae", "relative_l2", "h1"] = Field(
        default="mse", description="what is minimised, on normalised fields"
    )
    field_weights: dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="how much each field counts in the loss; others count 1"
    )
    parameter_scales: dict[str, Literal["linear", "log"]] = Field(
        default_factory=dict,
        description="whether the network sees a parameter or its logarithm; others: log for "
        "loguniform, else linear",
    )
    optimizer: OptimizerConfig = Field(default=AdamConfig(), description="how weights are changed")
    schedule: ScheduleConfig = Field(
        default=ConstantConfig(), description="how the learning rate changes"
    )
    gradient_clip: float | None = Field(
        default=None,
        gt=0.0,
        allow_inf_nan=False,
        description="largest norm of the gradient; null: no limit",
    )
    ema: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="decay of a moving average of the weights, which is validated and exported "
        "in their place; null: none",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the network's matrix products in training"
    )
    compile: bool = Field(
        default=False, description="whether torch.compile makes the network faster"
    )
    early_stop: EarlyStopConfig | None = Field(
        default=None, description="when to stop before the simulations have ended; null: never"
    )
    after_production: AfterConfig = Field(
        default=DrainAfter(), description="what is trained on when the simulations have ended"
    )
    validate_every: int = Field(
        default=500, ge=1, description="train steps from one validation to the next"
    )
    log_every: int = Field(default=50, ge=1, description="train steps from one report to the next")
    loggers: tuple[LoggerConfig, ...] = Field(
        default=(), max_length=8, description="who else is told of losses and errors"
    )
    lease_batches: int = Field(
        default=32, ge=1, le=4096, description="batches drawn from the reservoir in one call"
    )
    staging_bytes: int = Field(
        default=268_435_456,
        ge=1,
        description="memory for batches gathered ahead; one is always possible",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    threads: int = Field(default=1, ge=1, le=4096, description="CPU threads of each rank")
