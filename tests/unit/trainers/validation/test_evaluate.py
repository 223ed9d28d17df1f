import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.stats.members import MemberTable
from tests.array_source import (
    ArraySource,
    linear_held,
    linear_problem,
    linear_samples,
    linear_source,
    nothing_given,
)
from tests.strict import strict_json
from trainers.base import Held
from trainers.config import TrainerConfig
from trainers.configs.tasks import NextConfig
from trainers.loop.lockstep import LockStep, World
from trainers.tasks.build import build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization
from trainers.validation import evaluate
from trainers.validation.evaluate import Validation, telling_members
from trainers.validation.members import add_up, sum_by_member


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
    assert result is not None
    assert (result.train_step, result.samples, result.rollout) == (31, 25, None)
    truth = held.fields[:, 0].astype(np.float64).reshape(25, 2, -1)
    error = prediction[:, 0].astype(np.float64).reshape(25, 2, -1) - truth
    shares = []
    for channel, one in enumerate(result.one_step.fields):
        assert (one.name, one.unit) == (("temperature", "K"), ("pressure", "Pa"))[channel]
        wrong, right = error[:, channel], truth[:, channel]
        assert one.mse == pytest.approx((wrong**2).mean(), rel=1e-6)
        relative = np.linalg.norm(wrong, axis=1) / np.linalg.norm(right, axis=1)
        assert one.relative_l2 == pytest.approx(relative.mean(), rel=1e-6)
        assert one.nrmse == pytest.approx(np.sqrt((wrong**2).mean()) / right.std(), rel=1e-6)
        of = [np.sqrt((wrong[held.members == m] ** 2).mean()) for m in (40, 41, 42)]
        shares.append(np.array(of) / right.std())
    per_member = np.mean(shares, axis=0)
    spread = result.one_step.spread
    assert result.error == pytest.approx(np.mean([one.nrmse for one in result.one_step.fields]))
    assert (spread.members, spread.diverged, spread.p95, spread.p99) == (3, 0, None, None)
    assert spread.max == pytest.approx(per_member.max(), rel=1e-6)
    assert spread.median == pytest.approx(np.median(per_member), rel=1e-6)
    assert result.query is not None
    assert result.query.device == "cpu"


@pytest.mark.parametrize("cut", [0, 7, 12])
def test_the_table_does_not_depend_on_how_samples_are_spread_over_ranks(cut: int) -> None:
    rng = np.random.default_rng(1)
    members = rng.integers(40, 44, 12)
    compared = rng.uniform(0.1, 1.0, (4, 12, 2))
    rollouts = {int(member): rng.uniform(0.1, 1.0, (2, 2)) for member in members[:3]}
    whole = add_up(sum_by_member(members, compared, rollouts))
    parts = []
    for part in (slice(cut), slice(cut, None)):
        mine = {m: rollouts.pop(m) for m in list(rollouts) if m in members[part]}
        parts.append(sum_by_member(members[part], compared[:, part], mine))
    again = add_up(np.concatenate(parts))
    for one, other in zip(whole, again, strict=True):
        assert one.members.tolist() == other.members.tolist()
        np.testing.assert_allclose(one.mse, other.mse)
        np.testing.assert_allclose(one.relative, other.relative)
        np.testing.assert_allclose(one.std, other.std)


class Wrong(nn.Module):
    """Says what it is told to of the samples of each member, in normalised units."""

    def __init__(self, said: dict[int, float], held: Held) -> None:
        super().__init__()
        self._said = torch.tensor([said[int(m)] for m in held.members])[:, None, None, None]

    def forward(self, numbers: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(numbers)) % len(self._said)
        return self._said[rows].expand(-1, 2, *fields.shape[2:])


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("diverged", [1, 2, 3])
def test_a_member_that_diverges_is_counted_and_infinite(
    task: Direct, tmp_path: Path, bad: float, diverged: int
) -> None:
    held = linear_held(np.random.default_rng(7), 25)
    said = {40 + member: bad if member < diverged else 0.0 for member in range(3)}
    table = tmp_path / "validation.jsonl"
    measured = Validation(
        source_of(held), task, Wrong(said, held), LockStep(World(), torch.device("cpu")), table
    )
    result = measured.measure(5)
    assert result is not None
    spread = result.one_step.spread
    assert (spread.members, spread.diverged) == (3, diverged)
    assert (spread.mean, spread.max, spread.std) == (math.inf, math.inf, math.inf)
    assert math.isinf(spread.median) == (diverged > 1)
    assert all(math.isinf(one.mse) and math.isinf(one.nrmse) for one in result.one_step.fields)
    assert math.isinf(result.error)
    (line,) = map(strict_json, table.read_text().splitlines())
    assert line["train_step"] == 5
    assert [None in errors for errors in line["one_step"].values()] == [
        member < diverged for member in range(3)
    ]
    newest = MemberTable.newest(table)
    assert [math.inf in errors for errors in newest.shown.values()] == [
        member < diverged for member in range(3)
    ]
    measured.write(tmp_path / "rank0.npz")


class Growing(nn.Module):
    """Finite after one step and not after three, where the first parameter is above a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def forward(self, numbers: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        grows = numbers[:, 0] > self._limit
        return fields[:, :2] * torch.where(grows, 1e15, 1.0)[:, None, None, None]


@pytest.mark.parametrize(("limit", "diverged"), [(-2.0, 3), (0.0, 2), (2.0, 0)])
def test_rollouts_that_diverge_are_never_replaced_by_single_steps(
    limit: float, diverged: int
) -> None:
    problem = linear_problem(window=2)
    fields, inputs = linear_samples(np.random.default_rng(7), 12, window=2)
    members = np.repeat([40, 41, 42], 4)
    inputs[:, 0] = np.array([150.0, 400.0, 450.0])[members - 40]
    held = Held(
        fields=fields, inputs=inputs, members=members, steps=np.tile(np.arange(4), 3), complete=True
    )
    config = TrainerConfig(task=NextConfig())
    normal = Normalization.of(linear_source().moments(), problem)
    task = build_task(config, problem, normal, torch.device("cpu"))
    ranks = LockStep(World(), torch.device("cpu"))
    result = Validation(source_of(held), task, Growing(limit), ranks).measure(1)
    assert result is not None
    assert result.rollout is not None
    assert (result.one_step.spread.diverged, result.rollout.spread.diverged) == (0, diverged)
    assert result.rollout.spread.members == 3
    assert math.isinf(result.rollout.spread.max) == (diverged > 0)
    assert all(math.isinf(one.mse) == (diverged > 0) for one in result.rollout.fields)
    assert math.isfinite(result.error)  # what decides is of single steps
    assert result.shown == result.rollout


@pytest.mark.parametrize("scale", [1e-22, 1e-30, 1.0, 1.5e19, 1e20, 1e30])
def test_errors_do_not_depend_on_the_unit_of_a_field(
    task: Direct, network: nn.Module, scale: float
) -> None:
    held = linear_held(np.random.default_rng(7), 25)
    known = validation(held, task, network).measure(1)
    source = source_of(replace(held, fields=(held.fields * np.float32(scale))))
    normal = Normalization.of(linear_source().moments(), task.problem)
    scaled = replace(
        normal, field_offset=normal.field_offset * scale, field_scale=normal.field_scale * scale
    )
    other = build_task(TrainerConfig(), task.problem, scaled, torch.device("cpu"))
    ranks = LockStep(World(), torch.device("cpu"))
    result = Validation(source, other, network, ranks).measure(1)
    assert result is not None
    assert known is not None
    for one, there in zip(known.one_step.fields, result.one_step.fields, strict=True):
        assert there.nrmse == pytest.approx(one.nrmse, rel=1e-4)
        assert there.relative_l2 == pytest.approx(one.relative_l2, rel=1e-4)
        assert there.rmse == pytest.approx(scale * one.rmse, rel=1e-4)
    assert result.error == pytest.approx(known.error, rel=1e-4)


def test_a_field_of_large_mean_does_not_hide_another(task: Direct) -> None:
    held = linear_held(np.random.default_rng(7), 25)
    fields = held.fields.astype(np.float64)
    fields[:, :, 0] = 101_325.0 + 0.2 * (fields[:, :, 0] - 300.0) / 100.0
    held = replace(held, fields=fields.astype(np.float32))
    said = dict.fromkeys((40, 41, 42), 0.0)
    normal = Normalization.of(linear_source().moments(), task.problem)
    other = build_task(TrainerConfig(), task.problem, normal, torch.device("cpu"))
    ranks = LockStep(World(), torch.device("cpu"))
    result = Validation(source_of(held), other, Wrong(said, held), ranks).measure(1)
    assert result is not None
    large, small = result.one_step.fields
    assert large.nrmse > 1e5  # 100 kPa beside a deviation of 0.2 Pa
    assert 0.5 < small.nrmse < 2.0


def test_the_deviation_of_a_constant_field_is_its_size(task: Direct, network: nn.Module) -> None:
    held = linear_held(np.random.default_rng(7), 9)
    held.fields[:, :, 0], held.fields[:, :, 1] = 250.0, 0.0
    result = validation(held, task, network).measure(1)
    assert result is not None
    first, second = result.one_step.fields
    assert first.nrmse == pytest.approx(first.rmse / 250.0)
    assert second.nrmse == pytest.approx(second.rmse)
    assert math.isnan(second.relative_l2)


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
    assert all(0.0 < one.relative_l2 < 100.0 for one in result.one_step.fields)
    held.fields[:] = 0.0
    nothing = validation(held, task, network).measure(1)
    assert nothing is not None
    assert all(np.isnan(one.relative_l2) for one in nothing.one_step.fields)


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
    measured = Validation(
        source_of(held), task, network, LockStep(World(), torch.device("cpu")), tmp_path / "errors"
    )
    assert measured.measure(1) is not None
    telling = telling_members(MemberTable.newest(tmp_path / "errors").shown)
    measured.write(tmp_path / "validation" / "rank0.npz")
    with np.load(tmp_path / "validation" / "rank0.npz") as file:
        arrays = dict(file)
    assert set(arrays) == {"members", "steps", "times", "truth", "prediction"}
    assert set(arrays["members"].tolist()) == set(telling)
    assert len(arrays["members"]) == 30
    for row in range(30):
        place = int(arrays["steps"][row])
        assert held.members[place] == arrays["members"][row]
        np.testing.assert_array_equal(arrays["truth"][row], held.fields[place, 0])
        assert arrays["times"][row] == held.inputs[place, -1]
    error = ((arrays["prediction"] - arrays["truth"]) ** 2).mean((1, 2, 3))
    means = [error[arrays["members"] == member].mean() for member in telling]
    assert means[0] < means[2]


def test_a_file_that_would_be_too_large_is_thinned_out(
    task: Direct, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = linear_held(np.random.default_rng(7), 50)
    monkeypatch.setattr(evaluate, "KEPT_BYTES", 2 * 12 * held.fields[0].nbytes)
    measured = validation(held, task, network)
    result = measured.measure(1)
    assert result is not None
    measured.write(tmp_path / "rank0.npz")
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
    assert telling_members({member: (error, 0.5) for member, error in errors.items()}) == telling


def test_an_infinite_error_is_the_worst() -> None:
    errors = {1: (0.1, math.inf), 2: (0.2, 0.2), 3: (0.1, 0.1)}
    assert telling_members(errors) == [3, 2, 1]
