import math
from dataclasses import replace
from typing import Any

import pytest

from pipeline.flow import ONCE, UNLIMITED, FlowControl, Limits, PolicyName


def limits(
    *,
    policy: PolicyName = "reservoir",
    capacity: int = 6000,
    watermark: int = 1000,
    max_reuse: float | None = 8.0,
    max_surplus: float | None = None,
    min_reuse: float | None = None,
    concurrent: int = 3,
    batch: int = 10,
    ranks: int = 2,
) -> Limits:
    return Limits(
        policy=policy,
        capacity=capacity,
        watermark=watermark,
        max_reuse=max_reuse,
        max_surplus=max_surplus,
        min_reuse=min_reuse,
        concurrent=concurrent,
        batch=batch,
        ranks=ranks,
    )


def found(**settings: Any) -> list[str]:
    return limits(**settings).problems()


def test_the_surplus_never_leaves_its_band() -> None:
    flow = FlowControl(max_reuse=2.5, max_surplus=40.0, watermark=7)
    inserted = drawn = 0
    low, high = math.inf, -math.inf
    for turn in range(500):
        if turn % 3:
            inserted += min(turn % 11, flow.room(inserted=inserted, drawn=drawn))
        else:
            drawn += 4 * min(turn % 5, flow.batches(inserted=inserted, drawn=drawn, batch=4))
        surplus = flow.surplus(inserted=inserted, drawn=drawn)
        low, high = min(low, surplus), max(high, surplus)
    assert 0 <= low < 4, "the trainer never came near its limit"
    assert 40 - 2.5 < high <= 40, "the solvers never came near theirs"


def test_nothing_is_drawn_below_the_watermark() -> None:
    flow = FlowControl(max_reuse=8.0, max_surplus=None, watermark=30)
    assert flow.batches(inserted=29, drawn=0, batch=10) == 0
    assert flow.batches(inserted=30, drawn=0, batch=10) == 24


def test_without_limits_nobody_waits_for_the_balance() -> None:
    flow = FlowControl(max_reuse=None, max_surplus=None, watermark=3)
    assert flow.surplus(inserted=3, drawn=1000) == math.inf
    assert flow.batches(inserted=3, drawn=1000, batch=10) == UNLIMITED
    assert flow.room(inserted=10**9, drawn=0) == UNLIMITED


def test_a_trainer_that_is_ahead_gets_nothing() -> None:
    # Replayed batches are drawn beyond the balance.
    flow = FlowControl(max_reuse=1.0, max_surplus=None, watermark=3)
    assert flow.batches(inserted=20, drawn=50, batch=10) == 0


@pytest.mark.parametrize(
    ("max_reuse", "max_surplus", "watermark", "message"),
    [
        (8.0, None, 0, "watermark=0 is below 1 sample"),
        (0.0, None, 5, "max_reuse=0.0 must be a positive number"),
        (math.inf, None, 5, "max_reuse=inf must be a positive number"),
        (None, 50.0, 5, "max_surplus=50 has no meaning without max_reuse"),
        (8.0, 39.0, 5, r"max_surplus=39 < watermark=5 \* max_reuse=8 must deadlock"),
    ],
)
def test_impossible_limits_are_refused(
    max_reuse: float | None, max_surplus: float | None, watermark: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FlowControl(max_reuse=max_reuse, max_surplus=max_surplus, watermark=watermark)


def test_the_demo_study_has_no_problems() -> None:
    assert found() == []


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir", "uniform"])
def test_sensible_settings_of_every_policy_have_no_problems(policy: PolicyName) -> None:
    assert found(policy=policy, max_reuse=None) == []


def test_a_watermark_of_nothing_is_named() -> None:
    (line,) = found(watermark=0)
    assert line.startswith("watermark=0 < 1")


def test_a_watermark_above_the_capacity_is_named() -> None:
    (line,) = found(capacity=900)
    assert line.startswith("capacity=900 < watermark=1000: training would never start.")
    assert "Lower watermark to at most 896" in line
    assert found(capacity=900, watermark=896) == []


def test_too_few_slots_for_the_concurrent_members_are_named() -> None:
    (line,) = found(capacity=1003)
    assert line.startswith("capacity=1003 < watermark=1000 + concurrent=3 + ranks-1=1:")
    assert "Raise capacity to at least 1004" in line
    assert found(capacity=1004) == []
    assert found(capacity=1003, ranks=1) == []


def test_a_batch_that_is_larger_than_the_reservoir_is_named() -> None:
    (line,) = found(capacity=30, watermark=2, max_reuse=None, batch=32)
    assert line.startswith("capacity=30 < batch=32: training would never start. Lower batch to")
    assert found(capacity=36, watermark=2, max_reuse=None, batch=32) == []


def test_a_first_batch_waits_for_as_many_samples_as_it_has() -> None:
    assert limits(watermark=2, batch=32).flow_control().watermark == 32
    assert limits(watermark=2, batch=32, policy="fifo").flow_control().watermark == 2


@pytest.mark.parametrize("policy", ["fifo", "firo"])
def test_a_least_reuse_that_is_not_allowed_is_named(policy: PolicyName) -> None:
    (line,) = found(min_reuse=9.0)
    assert line.startswith("min_reuse=9 with max_reuse=8, which is not exceeded. Lower min_reuse")
    (line,) = found(policy=policy, max_reuse=None, min_reuse=2.0)
    assert line.startswith(f"min_reuse=2 with policy={policy}, which draws each sample once.")
    assert found(min_reuse=8.0) == []
    assert found(policy=policy, max_reuse=None, min_reuse=1.0) == []
    assert found(max_reuse=None, min_reuse=20.0) == []


def test_the_least_reuse_is_the_most_where_that_is_set() -> None:
    assert limits().reuse_reached == 8.0
    assert limits(max_reuse=None).reuse_reached == 1.0
    assert limits(min_reuse=3.0).reuse_reached == 3.0


def test_a_quarter_of_the_draws_is_kept_back_and_less_where_the_band_is_narrow() -> None:
    flow = limits().flow_control()
    assert flow.batches(inserted=2000, drawn=0, batch=10) == 1200  # of 1600
    assert flow.batches(inserted=60_000, drawn=8 * 57_000, batch=10) == 1200
    narrow = limits(max_surplus=8042.0).flow_control()
    assert narrow.kept * 8 == 8042 - 10 - 8 * 5
    assert limits(policy="uniform").flow_control().kept == 0


def test_nothing_is_overwritten_while_half_of_the_draws_are_due() -> None:
    flow = limits().flow_control()
    assert flow.overwritable(inserted=6000, drawn=24_000) == 0
    assert flow.overwritable(inserted=6000, drawn=24_000 + 80) == 10
    for unlimited in (limits(min_reuse=1.0), limits(max_reuse=None), limits(max_surplus=1e6)):
        assert unlimited.flow_control().overwritable(inserted=10**6, drawn=0) == UNLIMITED


@pytest.mark.parametrize("max_reuse", [0.5, 1.0])
def test_drawing_with_replacement_no_more_often_than_inserting_is_named(max_reuse: float) -> None:
    (line,) = found(max_reuse=max_reuse)
    assert line.startswith(f"max_reuse={max_reuse:g} <= 1 with policy=reservoir must deadlock")


def test_too_few_seen_samples_to_replace_are_named_with_a_sufficient_capacity() -> None:
    (line,) = found(capacity=60, watermark=20, max_reuse=1.2, batch=10)
    assert line.startswith("capacity=60 * (1 - 1/max_reuse=1.2) = 10 samples to replace < 27 =")
    sufficient = int(line.partition("Raise capacity to at least ")[2].partition(".")[0])
    assert found(capacity=sufficient, watermark=20, max_reuse=1.2) == []
    assert found(capacity=sufficient - 1, watermark=20, max_reuse=1.2) != []


@pytest.mark.parametrize("policy", ["fifo", "firo"])
def test_reuse_of_samples_that_are_drawn_once_is_named(policy: PolicyName) -> None:
    (line,) = found(policy=policy, max_reuse=8.0)
    assert line.startswith(f"max_reuse=8 with policy={policy}, which draws each sample once")
    assert found(policy=policy, max_reuse=1.0) == []


@pytest.mark.parametrize(("policy", "sufficient"), [("fifo", 36), ("firo", 46)])
def test_no_room_for_a_batch_is_named(policy: PolicyName, sufficient: int) -> None:
    def lines(capacity: int) -> list[str]:
        return found(policy=policy, max_reuse=None, capacity=capacity, watermark=10, batch=32)

    (line,) = lines(sufficient - 1)
    assert line.startswith(f"capacity={sufficient - 1} < ")
    assert f"Raise capacity to at least {sufficient}" in line
    assert lines(sufficient) == []


def test_a_band_that_must_deadlock_is_named() -> None:
    (line,) = found(max_surplus=8041.0)
    assert line.startswith(
        "max_surplus=8041 < max_reuse=8 * (watermark=1000 + concurrent=3 + ranks-1=1) + batch=10:"
    )
    assert "Raise max_surplus to at least 8042" in line
    assert found(max_surplus=8042.0) == []


def test_a_band_without_reuse_is_named() -> None:
    (line,) = found(max_reuse=None, max_surplus=50_000.0)
    assert line.startswith("max_surplus=50000 without max_reuse")
    assert found(policy="firo", max_reuse=1.0, max_surplus=50_000.0) == []


def test_all_problems_are_named_at_once() -> None:
    assert len(found(capacity=900, max_reuse=0.5, max_surplus=20.0)) == 3


@pytest.mark.parametrize("policy", ["fifo", "firo", "uniform", "reservoir"])
@pytest.mark.parametrize("surplus", [None, 4000.0])
def test_what_is_granted_in_advance_is_to_spare(policy: PolicyName, surplus: float | None) -> None:
    seen = set()
    for capacity in range(20, 900, 13):
        reuse = None if policy in ONCE else 4.0
        of = limits(
            policy=policy, capacity=capacity, watermark=15, max_reuse=reuse,
            max_surplus=None if reuse is None else surplus,
        )  # fmt: skip
        count = of.grantable
        assert 0 <= count <= capacity // 8
        if of.problems():
            continue
        seen.add(count > 0)
        if count:  # a sender that is stopped with all of them in hand leaves a study that goes on
            left = None if of.max_surplus is None else of.max_surplus - count * 4.0
            assert replace(of, capacity=capacity - count, max_surplus=left).problems() == []
    assert True in seen
