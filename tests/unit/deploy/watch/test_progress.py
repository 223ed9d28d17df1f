"""deploy/watch/progress.py and deploy/figures.py: what a person reads while a study runs."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from deploy import figures
from deploy.watch.progress import MAX_POINTS, History, ProgressDisplay, line, panel
from tests.fake_study import WALL_SECONDS, stats_at


def console(*, terminal: bool, width: int = 120) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return (
        Console(file=text, force_terminal=terminal, width=width, color_system=None),
        text,
    )


def rendered(elapsed: float, width: int = 120) -> str:
    history = History()
    for moment in range(int(elapsed) + 1):
        history.add(stats_at(float(moment)))
    screen, text = console(terminal=False, width=width)
    screen.print(panel(stats_at(elapsed), history, name="heat-2d", width=width))
    return text.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 K"),
        (0.00123, "0.00123 K"),
        (0.000123, "1.23e-04 K"),
        (12.345, "12.3 K"),
        (999.96, "1,000 K"),
        (25_000.0, "25,000 K"),
        (1e7, "1.00e+07 K"),
        (-3.14159, "-3.14 K"),
        (math.inf, "infinite"),
        (None, "–"),  # noqa: RUF001 - a dash, as shown
    ],
)
def test_a_number_has_three_digits_and_its_unit(value: float | None, text: str) -> None:
    assert figures.number(value, "K") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.21, "3.2 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (75.0, "1 min 15 s"),
     (7300.0, "2 h 01 min"), (None, "–")],  # noqa: RUF001
)  # fmt: skip
def test_seconds_are_read_as_a_person_says_them(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


def test_other_figures() -> None:
    assert figures.clock(3675.9) == "1:01:15"
    assert figures.clock(75.0) == "1:15"
    assert figures.size(409_600_000.0) == "410 MB"
    assert figures.size(12.0) == "12 B"
    assert figures.size(3e15) == "3,000 TB"
    assert [figures.percent(x) for x in (0.0, 0.0004, 0.0123, 0.995)] == [
        "0 %",
        "0.04 %",
        "1.2 %",
        "100 %",
    ]
    assert figures.number(2.0, "1") == "2.00"


def test_a_sparkline_follows_the_logarithm_and_is_bounded() -> None:
    assert figures.sparkline([1.0, 10.0, 100.0], 8) == "▁▅█"
    assert figures.sparkline([2.0, 2.0], 8) == "▁▁"
    assert figures.sparkline([1.0], 8) == ""
    assert figures.sparkline([0.0, math.nan, math.inf], 8) == ""
    assert len(figures.sparkline([1.0 + i for i in range(1000)], 30)) == 30


def test_a_line_holds_every_figure() -> None:
    text = line(stats_at(20.0))
    newest = stats_at(20.0)
    result = figures.validation(newest)
    assert result is not None
    for part in (
        "[0:20] training",
        f"members {newest.members.completed}/40 done 2 running 1 failed",
        f"samples {figures.total(newest, 'inserted')}/1,435",
        f"in {newest.samples_inserted_per_second:.1f}/s",
        "drawn 380/s",
        f"reuse {newest.reuse_mean:.2f}",
        "reservoir 100 % full",
        f"{figures.percent(figures.unseen_share(newest.reservoirs))} unseen",
        "step 532, loss",
        f"validation {figures.field_error(result.one_step.fields[0])}",
        "the solvers wait for the trainer",
        "16 s left",
    ):
        assert part in text
    assert "\n" not in text


def test_before_the_first_train_step_unknown_figures_are_dashes() -> None:
    text = line(stats_at(4.0))
    assert "filling" in text
    assert "step 0, loss –" in text  # noqa: RUF001
    assert "– left" in text  # noqa: RUF001
    assert "validation" not in text
    assert "reservoir – full" in line(stats_at(0.5))  # noqa: RUF001


def test_a_finished_study_waits_for_nobody() -> None:
    text = line(stats_at(WALL_SECONDS))
    assert "done" in text
    assert "wait" not in text
    assert "left" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("elapsed", [0.0, 4.0, 20.0, 33.0, WALL_SECONDS])
def test_the_panel_holds_every_figure_and_fits(elapsed: float, width: int) -> None:
    text = rendered(elapsed, width)
    stats = stats_at(elapsed)
    assert all(len(row) <= width for row in text.splitlines())
    assert "…" not in text
    flat = " ".join(text.replace("│", " ").split())
    for part in (
        "heat-2d",
        f"{stats.members.completed}/40 done",
        "/s drawn",
        "/s in",
        f"reuse {figures.number(stats.reuse_mean)}",
        "full ·",
        "unseen",
        figures.number(figures.loss(stats)),
        figures.PHASES[stats.phase],
        figures.clock(elapsed),
    ):
        assert part in flat


def test_solvers_that_wait_for_a_trainer_that_starts_are_told_so() -> None:
    stats = stats_at(20.0)
    assert figures.waiting(stats) == "the solvers wait for the trainer"
    starting = replace(stats, ranks=())
    assert figures.waiting(starting) == "the trainer is starting: it imports torch"
    assert figures.waiting(replace(starting, waiting="nobody")) == "nobody waits"


def test_the_panel_shows_the_course_of_the_loss_and_who_waits() -> None:
    rows = rendered(20.0).splitlines()
    losses = next(row for row in rows if "loss" in row)
    assert "█" in losses
    assert losses.index("█") < losses.index("▁")
    assert any("the solvers wait for the trainer" in row for row in rows)
    assert "16 s left" in rows[-1]


def test_the_panel_shows_the_tail_of_the_errors_and_when_the_study_has_paid() -> None:
    text = rendered(20.0)
    result = figures.validation(stats_at(20.0))
    assert result is not None
    flat = " ".join(text.replace("│", " ").split())
    assert f"members {figures.tail(result.shown.spread)}" in flat
    assert "paid back     " in text
    assert "after 93 queries" in text
    assert "paid back" not in rendered(4.0)


@pytest.mark.parametrize(
    ("queries", "batched", "text"),
    [
        (1200, 3, "after 1,200 queries"),
        (None, 3400, "after 3,400 queries, many at once"),
        (None, None, "never: the solver is not slower"),
    ],
)
def test_when_a_study_has_paid_is_said(queries: int | None, batched: int | None, text: str) -> None:
    paid = stats_at(20.0).breakeven
    assert paid is not None
    paid = replace(paid, queries=queries, batched_queries=batched)
    screen, written = console(terminal=False)
    stats = stats_at(20.0, breakeven=paid)
    screen.print(panel(stats, History(), name="heat-2d", width=120))
    assert text in written.getvalue()


def test_what_is_remembered_is_bounded_and_each_step_counts_once() -> None:
    history = History()
    start = stats_at(10.0)
    for step in range(2 * MAX_POINTS):
        ranks = tuple(replace(rank, train_step=step + 1) for rank in start.ranks)
        history.add(replace(start, ranks=ranks))
        history.add(replace(start, ranks=ranks))
    assert len(history.losses) == len(history.draw_rates) == MAX_POINTS
    assert len(history.errors) == 1


def test_without_a_terminal_a_line_at_each_phase_and_every_five_seconds() -> None:
    screen, text = console(terminal=False)
    with ProgressDisplay(name="heat-2d", console=screen) as display:
        for tick in range(int(2 * WALL_SECONDS) + 1):
            display(stats_at(tick / 2))
    lines = text.getvalue().splitlines()
    clocks = [row.split("]")[0].removeprefix("[0:") for row in lines]
    assert clocks == ["00", "03", "06", "11", "16", "21", "26", "30", "35", "35"]
    assert all(row.startswith("[0:") for row in lines), "a line was wrapped"


def test_on_a_terminal_the_last_panel_stays() -> None:
    screen, text = console(terminal=True)
    with ProgressDisplay(name="heat-2d", console=screen) as display:
        for second in range(int(WALL_SECONDS) + 1):
            display(stats_at(float(second)))
    last = text.getvalue().split("╭")[-1]
    assert "heat-2d" in last
    assert " done · 0:36 " in last


def test_an_error_leaves_the_terminal_usable() -> None:
    screen, text = console(terminal=True)

    def interrupted() -> None:
        with ProgressDisplay(name="heat-2d", console=screen) as display:
            display(stats_at(5.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert text.getvalue().rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
