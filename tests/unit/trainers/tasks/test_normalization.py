import json
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from tests.array_source import linear_problem, linear_samples, linear_source
from trainers.base import Input, Moments
from trainers.tasks.normalization import FEW, Normalization


def moments_of(fields: np.ndarray, inputs: np.ndarray) -> Moments:
    values = np.moveaxis(fields, 2, 0).reshape(fields.shape[2], -1).astype(np.float64)
    count, channels = values.shape[1], len(values)
    empty = count == 0
    steps = np.diff(fields.astype(np.float64), axis=1)
    return Moments(
        count=len(inputs),
        field_count=count,
        field_mean=np.zeros(channels) if empty else values.mean(1),
        field_m2=np.zeros(channels) if empty else values.var(1) * count,
        step_count=count // fields.shape[1] * (fields.shape[1] - 1),
        step_m2=(steps**2).sum((0, 1, 3, 4)),
        time_low=float(inputs[:, 2:].min(initial=np.inf)),
        time_high=float(inputs[:, 2:].max(initial=-np.inf)),
    )


@pytest.mark.parametrize("cuts", [[1, 2, 40], [0, 0, 77], [100], [0, 100, 100]])
def test_merged_moments_are_those_of_all_samples_together(cuts: list[int]) -> None:
    fields, inputs = linear_samples(np.random.default_rng(5), 101, window=3)
    whole = moments_of(fields, inputs)
    merged = reduce(
        Moments.merge,
        [
            moments_of(part, rows)
            for part, rows in zip(np.split(fields, cuts), np.split(inputs, cuts), strict=True)
        ],
    )
    assert (merged.count, merged.field_count) == (whole.count, whole.field_count)
    assert merged.step_count == whole.step_count == 101 * 2 * 35
    for name in ("field_mean", "field_m2", "step_m2", "time_low", "time_high"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-6)


def test_merging_is_the_same_to_the_last_bit_on_every_rank() -> None:
    parts = [linear_source(seed=seed).moments() for seed in (1, 2, 3)]
    first, second = reduce(Moments.merge, parts), reduce(Moments.merge, list(parts))
    assert first.field_m2.tobytes() == second.field_m2.tobytes()


def test_normalised_fields_and_inputs_are_of_order_one() -> None:
    source, problem = linear_source(samples=4000), linear_problem()
    normalization = Normalization.of(source.moments(), problem)
    fields = np.moveaxis(source.fields, 2, -1)
    scaled = (fields - normalization.field_offset) / normalization.field_scale
    np.testing.assert_allclose(scaled.mean((0, 1, 2, 3)), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaled.std((0, 1, 2, 3)), 1.0, rtol=1e-3)
    inputs = (source.inputs - normalization.input_offset) / normalization.input_scale
    assert inputs.min() >= -1.001
    assert inputs.max() <= 1.001


def test_a_constant_channel_or_input_is_shifted_and_not_scaled() -> None:
    constant = Input(name="load", unit="Pa", low=2.5, high=2.5)
    problem = linear_problem()
    problem = replace(problem, parameters=(problem.parameters[0], constant))
    fields, inputs = linear_samples(np.random.default_rng(5), 33)
    fields[:, :, 1] = np.float32(293.15)
    normalization = Normalization.of(moments_of(fields, inputs), problem)
    assert normalization.field_scale[1] == 1.0
    assert normalization.field_offset[1] == pytest.approx(293.15)
    assert normalization.input_scale[1] == 1.0
    assert normalization.input_offset[1] == 2.5


def test_a_normalisation_reads_back_from_json_to_the_last_bit() -> None:
    normalization = Normalization.of(linear_source().moments(), linear_problem())
    again = Normalization.from_json(json.loads(json.dumps(normalization.as_json())))
    for name in ("field_offset", "field_scale", "input_offset", "input_scale"):
        assert getattr(again, name).tobytes() == getattr(normalization, name).tobytes()


@pytest.mark.parametrize(("low", "high"), [(3.0, 2.0), (float("nan"), 1.0)])
def test_a_reversed_range_of_an_input_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"west.*reversed"):
        Input(name="west", unit="K", low=low, high=high)


def test_a_problem_needs_a_unit_per_channel_and_a_spacing_per_axis() -> None:
    problem = linear_problem()
    with pytest.raises(ValueError, match="one unit per channel"):
        replace(problem, field_units=("K",))
    with pytest.raises(ValueError, match="one spacing per grid axis"):
        replace(problem, spacing=(1.0,))


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.5, 2.5])
def test_a_field_that_comes_to_vary_otherwise_is_told_by_its_name(factor: float) -> None:
    problem, moments = linear_problem(), linear_source().moments()
    normalization = Normalization.of(moments, problem)
    later = replace(moments, field_m2=moments.field_m2 * np.array([1.0, factor**2]))
    found = normalization.misfits(later, problem)
    assert [each.split(":")[0] for each in found] == ["field 'pressure'"] * (factor in (0.3, 2.5))
    few = replace(later, count=FEW - 1)
    assert normalization.misfits(few, problem) == []


def test_a_field_that_was_constant_and_one_that_has_moved_are_told() -> None:
    problem, moments = linear_problem(), linear_source().moments()
    constant = replace(moments, field_mean=moments.field_mean * 0, field_m2=moments.field_m2 * 0)
    tiny = replace(constant, field_m2=np.full(2, 1e-10 * moments.field_count))
    (first, second) = Normalization.of(constant, problem).misfits(tiny, problem)
    assert "that of a constant" in first
    assert "1e-05" in second
    moved = replace(moments, field_mean=moments.field_mean + np.array([1e4, 0.0]))
    (told,) = Normalization.of(moments, problem).misfits(moved, problem)
    assert told.startswith("field 'temperature'")
    assert Normalization.of(constant, problem).misfits(constant, problem) == []
