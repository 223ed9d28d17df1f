from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.array_source import (
    ArraySource,
    linear_held,
    linear_problem,
    linear_samples,
    linear_source,
)
from trainers.base import Lease, Moments, NothingToTrainOn, TrainingDiverged
from trainers.config import TrainerConfig
from trainers.loop.lockstep import World
from trainers.results import TrainStats
from trainers.surrogate.export import load_surrogate
from trainers.trainer import train


def config(**changes: object) -> TrainerConfig:
    tree = {
        "batch": 6,
        "model": {"kind": "mlp", "hidden": [48, 48]},
        "optimizer": {"kind": "adam", "lr": 3e-3},
        "validate_every": 100,
        "log_every": 25,
        "lease_batches": 4,
    }
    return TrainerConfig.model_validate({**tree, **changes})


def test_a_linear_field_is_learnt(tmp_path: Path) -> None:
    source = linear_source(batches=1500)
    reports: list[TrainStats] = []
    stats = train(
        source,
        config(schedule={"kind": "cosine"}),
        linear_problem(),
        world=World(),
        report=reports.append,
        out=tmp_path,
        seed=1,
        expected_steps=1500,
    )
    assert stats.validation is not None
    assert all(one.relative_l2 < 0.02 for one in stats.validation.one_step.fields)
    first = reports[0]
    assert first.loss > 20 * stats.loss
    held = source.held_validation()
    surrogate = load_surrogate(tmp_path)
    prediction = surrogate(held.inputs[:, :2], held.inputs[:, 2])
    mse = ((prediction - held.fields[:, 0]).astype(np.float64) ** 2).mean()
    of = [one.mse for one in stats.validation.one_step.fields]
    assert mse == pytest.approx(np.mean(of), rel=1e-4)
    assert (tmp_path / "validation" / "rank0.npz").exists()


def test_every_batch_is_trained_on_once_and_every_lease_given_back() -> None:
    source = linear_source(batches=77)
    stats = train(source, config(), linear_problem(), world=World())
    assert stats.train_step == 77
    assert source.open == []
    assert source.ended == 77
    assert source.replayed == 0
    assert set(Counter(source.drawn)) == set(range(230))


def test_reports_come_every_so_often_and_at_the_end() -> None:
    source = linear_source(batches=110)
    reports: list[TrainStats] = []
    stats = train(
        source, config(log_every=25), linear_problem(), world=World(), report=reports.append
    )
    assert [each.train_step for each in reports] == [1, 25, 50, 75, 100, 110]
    assert reports[-1] == stats
    waits = [each.wait_seconds for each in reports]
    assert waits == sorted(waits)
    assert stats.first_step_seconds is not None
    assert stats.first_step_seconds > 0
    assert 0 < stats.loss < reports[1].loss


def test_validation_takes_place_every_so_often_and_draws_nothing() -> None:
    source = linear_source(batches=250)
    reports: list[TrainStats] = []
    stats = train(
        source, config(validate_every=100), linear_problem(), world=World(), report=reports.append
    )
    seen = [each.validation for each in reports]
    # The report of a train step comes before the validation after it.
    assert [None if each is None else each.train_step for each in seen] == [
        *[None] * 5,
        *[100] * 4,
        *[200] * 2,
        250,
    ]
    assert len(source.drawn) == 250 * 6
    assert stats.validation is not None
    assert stats.validation.samples == 20


def test_without_validation_members_there_is_no_result(tmp_path: Path) -> None:
    source = linear_source(batches=20, held=0)
    stats = train(source, config(), linear_problem(), world=World(), out=tmp_path)
    assert stats.validation is None
    assert load_surrogate(tmp_path).card["validation"] is None
    assert not (tmp_path / "validation").exists()


def test_the_same_seed_and_batches_give_the_same_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(
            linear_source(batches=40),
            config(),
            linear_problem(),
            world=World(),
            out=tmp_path / name,
            seed=seed,
        )
    weights = {
        name: (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "abc"
    }
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_a_window_of_snapshots_is_learnt_from() -> None:
    rng = np.random.default_rng(3)
    fields, inputs = linear_samples(rng, 60, window=3)
    batches = rng.integers(0, 60, (200, 6))
    held = linear_held(rng, 12, window=3)
    source = ArraySource(fields, inputs, batches, held=held)
    stats = train(
        source,
        config(task={"kind": "direct", "window": 3}),
        linear_problem(window=3),
        world=World(),
    )
    assert stats.validation is not None
    assert stats.validation.samples == 12
    assert stats.loss < 0.1


def test_a_train_step_that_is_not_finite_ends_the_training() -> None:
    good = linear_source(batches=60)
    fields = good.fields.copy()
    fields[7, 0, 1, 2, 3] = np.nan
    clean = np.arange(222) % 230 + 8
    batches = np.resize(clean[:222] % 230, (60, 6))
    batches[batches == 7] = 9
    batches[33, 4] = 7
    source = Nan(fields, good.inputs, batches, held=good.held_validation())
    with pytest.raises(TrainingDiverged, match=r"train step 33: loss=nan.*Lower trainer.optimizer"):
        train(source, config(), linear_problem(), world=World())


class Nan(ArraySource):
    """Its statistics are taken before a sample went wrong."""

    def moments(self) -> Moments:
        return linear_source(batches=1).moments()


class Nothing(ArraySource):
    """The stream ended before a sample came."""

    def moments(self) -> Moments:
        zeros = np.zeros(2), np.zeros(2)
        return Moments(
            count=0,
            field_count=0,
            field_mean=zeros[0],
            field_m2=zeros[1],
            step_count=0,
            step_m2=zeros[1],
            time_low=np.inf,
            time_high=-np.inf,
        )

    def lease(self, batches: int, *, timeout: float) -> Lease:
        raise AssertionError("there is nothing to lease")


def test_a_stream_without_samples_is_an_error_of_its_own() -> None:
    good = linear_source()
    source = Nothing(
        good.fields, good.inputs, np.zeros((1, 6), np.int64), held=good.held_validation()
    )
    with pytest.raises(NothingToTrainOn, match=r"ranks hold \[0\] samples"):
        train(source, config(), linear_problem(), world=World())


class LateWatermark(ArraySource):
    """Says no twice."""

    asked = 0

    def wait_for_watermark(self, timeout: float) -> bool:
        self.asked += 1
        return self.asked > 2

    def moments(self) -> Moments:
        assert self.asked == 3, "moments before the watermark"
        return super().moments()


def test_training_starts_at_the_watermark() -> None:
    good = linear_source()
    source = LateWatermark(
        good.fields, good.inputs, np.zeros((9, 6), np.int64), held=good.held_validation()
    )
    assert train(source, config(), linear_problem(), world=World()).train_step == 9


@pytest.mark.parametrize("accumulate", [1, 3])
def test_after_the_stream_it_goes_on_for_as_many_train_steps(accumulate: int) -> None:
    source = linear_source(batches=47)
    settings = config(after_production={"kind": "steps", "steps": 25}, accumulate=accumulate)
    stats = train(source, settings, linear_problem(), world=World())
    before = 47 // accumulate  # a begun group is filled up
    assert stats.train_step == before + 25
    assert len(source.drawn) == 47 * 6
    assert source.replayed == (before + 25) * accumulate - 47
    assert source.open == []


def test_accumulated_batches_are_each_trained_on_once() -> None:
    source = linear_source(batches=77)
    reports: list[TrainStats] = []
    settings = config(accumulate=4, log_every=3, validate_every=5)
    stats = train(source, settings, linear_problem(), world=World(), report=reports.append)
    assert stats.train_step == 20  # the last one of a single batch
    assert source.ended == 77
    assert source.open == []
    assert [each.train_step for each in reports] == [0, 3, 6, 9, 12, 15, 18, 20]
    assert [each.validation.train_step for each in reports if each.validation] == [
        5, 5, 10, 10, 15, 20,
    ]  # fmt: skip


def test_a_group_of_batches_trains_as_one_large_batch(tmp_path: Path) -> None:
    small, order = linear_source(batches=60), linear_source(batches=60)
    large = ArraySource(
        order.fields, order.inputs, order._batches.reshape(20, 18), held=order.held_validation()
    )
    apart = train(small, config(accumulate=3), linear_problem(), world=World(), seed=4)
    whole = train(large, config(batch=18), linear_problem(), world=World(), seed=4)
    assert apart.train_step == whole.train_step == 20
    assert apart.validation is not None
    assert whole.validation is not None
    assert apart.validation.error == pytest.approx(whole.validation.error, rel=1e-3)


def test_it_stops_early_and_says_why(tmp_path: Path) -> None:
    source = linear_source(batches=1000)
    reports: list[TrainStats] = []
    settings = config(early_stop={"patience": 2, "min_delta": 0.9}, validate_every=30)
    stats = train(
        source, settings, linear_problem(), world=World(), report=reports.append, out=tmp_path
    )
    assert stats.train_step == 90
    assert stats.notes == reports[-1].notes
    (note,) = stats.notes
    assert note.startswith("stopped early at train step 90: in 2 validations the error was never")
    assert source.ended < 1000
    assert load_surrogate(tmp_path).card["train_steps"] == 90


def test_without_a_validation_nothing_stops_early() -> None:
    source = linear_source(batches=90, held=0)
    settings = config(early_stop={"patience": 1, "min_delta": 0.9}, validate_every=10)
    assert train(source, settings, linear_problem(), world=World()).train_step == 90


def test_the_averaged_weights_are_validated_and_exported(tmp_path: Path) -> None:
    for name, ema in (("plain", None), ("averaged", 0.95)):
        out, source = tmp_path / name, linear_source(batches=80)
        stats = train(source, config(ema=ema), linear_problem(), world=World(), out=out, seed=1)
        held = source.held_validation()
        prediction = load_surrogate(out)(held.inputs[:, :2], held.inputs[:, 2])
        mse = ((prediction - held.fields[:, 0]).astype(np.float64) ** 2).mean()
        assert stats.validation is not None
        of = [one.mse for one in stats.validation.one_step.fields]
        assert mse == pytest.approx(np.mean(of), rel=1e-4)
    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("plain", "averaged")
    ]
    assert weights[0] != weights[1]


def test_float16_without_a_gpu_is_refused() -> None:
    settings = config(precision="float16", device="cpu")
    with pytest.raises(ValueError, match=r"trainer\.precision=float16"):
        train(linear_source(), settings, linear_problem(), world=World())


def grown(*, held: int, factor: float = 50.0) -> ArraySource:
    """Samples whose second field is ``factor`` times as large as in the first ones."""
    good = linear_source(batches=40, held=held)
    fields = good.fields.copy()
    fields[:, :, 1] *= factor
    late = ArraySource(fields, good.inputs, good._batches, held=good.held_validation())
    begin = good.moments()
    late.moments = lambda: late_moments() if late.drawn else begin  # type: ignore[method-assign]
    late_moments = ArraySource.moments.__get__(late)
    return late


@pytest.mark.parametrize("held", [0, 60])
def test_a_field_that_outgrows_what_it_is_normalised_by_is_in_the_notes(held: int) -> None:
    stats = train(grown(held=held), config(), linear_problem(), world=World())
    (note,) = stats.notes
    assert note.startswith("field 'pressure'")


def test_fields_are_normalised_by_the_validation_members_whatever_has_arrived(
    tmp_path: Path,
) -> None:
    found = []
    for samples, seed in ((230, 3), (31, 9)):
        source = linear_source(samples=samples, batches=5, seed=seed)
        source._held = linear_held(np.random.default_rng(4), 60)
        train(source, config(), linear_problem(), world=World(), out=tmp_path)
        found.append(load_surrogate(tmp_path).card["normalization"]["field_scale"])
    assert found[0] == found[1]


def test_times_are_those_that_came_not_those_that_were_announced(tmp_path: Path) -> None:
    """A TS of its own steps: 0 to 0.5 s were announced, and 3 s arrive."""
    good = linear_source(batches=30)
    inputs, held = good.inputs.copy(), linear_held(np.random.default_rng(4), 20)
    inputs[:, 2] *= 6
    held.inputs[:, 2] *= 5
    source = ArraySource(good.fields, inputs, good._batches, held=held)
    train(source, config(), linear_problem(), world=World(), out=tmp_path)
    surrogate = load_surrogate(tmp_path, outside="raise")
    assert surrogate.problem.time.high == inputs[:, 2].max() > 2
    scale = surrogate.card["normalization"]["input_scale"][2]
    assert scale == pytest.approx(np.ptp(held.inputs[:, 2]) / 2, rel=1e-6)
    surrogate([300, 0], 2.2)
    with pytest.raises(ValueError, match=r"time=3\.1 s is outside"):
        surrogate([300, 0], 3.1)


def test_a_problem_without_a_time_axis_is_learnt_and_queried_without_a_time(
    tmp_path: Path,
) -> None:
    good = linear_source(batches=30)
    inputs, held = good.inputs.copy(), linear_held(np.random.default_rng(4), 20)
    inputs[:, 2] = held.inputs[:, 2] = 0.0
    source = ArraySource(good.fields, inputs, good._batches, held=held)
    still = replace(linear_problem().time, low=0.0, high=0.0)
    problem = replace(linear_problem(), time=still, time_step=0.0)
    stats = train(source, config(), problem, world=World(), out=tmp_path)
    assert stats.validation is not None
    assert stats.validation.query is not None
    assert stats.validation.query.snapshots == 1
    surrogate = load_surrogate(tmp_path, outside="raise")
    with_time = surrogate({"west": 300.0, "load": 0.0}, 0.0)
    assert surrogate({"west": 300.0, "load": 0.0}).tolist() == with_time.tolist()


def test_a_query_without_a_time_of_a_problem_that_has_some_names_their_range(
    tmp_path: Path,
) -> None:
    train(linear_source(batches=5), config(), linear_problem(), world=World(), out=tmp_path)
    with pytest.raises(ValueError, match=r"time is missing: give one in \[0\.\d+, 0\.\d+\] s"):
        load_surrogate(tmp_path)({"west": 300.0, "load": 0.0})


@pytest.mark.parametrize("accumulate", [1, 4])
def test_that_training_has_begun_is_reported_with_the_first_batch(accumulate: int) -> None:
    source = linear_source(batches=20)
    reports: list[TrainStats] = []
    settings = config(log_every=1000, accumulate=accumulate)
    stats = train(source, settings, linear_problem(), world=World(), report=reports.append)
    first, last = reports
    assert first.train_step == (accumulate == 1)
    assert first.first_step_seconds is not None
    assert last == stats
