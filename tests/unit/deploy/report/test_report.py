"""deploy/report: one page from whatever a run left."""

import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import figures
from deploy.report import error_plots, pictures, plots, runfiles, svg
from deploy.report.report import write_report
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.regions import ErrorRange, ErrorsOf
from tests.errors import made_errors
from tests.fake_study import (
    MEMBERS,
    RANKS,
    SAMPLES_PER_MEMBER,
    STD,
    WALL_SECONDS,
    members_at,
    stats_at,
    write_run,
    write_validation,
)
from tests.strict import strict_json
from trainers.durable import append_line, json_text

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Headings, labels of plots and addresses of a page; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.plots: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if tag == "svg":
            self.plots.append(given["aria-label"] or "")
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def report(out: Path) -> tuple[str, Page]:
    path = write_report(out)
    assert path == out / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a report's time; where only the page matters it is left out."""
    monkeypatch.setattr(svg, "markup", lambda figure, label: "<svg aria-label='plot'></svg>")
    for module in (plots, pictures, error_plots):
        monkeypatch.setattr(module, "markup", svg.markup)


def facts(text: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))


def test_a_finished_study_has_every_card_and_number(tmp_run: Path) -> None:
    text, page = report(write_run(tmp_run))
    assert page.headings == [
        "Learning, by train step",
        "Learning, by wall time",
        "Reservoirs",
        "Throughput",
        "Waiting",
        "Paid back",
        "How wrong each field is",
        "How errors are spread over the members",
        "Where errors are large",
        "Numbers",
        "Validation members: temperature",
        "What failed",
    ]
    assert len(page.plots) == 9
    assert facts(text) == {
        "members completed": "39",
        "members failed": "1",
        "samples stored": "1,434",
        "samples drawn at least once": "1,434",
        "draws": "11,020",
        "mean reuse": "7.68",
        "train steps": "1,102",
        "wall time": "36 s",
        "first train step after": "6.1 s",
        "trainer waited, mean over ranks": "3.0 s",
        "solvers waited, sum over members": "7.2 s",
        "fields streamed": "5.51 MB",
        "solvers were held, sum over members": "54 s",
        "ranks were held, sum over ranks": "1 min 12 s",
        "solver, one member": "800 ms",
        "surrogate, the same alone": "2.00 ms",
        "surrogate, many at once, each": "400 µs",
        "paid back after": "158 queries",
        "paid back after, many at once": "158 queries",
    }
    assert "heat · 24 x 40 · 41 solver steps · mlp on 2 ranks" in text
    assert ">completed<" in text


def test_the_page_needs_nothing_else(tmp_run: Path) -> None:
    text, page = report(write_run(tmp_run))
    assert not page.tags & {"script", "link", "iframe", "img"}
    assert all(one.startswith(("#", "data:image/png;base64,")) for one in page.addresses)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 1_000_000


@pytest.mark.usefixtures("empty_plots")
def test_every_text_of_the_run_is_escaped(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    (out / "study.yaml").write_text("# <script>alert(1)</script> & more")
    config = json.loads((out / "resolved.json").read_text())
    config["solver"]["kind"] = config["name"] = "<b>x</b>"
    (out / "resolved.json").write_text(json.dumps(config))
    text, page = report(out)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "KSP &lt;diverged&gt; &amp; so" in text
    assert "<h1>&lt;b&gt;x&lt;/b&gt;</h1>" in text
    assert "script" not in page.tags


@pytest.mark.usefixtures("empty_plots")
@pytest.mark.parametrize(
    ("until", "phase", "headings"),
    [
        (0.0, "starting", ["Numbers"]),
        (4.0, "filling", ["Reservoirs", "Throughput", "Waiting", "Numbers"]),
        (20.0, "training", ["Learning, by train step", "Learning, by wall time", "Reservoirs",
                            "Throughput", "Waiting", "Paid back", "How wrong each field is",
                            "How errors are spread over the members", "Where errors are large",
                            "Numbers"]),
    ],
)  # fmt: skip
def test_an_aborted_study_has_a_report(
    tmp_run: Path, until: float, phase: str, headings: list[str]
) -> None:
    text, page = report(write_run(tmp_run, until=until))
    assert page.headings == [*headings, "What failed"]
    assert f"ended while {phase}" in text
    stored = sum(one.inserted for one in stats_at(until).reservoirs)
    assert facts(text)["samples stored"] == f"{stored:,}"


@pytest.mark.usefixtures("empty_plots")
@pytest.mark.parametrize(
    "missing",
    ["study.yaml", "resolved.json", "metrics.jsonl", "summary.json", "journal.jsonl", "validation"],
)
def test_a_missing_part_leaves_its_card_out(tmp_run: Path, missing: str) -> None:
    out = write_run(tmp_run)
    path = out / missing
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
    text, page = report(out)
    assert "Numbers" in page.headings
    assert ("What failed" in page.headings) == (missing != "journal.jsonl")
    assert ("Reservoirs" in page.headings) == (missing != "metrics.jsonl")
    assert any("temperature" in one for one in page.headings) == (
        missing not in ("validation", "resolved.json")
    )
    assert ("15.4 K" in text) == (missing != "metrics.jsonl")


def test_an_empty_directory_has_a_report(tmp_path: Path) -> None:
    text, page = report(tmp_path)
    assert page.headings == ["Numbers"]
    assert set(facts(text).values()) == {"–"}  # noqa: RUF001


@pytest.mark.usefixtures("empty_plots")
def test_damaged_files_are_left_out(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    metrics = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(metrics[:-200])
    (out / "summary.json").write_text('{"name": "he')
    (out / "validation" / "rank0.npz").write_bytes(b"PK\x03\x04 not a zip")
    np.savez(out / "validation" / "rank1.npz", members=np.array([{}], dtype=object))
    run = runfiles.read(out)
    assert run.summary == {}
    assert run.series.elapsed.size == 2 * WALL_SECONDS
    assert run.pictures == ()
    report(out)


@pytest.mark.usefixtures("empty_plots")
def test_a_failed_study_says_why(tmp_run: Path) -> None:
    out = write_run(tmp_run, until=20.0)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json_text(stats_at(20.5, phase="failed").as_json()) + "\n")
    with (out / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "end", "at": 20.5, "reason": "too many <members>"}) + "\n")
    text, _ = report(out)
    assert ">failed<" in text
    assert "too many &lt;members&gt;" in text


def test_a_study_that_fails_while_it_starts_has_a_report(tmp_run: Path) -> None:
    out = write_run(tmp_run, until=0.0)
    lines = [stats_at(0.5, phase="starting"), stats_at(1.0, phase="failed")]
    text = "".join(json_text(stats.as_json()) + "\n" for stats in lines)
    (out / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert "Reservoirs" in report(out)[0]


@pytest.mark.usefixtures("empty_plots")
def test_a_part_that_cannot_be_made_leaves_the_rest_of_the_page(
    tmp_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = write_run(tmp_run)

    def broken(*given: object) -> str:
        raise KeyError("viscosity")

    monkeypatch.setattr(plots, "throughput", broken)
    monkeypatch.setattr(runfiles, "errors_by_region", broken)
    headings = report(out)[1].headings
    assert {"Reservoirs", "What failed"} <= set(headings)
    assert "Throughput" not in headings
    assert "there is no error by parameter in the report" in caplog.text


def test_the_pictures_are_the_best_the_median_and_the_worst_member(tmp_run: Path) -> None:
    shown = runfiles.read(write_run(tmp_run)).pictures
    assert [(one.place, one.member) for one in shown] == [
        ("best", MEMBERS),
        ("median", MEMBERS + 2),
        ("worst", MEMBERS + 4),
    ]
    last = 0.01 * (SAMPLES_PER_MEMBER - 1)
    assert [one.time for one in shown] == pytest.approx([last] * 3)
    errors = [one.error for one in shown]
    assert errors == sorted(members_at(1100)[one.member] for one in shown)


def test_without_validation_results_the_pictures_have_no_rank(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    (out / "validation.jsonl").unlink()
    shown = runfiles.read(out).pictures
    assert [(one.place, one.member - MEMBERS, one.error) for one in shown] == [
        ("", member, None) for member in (0, 2, 4)
    ]
    report(out)


@pytest.mark.parametrize("shape", [(96,), (24, 40)])
def test_a_prediction_that_diverged_is_shown_with_the_others(
    tmp_run: Path, shape: tuple[int, ...]
) -> None:
    out = write_run(tmp_run)
    for rank in range(RANKS):
        write_validation(out, rank, shape=shape)
        path = out / "validation" / f"rank{rank}.npz"
        with np.load(path) as file:
            arrays = dict(file)
        arrays["prediction"][arrays["members"] == MEMBERS + 4] = np.nan
        np.savez(path, **arrays)
    members = {str(member): [error] for member, error in members_at(1100).items()}
    members[str(MEMBERS + 4)] = [math.inf]
    line = {"train_step": 1100, "fields": ["temperature"], "std": [STD], "one_step": members}
    append_line(out / "validation.jsonl", line | {"rollout": {}})
    shown = runfiles.read(out).pictures
    assert (shown[-1].place, shown[-1].error) == ("worst", math.inf)
    assert "worst infinite" in report(out)[0]


@pytest.mark.usefixtures("empty_plots")
def test_one_validation_member_is_shown_once(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    for path in (out / "validation").glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        rows = arrays["members"] == MEMBERS + 2
        np.savez(path, **{name: array[rows] for name, array in arrays.items()})
    shown = runfiles.read(out).pictures
    assert [(one.place, one.member) for one in shown] == [("best, median, worst", 37)]
    report(out)


@pytest.mark.parametrize(
    ("shape", "channels"), [((96,), 1), ((24, 40), 2), ((6, 12, 20), 1), ((700, 30), 1)]
)
def test_fields_of_any_dimension_are_shown(
    tmp_run: Path, shape: tuple[int, ...], channels: int
) -> None:
    out = write_run(tmp_run)
    (out / "resolved.json").unlink()
    for rank in range(RANKS):
        write_validation(out, rank, shape=shape, channels=channels)
    text, page = report(out)
    shown = [one for one in page.headings if one.startswith("Validation members: ")]
    assert shown == [f"Validation members: channel {one}" for one in range(channels)]
    images = text.count("data:image/png")
    assert images == (0 if len(shape) == 1 else channels * (9 + 2))
    assert len(text) < 3_000_000


def test_the_same_run_gives_the_same_page(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    assert write_report(out).read_bytes() == write_report(out).read_bytes()
    assert not list(out.glob(".*"))


def test_plots_of_a_long_study_are_thinned(tmp_run: Path) -> None:
    series = runfiles.read(write_run(tmp_run)).series
    repeat = 400
    columns: dict[str, Any] = {
        name: np.tile(getattr(series, name), repeat)
        for name in runfiles.Series.__dataclass_fields__
        if name != "phase"
    }
    columns["elapsed"] = np.arange(columns["loss"].size, dtype=float)
    columns["train_step"] = np.arange(columns["loss"].size, dtype=float) + 1
    long = runfiles.Series(phase=series.phase * repeat, **columns)
    assert long.elapsed.size > 29_000
    assert len(plots.throughput(long)) < 200_000
    assert len(plots.learning(long, against="train_step")) < 200_000


def test_shares_of_waiting_add_up(tmp_run: Path) -> None:
    series = runfiles.read(write_run(tmp_run)).series
    edges, share = plots.shares(series.elapsed, series.trainer_blocked)
    total = float(np.sum(share / 100.0 * np.diff(edges)))
    assert total == pytest.approx(series.trainer_blocked[-1])
    assert share.max() == pytest.approx(30.0)


def cells(text: str) -> list[list[str]]:
    """The rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    return [re.findall(r"<t[hd]>([^<]*)</t[hd]>", row) for row in rows]


@pytest.mark.usefixtures("empty_plots")
def test_the_errors_of_fields_and_their_tail_are_in_numbers(tmp_run: Path) -> None:
    text, _ = report(write_run(tmp_run))
    found = cells(text)
    assert ["", "mean", "median", "95 %", "99 %", "largest", "std", "n", "diverged"] in found
    last = stats_at(WALL_SECONDS).ranks[0].validation
    assert last is not None
    spread = last.one_step.spread
    shares = [figures.percent(getattr(spread, name)) for name in ("mean", "median")]
    of_few = [figures.UNKNOWN] * 2
    assert ["members", *shares, *of_few, figures.percent(spread.max), figures.percent(spread.std),
            "5", "0"] in found  # fmt: skip
    assert ["temperature", "15.4 K", "17 %", "5.1 %"] in found


@pytest.mark.usefixtures("empty_plots")
def test_several_fields_and_rollouts_have_a_row_each(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    stats = strict_json(lines[-1])
    fields = [("depth", "m"), ("flow<b>", "m^2/s")]
    for rank in stats["ranks"]:
        for kind, mse in (("one_step", 4.0), ("rollout", math.inf)):
            errors = made_errors([0.1, math.inf], mse=mse, nrmse=0.2, fields=fields)
            rank["validation"][kind] = asdict(errors)
    (out / "metrics.jsonl").write_text("\n".join([*lines[:-1], json_text(stats)]) + "\n")
    line = {"train_step": 1200, "fields": ["depth", "flow<b>"], "std": [1.0, 2.0]}
    for kind in ("one_step", "rollout"):
        line[kind] = {member: [error, 0.25] for member, error in members_at(1100).items()}
    append_line(out / "validation.jsonl", line)
    text, page = report(out)
    assert "<b>" not in text
    assert ["depth, one step", "2.00 m", "20 %", "5 %"] in cells(text)
    assert ["flow&lt;b&gt;, rollouts", "infinite", "20 %", "5 %"] in cells(text)
    assert "rollouts 20 %" in text
    assert ["mean error, of the field&#39;s std", "depth", "flow&lt;b&gt;"] in cells(text)
    assert "Where errors are large" in page.headings


@pytest.mark.parametrize(
    "queries", [(158, 158), (None, 300), (None, None)], ids=["both", "batched", "never"]
)
def test_when_a_study_has_paid_is_drawn_whatever_the_answer(
    queries: tuple[int | None, int | None],
) -> None:
    paid = Breakeven(
        cost_seconds=100.0, member_seconds=0.5, query_seconds=0.6, queries=queries[0],
        batched_query_seconds=0.1, batched_queries=queries[1],
    )  # fmt: skip
    drawing = error_plots.payback(paid)
    assert drawing.startswith("<svg")
    assert ">solver<" in drawing


def test_a_figure_of_another_version_is_left_out(tmp_run: Path) -> None:
    out = write_run(tmp_run)
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps(summary | {"breakeven": {"queries": 3}}))
    assert runfiles.read(out).breakeven is None


def test_errors_that_differ_much_and_log_ranges_are_drawn() -> None:
    edges = ((1.0, 10.0), (10.0, 100.0))
    ranges = tuple(
        ErrorRange(low=low, high=high, members=1, mean=0.1, max=0.1) for low, high in edges
    )
    empty = (*ranges, ErrorRange(low=100.0, high=1000.0, members=0, mean=None, max=None))
    one = ErrorsOf(name="re<1>", unit="1", effect=0.5, ranges=empty)
    other = ErrorsOf(name="nu", unit="m^2/s", effect=0.1, ranges=empty)
    at = [{"re<1>": 3.0, "nu": 30.0}, {"re<1>": 30.0, "nu": 3.0}]
    drawing = error_plots.plane(one, other, at, [0.01, 0.5])
    assert "nu / m^2/s" in drawing
    assert "re&lt;1&gt;" in drawing
    assert "re&lt;1&gt;: effect 50 %" in error_plots.regions([one, other] * 4, columns=2)
