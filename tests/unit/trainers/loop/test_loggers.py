import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.array_source import linear_problem, linear_source
from trainers.config import TrainerConfig
from trainers.libraries import LIBRARIES, missing_libraries
from trainers.loop.lockstep import World
from trainers.loop.loggers import MLFLOW_FILE
from trainers.results import TrainStats
from trainers.trainer import train

FIGURES = {
    "loss",
    "learning_rate",
    "samples_per_second",
    "wait_seconds",
    "validation/error",
    "validation/temperature/mse",
    "validation/temperature/nrmse",
    "validation/pressure/mse",
    "validation/pressure/nrmse",
}


def config(*loggers: dict[str, str]) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {
            "batch": 6,
            "model": {"kind": "mlp", "hidden": [20]},
            "validate_every": 40,
            "log_every": 25,
            "loggers": loggers,
        }
    )


def trained(out: Path | None, *loggers: dict[str, str]) -> TrainStats:
    source = linear_source(batches=90)
    return train(source, config(*loggers), linear_problem(), world=World(), out=out)


def test_tensorboard_files_hold_every_figure(tmp_path: Path) -> None:
    from tensorboardX.proto import event_pb2

    stats = trained(tmp_path, {"kind": "tensorboard"})
    (path,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    found: dict[str, list[tuple[int, float]]] = {}
    content = path.read_bytes()
    while content:  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[16 + length :]
    assert found.keys() == FIGURES
    assert [step for step, _ in found["loss"]] == [25, 50, 75, 90]
    assert found["loss"][-1][1] == pytest.approx(stats.loss)
    assert found["learning_rate"][0][1] == pytest.approx(1e-3)
    assert all(rate > 0 for _, rate in found["samples_per_second"])
    assert [step for step, _ in found["validation/error"]] == [40, 80, 90]
    assert stats.validation is not None
    assert found["validation/error"][-1][1] == pytest.approx(stats.validation.error)


def test_a_run_of_wandb_is_kept_offline(tmp_path: Path, project: Path) -> None:
    pytest.importorskip("wandb", reason="pip install -r tools/requirements-wandb.txt")
    # In a process of its own: what wandb starts and imports ends with it.
    code = (
        "import sys; from pathlib import Path; "
        "from tests.unit.trainers.loop.test_loggers import trained;"
        "trained(Path(sys.argv[1]), {'kind': 'wandb', 'project': 'dam'})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "study")], cwd=project, check=True)
    (folder,) = (tmp_path / "study" / "wandb").glob("offline-run-*")
    (path,) = folder.glob("run-*.wandb")
    content = path.read_bytes()
    for name in FIGURES:
        assert name.encode() in content, name
    assert b"dam" in content


def test_a_run_of_mlflow_is_kept_in_the_run_directory(tmp_path: Path, project: Path) -> None:
    pytest.importorskip("mlflow", reason="pip install -r tools/requirements-mlflow.txt")
    code = (
        "import sys; from pathlib import Path; "
        "from tests.unit.trainers.loop.test_loggers import trained;"
        "trained(Path(sys.argv[1]), {'kind': 'mlflow', 'experiment': 'dam'})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "study")], cwd=project, check=True)
    with sqlite3.connect(tmp_path / "study" / MLFLOW_FILE) as base:
        rows = base.execute("select key, step from metrics").fetchall()
        (name,) = base.execute("select name from experiments where name != 'Default'").fetchone()
    assert {key for key, _ in rows} == FIGURES
    assert sorted(step for key, step in rows if key == "loss") == [25, 50, 75, 90]
    assert name == "dam"


def test_a_missing_library_is_an_error_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(LIBRARIES, "wandb", "no_such_library")
    (line,) = missing_libraries(config({"kind": "wandb"}, {"kind": "tensorboard"}).loggers)
    assert line == (
        "trainer.loggers=wandb: the Python package no_such_library is not installed here. Install "
        "it (pip install -r tools/requirements-wandb.txt), or leave this logger out"
    )
    source = linear_source(batches=90)
    settings = config({"kind": "wandb"})
    with pytest.raises(ValueError, match=r"trainer\.loggers=wandb: the Python package"):
        train(source, settings, linear_problem(), world=World(), out=tmp_path)
    assert source.drawn == []


@pytest.mark.parametrize("kind", sorted(LIBRARIES))
def test_the_line_that_installs_a_library_works(kind: str, project: Path) -> None:
    text = (project / "tools" / f"requirements-{kind}.txt").read_text()
    assert any(line.startswith(LIBRARIES[kind]) for line in text.splitlines())
    assert f"optional-dependencies.{kind} = " in (project / "pyproject.toml").read_text()


def test_without_a_run_directory_nothing_is_logged() -> None:
    assert trained(None, {"kind": "tensorboard"}).train_step == 90


def test_only_rank_0_has_loggers(tmp_path: Path) -> None:
    from trainers.log import Log

    with Log(None, config({"kind": "tensorboard"}), World(rank=1, size=2), tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_importing_it_brings_no_library(project: Path) -> None:
    code = (
        "import sys, json, trainers.loop.loggers;"
        f"print(json.dumps([n for n in {sorted(LIBRARIES.values())} if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("logger", "limit"),
    [
        ({"kind": "comet"}, "'tensorboard', 'wandb', 'mlflow'"),
        ({"kind": "wandb", "mode": "shared"}, "'offline' or 'online'"),
        ({"kind": "wandb", "project": ""}, "at least 1 character"),
        ({"kind": "mlflow", "experiment": ""}, "at least 1 character"),
        ({"kind": "tensorboard", "folder": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_logger_is_refused(logger: dict[str, str], limit: str) -> None:
    with pytest.raises(ValidationError, match=limit):
        config(logger)
