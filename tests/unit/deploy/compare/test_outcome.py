"""Medians and sentences of a comparison, and its page."""

from dataclasses import replace
from typing import Any

import pytest

from deploy.compare.methods import steps_per_second
from deploy.compare.outcome import Load, Outcome, Point, ends, middle, verdict
from deploy.compare.page import page, rows, writing
from tests.errors import made_errors
from tests.small_study import small_study

ONLINE = Outcome(
    method="reservoir", online=True, seed=3, members=250, samples=25_000, draws=90_000,
    train_steps=9_000, wall_seconds=61.0, first_step_seconds=21.0, wait_seconds=0.5,
    batches_per_second=230.0, samples_per_second=2300.0, bytes_written=9_000, disk_bytes=12_000,
    error=0.2, fields=made_errors().fields, spread=made_errors([0.03] * 19 + [0.05]).spread,
    load=Load(1.0, 2.0),
    course=(
        Point(seconds=30.0, train_step=2000, members=100, error=None, tail=None),
        Point(seconds=40.0, train_step=4000, members=180, error=0.9, tail=0.09),
        Point(seconds=60.0, train_step=9000, members=250, error=0.2, tail=0.03),
    ),
)  # fmt: skip
OFFLINE = replace(
    ONLINE, method="npy:10", online=False, error=0.4, batches_per_second=460.0, wait_seconds=0.5,
    bytes_written=410_000_000, disk_bytes=411_000_000, first_step_seconds=7.0,
    spread=made_errors([0.02] * 19 + [0.04]).spread,
)  # fmt: skip
WRITTEN: dict[str, Any] = {
    "seed": 3, "members": 250, "failed": 2, "wall_seconds": 33.0, "solve_seconds": 51.0,
    "write_seconds": {"npy": 1.5}, "bytes_written": {"npy": 410_000_000},
}  # fmt: skip


LAST = "validation error with the last weights"


def sentence(about: str, *outcomes: Outcome) -> str:
    (found,) = [line for line in verdict(outcomes) if line.startswith(about)]
    return found


def test_a_sentence_says_plainly_who_wins() -> None:
    error = sentence(LAST, ONLINE, OFFLINE)
    assert ": online wins; 20 % online (reservoir), 40 % offline (npy:10), 50 % less" in error
    assert ": offline wins; " in sentence("tail", ONLINE, OFFLINE)
    assert "2.00 times as much" in sentence("batches per second", ONLINE, OFFLINE)
    assert ": offline wins; 230/s online" in sentence("batches per second", ONLINE, OFFLINE)
    assert ": online wins; 12.0 kB" in sentence("storage", ONLINE, OFFLINE)
    assert "no difference to speak of" in sentence("time the trainer waited", ONLINE, OFFLINE)


def test_the_best_of_each_side_is_compared_by_its_median() -> None:
    outcomes = [
        *(replace(ONLINE, seed=seed, error=error) for seed, error in enumerate((0.1, 0.5, 0.3))),
        *(replace(ONLINE, method="fifo", seed=seed, error=0.45) for seed in range(3)),
        OFFLINE,
    ]
    assert middle(outcomes, "reservoir", lambda one: one.error) == 0.3
    assert ends(outcomes, "reservoir", lambda one: one.error) == (0.1, 0.5)
    error = sentence(LAST, *outcomes)
    assert "30 % online (reservoir), 40 % offline" in error
    assert error.endswith("25 % less (the ranges over the seeds overlap)")
    agreeing = [replace(ONLINE, seed=4, error=0.25), *outcomes[:1], OFFLINE]
    assert "overlap" not in sentence(LAST, *agreeing)


def through(*errors: tuple[int, float]) -> tuple[Point, ...]:
    return tuple(
        Point(seconds=step / 100, train_step=step, members=9, error=error, tail=error)
        for step, error in errors
    )


def test_a_training_that_got_worse_is_judged_by_its_best_as_well() -> None:
    worse = replace(OFFLINE, error=0.4, course=through((4000, 0.1), (9000, 0.4)))
    assert worse.best == 0.1
    assert ": online wins; 20 % online" in sentence(LAST, ONLINE, worse)
    best = sentence("validation error, best on the way", ONLINE, worse)
    assert ": offline wins; 20 % online (reservoir), 10 % offline (npy:10)" in best
    assert best.endswith("(by the last weights: online)")


def test_errors_are_compared_after_equally_many_train_steps() -> None:
    longer = replace(
        OFFLINE, error=0.1, train_steps=90_000,
        course=through((4000, 0.9), (8900, 0.5), (9100, 0.15), (90_000, 0.1)),
    )  # fmt: skip
    assert ": offline wins; 20 % online" in sentence(LAST, ONLINE, longer)
    equal = sentence("validation error after 9,000 train steps", ONLINE, longer)
    assert ": online wins; 20 % online (reservoir), 50 % offline" in equal
    assert equal.endswith("(by the last weights: offline)")
    assert longer.error_after(10) == 0.9  # nothing was measured before


def test_a_verdict_that_rests_on_memory_says_so() -> None:
    slow = replace(OFFLINE, batches_per_second=100.0)
    ram = replace(OFFLINE, method="ram:10", batches_per_second=900.0)
    rate = sentence("batches per second", ONLINE, slow, ram)
    assert ": offline wins; 230/s online (reservoir), 900/s offline (ram:10)" in rate
    assert rate.endswith("(without data held in memory: online)")
    assert "memory" not in sentence("batches per second", ONLINE, ram)
    assert "memory" not in sentence("batches per second", ONLINE, slow)


def test_a_second_of_waiting_is_no_victory() -> None:
    hardly = replace(OFFLINE, wait_seconds=0.01)
    assert "no difference" in sentence("time the trainer waited", ONLINE, hardly)
    assert ": offline wins" in sentence(
        "time the trainer waited", replace(ONLINE, wait_seconds=2.0), hardly
    )


def test_with_one_side_alone_nobody_wins() -> None:
    assert list(verdict([ONLINE])) == []


def test_rows_have_the_range_over_the_seeds() -> None:
    alone, several = (
        next(iter(rows(outcomes)))
        for outcomes in ([ONLINE], [ONLINE, replace(ONLINE, seed=4, error=0.3)])
    )
    assert alone[0] == several[0] == "reservoir"
    assert "20 %" in alone
    assert "25 % (20 % to 30 %)" in several


def test_steps_per_second_are_of_the_time_in_which_they_were_taken() -> None:
    after = replace(ONLINE.course[-1], seconds=90.0)  # a last report, after the loop
    assert steps_per_second((*ONLINE.course, after), 20.0) == pytest.approx(9000 / 40.0)


def test_writing_is_told_apart() -> None:
    assert writing(WRITTEN) == (
        "250 members, 2 failed in 33 s of wall time; in all processes together: solvers 51 s, "
        "npy 410 MB in 1.5 s"
    )


def test_the_page_holds_every_method_and_nothing_from_elsewhere() -> None:
    odd = replace(OFFLINE, method="npy<b>")
    text = page(small_study(), [ONLINE, odd], [WRITTEN], ["error: <online> wins"], seconds=None)
    assert text.count("<svg") == 4
    assert "error: &lt;online&gt; wins" in text
    assert "npy<b>" not in text
    assert "solvers 51 s" in text
    for outside in ("<script", "<link", "src=", 'href="http'):
        assert outside not in text
