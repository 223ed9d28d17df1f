import math
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.array_source import ArraySource, linear_held, linear_problem, linear_samples
from tests.errors import made_errors
from tests.strict import strict_json
from trainers.base import Lease
from trainers.checkpoints.files import final_folder, newest_valid, steps_in
from trainers.checkpoints.saver import Checkpoints, Resumed, _validation
from trainers.config import TrainerConfig
from trainers.durable import json_text
from trainers.loop.lockstep import World
from trainers.results import Errors, TrainStats, ValidationResult
from trainers.trainer import train

BATCHES = 60
CONFIG = TrainerConfig.model_validate(
    {
        "batch": 6,
        "task": {"kind": "bundle", "history": 1, "ahead": 1, "pushforward": 1, "trajectory": 5},
        "model": {"kind": "mlp", "hidden": [24]},
        "validate_every": 20,
        "log_every": 5,
        "lease_batches": 4,
        "schedule": {"kind": "cosine"},
    }
)
WINDOW = 5


class Killed(Exception):
    """The source has gone."""


class Interrupted(ArraySource):
    """Batches from ``first`` on; gone, or asking to stop, after some of them.

    It goes only when there is a checkpoint of this part of the training.
    """

    checkpoints: Path | None = None

    def __init__(self, first: int = 0, *, gone: int = BATCHES, stop: int = BATCHES + 1) -> None:
        rng = np.random.default_rng(7)
        fields, inputs = linear_samples(rng, 90, window=WINDOW)
        batches = rng.integers(0, 90, (BATCHES, 6))[first:]
        held = linear_held(rng, 12, window=WINDOW)
        super().__init__(fields, inputs, batches, held=held)
        self._first, self._gone, self._stop = first, gone - first, stop - first
        self.begun: list[int] = []
        self.parts = 0
        self.broken = False

    def lease(self, batches: int, *, timeout: float) -> Lease:
        left = self._gone - self._position
        if left <= 0 < len(self._batches) - self._position:
            self._wait_for_checkpoint()
            raise Killed
        lease = super().lease(min(batches, max(left, 1)), timeout=timeout)
        return replace(lease, stop_asked=self._position >= self._stop)

    def _wait_for_checkpoint(self) -> None:
        assert self.checkpoints is not None
        deadline = time.monotonic() + 60.0
        while not any(step > self._first for step in steps_in(self.checkpoints)):
            assert time.monotonic() < deadline, "no checkpoint was taken"
            time.sleep(0.01)

    def begin_checkpoint(self, folder: Path, train_step: int) -> None:
        self.begun.append(train_step)
        self.parts = 2

    def checkpoint_done(self) -> bool:
        self.parts -= 1
        if self.broken:
            raise OSError("No space left on device")
        return self.parts <= 0


def run(source: Interrupted, out: Path, *, every: float | None = 1e-9) -> TrainStats:
    found, _ = newest_valid(out / "checkpoints")
    return train(
        source,
        CONFIG,
        linear_problem(window=WINDOW),
        world=World(),
        out=out,
        seed=3,
        expected_steps=BATCHES,
        checkpoints=Checkpoints(
            folder=out / "checkpoints",
            every_seconds=every,
            resume=None if found is None else found.folder,
            held=source,
        ),
    )


def newest(out: Path) -> int:
    found, broken = newest_valid(out / "checkpoints")
    assert found is not None
    assert broken == {}
    return found.train_step


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = run(Interrupted(), tmp_path / "whole", every=None)
    assert not list((tmp_path / "whole" / "checkpoints").iterdir())
    first, resumed_at = 0, []
    for gone in (17, 38, BATCHES):
        try:
            part = Interrupted(first, gone=gone)
            part.checkpoints = tmp_path / "parts" / "checkpoints"
            stats = run(part, tmp_path / "parts")
        except Killed:
            for thread in threading.enumerate():
                if thread.name == "checkpoint":  # a kill would have ended it, too
                    thread.join()
            first = newest(tmp_path / "parts")
            resumed_at.append(first)
    assert 0 < resumed_at[0] <= 17
    assert resumed_at[0] < resumed_at[1] <= 38
    weights = [
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0.0, atol=0.0)
    assert (stats.train_step, stats.validation) == (whole.train_step, whole.validation)


def test_no_checkpoint_begins_while_one_is_written_and_none_is_left_half_written(
    tmp_path: Path,
) -> None:
    source = Interrupted()
    stats = run(source, tmp_path)
    gaps = np.diff(source.begun)
    assert len(source.begun) >= 2
    assert (gaps >= 2 * CONFIG.lease_batches).all(), "begun although the last one was not written"
    assert stats.checkpoint == newest(tmp_path) == source.begun[-1]
    assert len(steps_in(tmp_path / "checkpoints")) <= 3
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_asked_to_stop_it_takes_a_checkpoint_and_leaves_without_a_surrogate(tmp_path: Path) -> None:
    source = Interrupted(stop=23)
    stats = run(source, tmp_path, every=None)
    assert 0 < stats.train_step < BATCHES
    assert source.begun == [stats.train_step]
    assert stats.checkpoint == newest(tmp_path) == stats.train_step
    assert not (tmp_path / "model").exists()
    again = Interrupted(stats.train_step)
    assert run(again, tmp_path, every=None).train_step == BATCHES


def test_what_was_just_resumed_from_needs_no_second_checkpoint(tmp_path: Path) -> None:
    step = run(Interrupted(stop=23), tmp_path, every=None).train_step
    source = Interrupted(step, stop=step)
    stats = run(source, tmp_path, every=None)
    assert source.begun == [] or stats.train_step > step
    assert stats.checkpoint == newest(tmp_path)


def test_one_that_cannot_be_written_is_counted_and_the_last_one_stays(tmp_path: Path) -> None:
    step = run(Interrupted(stop=23), tmp_path, every=None).train_step
    source = Interrupted(step)
    source.broken = True
    stats = run(source, tmp_path)
    assert stats.checkpoints_failed >= 1
    assert stats.train_step == BATCHES
    assert stats.checkpoint == newest(tmp_path) == step
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    "rollout",
    [None, made_errors(), made_errors([0.1, math.inf], mse=math.inf, nrmse=math.inf),
     made_errors([math.inf] * 99), made_errors([math.nan] + [0.1] * 99)],
)  # fmt: skip
def test_a_result_survives_strict_json(rollout: Errors | None) -> None:
    result = ValidationResult(train_step=40, samples=12, one_step=made_errors(), rollout=rollout)
    assert _validation(strict_json(json_text(asdict(result)))) == result
    assert _validation(None) is None
    assert _validation({"train_step": 40, "mse": 0.25}) is None  # of an earlier version


def test_a_field_that_is_zero_everywhere_has_no_relative_error_after_json_either() -> None:
    result = ValidationResult(train_step=1, samples=1, one_step=made_errors(relative_l2=math.nan))
    back = _validation(strict_json(json_text(asdict(result))))
    assert back is not None
    assert math.isnan(back.one_step.fields[0].relative_l2)


def test_a_new_rank_has_no_generators_of_its_own(tmp_path: Path) -> None:
    step = run(Interrupted(stop=23), tmp_path, every=None).train_step
    folder = final_folder(tmp_path / "checkpoints", step)
    assert Resumed.read(folder, 0).generators.keys() == {"cpu"}
    assert Resumed.read(folder, 1).generators == {}


@pytest.mark.parametrize("name", ["model.safetensors", "learner.safetensors", "trainer.json"])
def test_nothing_is_pickled(tmp_path: Path, name: str) -> None:
    step = run(Interrupted(stop=23), tmp_path, every=None).train_step
    content = (final_folder(tmp_path / "checkpoints", step) / name).read_bytes()
    assert not content.startswith((b"\x80", b"PK"))
