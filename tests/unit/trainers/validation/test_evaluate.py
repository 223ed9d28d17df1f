from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.array_source import (
    ArraySource,
    linear_held,
    linear_problem,
    linear_source,
    nothing_given,
)
from trainers.base import Held, ValidationResult
from trainers.config import TrainerConfig
from trainers.loop.lockstep import LockStep, World
from trainers.tasks.build import build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization
from trainers.validation import evaluate
from trainers.validation.evaluate import Validation, telling_members


@pytest.fixture
def task() -> Direct:
    problem = linear_problem()
    normalization = Normalization.of(linear_source().moments(), problem)
    task = build_task(TrainerConfig(), problem, normalization, torch.device("cpu"))
    assert isinstance(task, Direct)
    return task


@pytest.fixture
def network(task: Direct) -> nn.Module:
    torch.manual_seed(0)
    return task.network(TrainerConfig().model)


def source_of(held: Held) -> ArraySource:
    good = linear_source(batches=3)
    return ArraySource(good.fields, good.inputs, np.zeros((3, 6), np.int64), held=held)


def validation(held: Held, task: Direct, network: nn.Module) -> Validation:
    return Validation(source_of(held), task, network, LockStep(World(), torch.device("cpu")))


def test_errors_are_those_of_a_direct_computation_in_physical_units(
    task: Direct, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = linear_held(np.random.default_rng(7), 25)
    monkeypatch.setattr(evaluate, "CHUNK_BYTES", 4 * held.fields[0].nbytes)  # 7 parts
    result = validation(held, task, network).measure(31)
    with torch.no_grad():
        prediction = task.predict(network, torch.from_numpy(held.inputs), nothing_given(25)).numpy()
    error = (prediction.astype(np.float64) - held.fields).reshape(25, -1)
    truth = held.fields.astype(np.float64).reshape(25, -1)
    assert result is not None
    assert (result.train_step, result.samples) == (31, 25)
    assert result.mse == pytest.approx((error**2).mean(), rel=1e-5)
    relative = np.linalg.norm(error, axis=1) / np.linalg.norm(truth, axis=1)
    assert result.relative_l2 == pytest.approx(relative.mean(), rel=1e-5)
    per_member = [relative[held.members == member].mean() for member in (40, 41, 42)]
    assert result.spread == result.one_step_spread
    assert result.spread is not None
    assert result.spread.max == pytest.approx(max(per_member), rel=1e-5)
    assert result.spread.median == pytest.approx(np.median(per_member), rel=1e-5)
    assert result.spread.p95 == pytest.approx(np.quantile(per_member, 0.95), rel=1e-5)
    assert result.query is not None
    assert result.query.device == "cpu"
    assert list(result.member_mse) == [40, 41, 42]
    for member, mse in result.member_mse.items():
        assert mse == pytest.approx((error[held.members == member] ** 2).mean(), rel=1e-5)


def test_it_is_measured_only_once_all_samples_are_there(task: Direct, network: nn.Module) -> None:
    part = linear_held(np.random.default_rng(7), 5, complete=False)
    unfinished = validation(part, task, network)
    assert unfinished.measure(1) is None
    result = unfinished.measure_what_is_there(1)
    assert result is not None
    assert result.samples == 5


def test_without_a_sample_there_is_no_result(task: Direct, network: nn.Module) -> None:
    empty = linear_held(np.random.default_rng(7), 0)
    assert validation(empty, task, network).measure(1) is None


def test_samples_of_a_zero_truth_have_no_relative_error(task: Direct, network: nn.Module) -> None:
    held = linear_held(np.random.default_rng(7), 9)
    known = validation(replace(held, fields=held.fields.copy()), task, network).measure(1)
    held.fields[4:] = 0.0
    result = validation(held, task, network).measure(1)
    assert known is not None
    assert result is not None
    assert 0.0 < result.relative_l2 < 100.0
    held.fields[:] = 0.0
    nothing = validation(held, task, network).measure(1)
    assert nothing is not None
    assert np.isnan(nothing.relative_l2)


def test_it_draws_no_batch_and_leaves_the_network_in_training_mode(
    task: Direct, network: nn.Module
) -> None:
    source = source_of(linear_held(np.random.default_rng(7), 5))
    Validation(source, task, network, LockStep(World(), torch.device("cpu"))).measure(1)
    assert source.drawn == []
    assert network.training


def test_the_file_holds_the_best_the_median_and_the_worst_member(
    task: Direct, network: nn.Module, tmp_path: Path
) -> None:
    held = linear_held(np.random.default_rng(7), 50)
    held = replace(held, members=np.arange(50, dtype=np.int64) % 5 + 40)
    measured = validation(held, task, network)
    result = measured.measure(1)
    assert result is not None
    measured.write(tmp_path / "validation" / "rank0.npz", result)
    with np.load(tmp_path / "validation" / "rank0.npz") as file:
        arrays = dict(file)
    assert set(arrays) == {"members", "steps", "times", "truth", "prediction"}
    assert set(arrays["members"].tolist()) == set(telling_members(result))
    assert len(arrays["members"]) == 30
    for row in range(30):
        place = int(arrays["steps"][row])
        assert held.members[place] == arrays["members"][row]
        np.testing.assert_array_equal(arrays["truth"][row], held.fields[place, 0])
        assert arrays["times"][row] == held.inputs[place, -1]
    error = ((arrays["prediction"] - arrays["truth"]) ** 2).mean((1, 2, 3))
    worst = telling_members(result)[-1]
    measured_again = error[arrays["members"] == worst].mean()
    assert measured_again == pytest.approx(result.member_mse[worst], rel=1e-4)


def test_a_file_that_would_be_too_large_is_thinned_out(
    task: Direct, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = linear_held(np.random.default_rng(7), 50)
    monkeypatch.setattr(evaluate, "KEPT_BYTES", 2 * 12 * held.fields[0].nbytes)
    measured = validation(held, task, network)
    result = measured.measure(1)
    assert result is not None
    measured.write(tmp_path / "rank0.npz", result)
    with np.load(tmp_path / "rank0.npz") as file:
        members = file["members"]
    assert 8 <= len(members) <= 12
    assert set(members.tolist()) == {40, 41, 42}


@pytest.mark.parametrize(
    ("errors", "telling"),
    [
        ({7: 1.0}, [7]),
        ({7: 1.0, 8: 0.5}, [8, 7]),
        ({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: 1.0}, [5, 3, 1]),
        ({1: 1.0, 2: 1.0, 3: 1.0}, [1, 2, 3]),
    ],
)
def test_best_median_and_worst_by_error(errors: dict[int, float], telling: list[int]) -> None:
    result = ValidationResult(train_step=1, samples=9, mse=1.0, relative_l2=0.1, member_mse=errors)
    assert telling_members(result) == telling
