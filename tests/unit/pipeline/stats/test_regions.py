import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.stats.regions import ErrorsOf, errors_by_region, parameters_of
from pipeline.study.config import StudyConfig
from pipeline.study.load import load
from tests.small_study import small_study
from trainers.durable import json_text


def study(**parameters: dict[str, Any]) -> StudyConfig:
    return small_study(parameters=parameters)


def members(count: int, seed: int = 2) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(seed)
    names = ("initial", "west", "east", "south", "north")
    return {m: {name: float(rng.uniform(100, 500)) for name in names} for m in range(count)}


def of(found: tuple[ErrorsOf, ...], name: str) -> ErrorsOf:
    return next(one for one in found if one.name == name)


@pytest.mark.parametrize(("count", "ranges"), [(5, 3), (18, 3), (24, 4), (300, 5)])
def test_every_member_lies_in_one_range_of_each_parameter(count: int, ranges: int) -> None:
    found = errors_by_region(study(), members(count), dict.fromkeys(range(count), (0.1,)))
    assert len(found) == 5
    for one in found:
        assert len(one.ranges) == ranges
        assert sum(each.members for each in one.ranges) == count
        assert (one.ranges[0].low, one.ranges[-1].high) == (100.0, 500.0)
        widths = [each.high - each.low for each in one.ranges]
        assert widths == pytest.approx([400 / ranges] * ranges)


def test_means_and_largest_errors_are_those_of_the_members_there() -> None:
    at = members(60)
    errors = {member: (each["west"] / 1000,) for member, each in at.items()}
    first = of(errors_by_region(study(), at, errors), "west").ranges[1]
    there = [errors[m][0] for m, each in at.items() if first.low <= each["west"] < first.high]
    assert first.members == len(there)
    assert first.mean == pytest.approx(np.mean(there))
    assert first.max == max(there)


def test_the_parameter_that_matters_comes_first() -> None:
    at = members(120)
    errors = {m: (0.1 + (each["south"] - 300) ** 2 / 1e5,) for m, each in at.items()}
    found = errors_by_region(study(), at, errors)
    assert found[0].name == "south"  # it falls and rises again: no straight line would see it
    effects = [one.effect or 0.0 for one in found]
    assert effects[0] > 0.7
    assert max(effects[1:]) < 0.2


def test_errors_that_do_not_differ_have_no_effect() -> None:
    found = errors_by_region(study(), members(30), dict.fromkeys(range(30), (0.1,)))
    assert [one.effect for one in found] == [0.0] * 5


def test_a_log_uniform_parameter_has_ranges_equally_wide_in_the_logarithm() -> None:
    given = study(west={"loguniform": [1.0, 1000.0]})
    at = {m: each | {"west": 10.0 ** (m % 3)} for m, each in members(9).items()}
    ranges = of(errors_by_region(given, at, dict.fromkeys(range(9), (0.1,))), "west").ranges
    assert [each.high for each in ranges] == pytest.approx([10.0, 100.0, 1000.0])
    assert [each.members for each in ranges] == [3, 3, 3]  # an edge belongs to the range above


def test_what_does_not_vary_has_no_ranges_and_listed_values_have() -> None:
    found = errors_by_region(
        study(west={"constant": 250.0}), members(9), dict.fromkeys(range(9), (0.1,))
    )
    assert {one.name for one in found} == {"initial", "east", "south", "north"}
    given = study(west={"values": [100.0, 300.0, 500.0]})
    at = {m: each | {"west": 100.0 + 200.0 * (m % 3)} for m, each in members(9).items()}
    listed = of(errors_by_region(given, at, dict.fromkeys(range(9), (0.1,))), "west")
    assert [each.members for each in listed.ranges] == [3, 3, 3]


def test_the_seed_of_a_random_draw_has_no_ranges(project: Path) -> None:
    darcy = load(project / "examples" / "darcy.yaml")
    at = {member: {"forcing": 1.0, "seed": float(member)} for member in range(9)}
    assert errors_by_region(darcy, at, dict.fromkeys(range(9), (0.1,))) == ()


def test_an_empty_range_says_so() -> None:
    at = {m: each | {"west": 120.0} for m, each in members(4).items()}
    ranges = of(errors_by_region(study(), at, dict.fromkeys(range(4), (0.1,))), "west").ranges
    assert [(each.members, each.mean, each.max) for each in ranges[1:]] == [(0, None, None)] * 2


def test_members_whose_parameters_are_unknown_are_left_out() -> None:
    found = errors_by_region(study(), members(2), {0: (0.1,), 1: (0.2,), 7: (0.3,)})
    assert [sum(each.members for each in one.ranges) for one in found] == [2] * 5
    assert errors_by_region(study(), {}, {0: (0.1,)}) == ()


@pytest.mark.parametrize(("count", "known"), [(6, False), (29, False), (30, True)])
def test_an_effect_of_few_members_is_unknown(count: int, known: bool) -> None:
    at = members(count)
    errors = {m: (each["west"] / 1000,) for m, each in at.items()}
    found = errors_by_region(study(), at, errors)
    assert [one.effect is not None for one in found] == [known] * 5


def test_members_that_diverged_are_counted_where_they_lie() -> None:
    at = members(60)
    errors = {m: (0.1, math.inf if each["west"] > 400 else 0.3) for m, each in at.items()}
    ranges = of(errors_by_region(study(), at, errors), "west").ranges
    lost = sum(each["west"] > 400 for each in at.values())
    assert sum(one.diverged for one in ranges) == lost > 0
    assert ranges[0].diverged == 0
    assert ranges[-1].mean is None or ranges[-1].mean == pytest.approx(0.2)
    assert json_text(asdict(ranges[-1]))


def test_each_field_has_its_own_error(project: Path) -> None:
    given = load(project / "examples" / "shallow_water.yaml")
    at = {
        m: {name: one.lowest + m / 9 * (one.highest - one.lowest)
            for name, one in given.parameters.items()}
        for m in range(9)
    }  # fmt: skip
    found = errors_by_region(given, at, dict.fromkeys(range(9), (0.1, 0.2, 0.6)))
    assert found
    for each in (part for one in found for part in one.ranges):
        assert each.mean == pytest.approx(0.3)
        assert list(each.fields) == list(given.spec.names[:3])
        assert list(each.fields.values()) == pytest.approx([0.1, 0.2, 0.6])


def test_parameters_come_from_the_last_start_of_a_member() -> None:
    events = [
        {"event": "start", "member": 3, "attempt": 1, "parameters": {"west": 1.0}},
        {"event": "failed", "member": 3, "attempt": 1},
        {"event": "start", "member": 3, "attempt": 2, "parameters": {"west": 2.0}},
        {"event": "start", "member": 4, "attempt": 1},
    ]
    assert parameters_of(events) == {3: {"west": 2.0}}


def test_a_csv_without_distributions_has_the_ranges_of_its_members(tmp_path: Path) -> None:
    at = members(9)
    rows = "\n".join("{initial},{west},{east},{south},250".format(**each) for each in at.values())
    table = tmp_path / "p.csv"
    table.write_text(f"initial,west,east,south,north\n{rows}\n", encoding="utf-8")
    given = small_study(ensemble={"design": {"csv": str(table)}, "members": 7, "validation": 2})
    bare = given.model_copy(update={"parameters": {}})
    at = {m: each | {"north": 250.0} for m, each in at.items()}
    found = errors_by_region(bare, at, dict.fromkeys(range(9), (0.1,)))
    assert {one.name for one in found} == {"initial", "west", "east", "south"}
    west = of(found, "west").ranges
    values = [each["west"] for each in at.values()]
    assert (west[0].low, west[-1].high) == (min(values), max(values))
    assert sum(each.members for each in west) == 9
    # Where the study gives a range as well, that one stands.
    assert of(errors_by_region(given, at, {0: (0.1,)}), "west").ranges[0].low == 100.0
