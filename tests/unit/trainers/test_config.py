import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from trainers.config import (
    ConstantConfig,
    CosineConfig,
    PlateauConfig,
    StepConfig,
    TrainerConfig,
)
from trainers.configs.models import MlpConfig


def test_the_design_document_example_is_read() -> None:
    config = TrainerConfig.model_validate(
        {
            "ranks": 2,
            "batch": 10,
            "task": {"kind": "direct"},
            "model": {"kind": "mlp", "hidden": [256, 256]},
            "optimizer": {"kind": "adam", "lr": 1.0e-3, "weight_decay": 1.0e-4},
        }
    )
    assert config.model == MlpConfig(hidden=(256, 256))
    assert config.optimizer.weight_decay == 1.0e-4
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("path", "value", "limit"),
    [
        (("ranks",), 0, "greater than or equal to 1"),
        (("batch",), 0, "greater than or equal to 1"),
        (("model", "hidden"), [256, 0], "greater than or equal to 1"),
        (("model", "activation"), "softplus", "'relu'"),
        (("optimizer", "lr"), 0.0, "greater than 0"),
        (("optimizer", "lr"), float("nan"), "less than or equal to 10"),
        (("optimizer", "weight_decay"), -0.1, "greater than or equal to 0"),
        (("schedule", "warmup_steps"), -1, "greater than or equal to 0"),
        (("gradient_clip",), 0.0, "greater than 0"),
        (("gradient_clip",), float("inf"), "finite"),
        (("validate_every",), 0, "greater than or equal to 1"),
        (("log_every",), 0, "greater than or equal to 1"),
        (("lease_batches",), 0, "greater than or equal to 1"),
        (("threads",), 0, "greater than or equal to 1"),
        (("device",), "tpu", "'cuda'"),
        (("task", "window"), 0, "greater than or equal to 1"),
        (("accumulate",), 0, "greater than or equal to 1"),
        (("ema",), 1.0, "less than 1"),
        (("ema",), 0.0, "greater than 0"),
        (("precision",), "float64", "'bfloat16'"),
        (("early_stop", "patience"), 0, "greater than or equal to 1"),
        (("early_stop", "min_delta"), -0.1, "greater than or equal to 0"),
        (("after_production", "steps"), 0, "greater than or equal to 1"),
        (("plateau", "patience"), 0, "greater than or equal to 1"),
        (("plateau", "drop"), 1.5, "less than or equal to 1"),
    ],
)
def test_a_value_beyond_its_limit_is_refused(
    path: tuple[str, ...], value: object, limit: str
) -> None:
    tree: dict[str, object] = {path[-1]: value}
    sections = {
        "model": {"kind": "mlp"},
        "optimizer": {"kind": "adam"},
        "schedule": {"kind": "cosine"},
        "task": {"kind": "direct"},
        "after_production": {"kind": "steps"},
        "early_stop": {},
        "plateau": {"kind": "plateau"},
    }
    for name in reversed(path[:-1]):
        tree = {"schedule" if name == "plateau" else name: {**sections[name], **tree}}
    with pytest.raises(ValidationError, match=limit):
        TrainerConfig.model_validate(tree)


@pytest.mark.parametrize(
    "section", [None, "task", "model", "optimizer", "schedule", "after_production", "early_stop"]
)
def test_unknown_keys_are_refused_at_every_level(section: str | None) -> None:
    kinds = {
        "model": "mlp",
        "optimizer": "adamw",
        "schedule": "step",
        "task": "direct",
        "after_production": "stop",
    }
    inner = {"kind": kinds[section]} if section in kinds else {}
    wrong = {"batchh": 3} if section is None else {section: {**inner, "batchh": 3}}
    with pytest.raises(ValidationError, match="batchh"):
        TrainerConfig.model_validate(wrong)


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantConfig(),
        CosineConfig(warmup_steps=30),
        StepConfig(warmup_steps=7),
        PlateauConfig(warmup_steps=11),
    ],
)
@pytest.mark.parametrize("expected_steps", [None, 1, 20, 1000])
def test_a_schedule_stays_between_zero_and_the_learning_rate(
    schedule: ConstantConfig | CosineConfig | StepConfig | PlateauConfig, expected_steps: int | None
) -> None:
    factors = [schedule.factor(step, expected_steps) for step in range(1500)]
    assert min(factors) > 0.0
    assert max(factors) <= 1.0


def test_cosine_falls_from_one_to_its_final_factor_and_stays() -> None:
    schedule = CosineConfig(final=0.1)
    assert schedule.factor(0, 200) == 1.0
    assert schedule.factor(100, 200) == pytest.approx(0.55)
    assert schedule.factor(200, 200) == pytest.approx(0.1)
    assert schedule.factor(5000, 200) == pytest.approx(0.1)


def test_warm_up_rises_in_equal_parts() -> None:
    schedule = ConstantConfig(warmup_steps=4)
    assert [schedule.factor(step, None) for step in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    )


def test_step_drops_after_each_part() -> None:
    schedule = StepConfig(stages=3, drop=0.5)
    factors = [schedule.factor(step, 90) for step in (0, 29, 30, 59, 60, 89, 500)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_importing_it_brings_no_torch(project: Path) -> None:
    code = "import sys, trainers.config, trainers.base; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == 0


def test_a_trainer_process_never_imports_the_other_side(project: Path) -> None:
    foreign = "('petsc4py', 'mpi4py', 'ray', 'zmq', 'pipeline', 'solvers')"
    code = (
        "import sys, trainers.trainer, trainers.models.mlp;"
        f"found = [name for name in {foreign} if name in sys.modules];"
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
