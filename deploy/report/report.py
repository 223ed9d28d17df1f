"""Writes ``report.html``: what a study did, in numbers and pictures, in one file.

1. A part of the run that is missing leaves its card out; an aborted study has a report too.
2. The file appears whole or not at all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from deploy import figures
from deploy.report import error_plots, pictures, plots, runfiles
from deploy.report.error_cards import cost_rows, error_cards
from deploy.report.page import Card, Tile, render
from deploy.report.runfiles import RunFiles
from pipeline.control import journal
from pipeline.control.rundir import RunPaths
from pipeline.errors import carry_on
from pipeline.study.problems import counted
from trainers.durable import write_atomically

MAX_FAILURES = 20


def write_report(out: Path) -> Path:
    """Write ``out/report.html`` from what the run directory ``out`` holds.

    Returns:
        Where it was written.
    """
    path = RunPaths(out).report
    write_atomically(path, page(runfiles.read(out), failures(out)))
    return path


_FAILURES = ("failed", "lost")  # of a member


def failures(out: Path) -> list[tuple[str, str]]:
    """What went wrong and its details, from the journal: the study first, then the attempts."""
    path = RunPaths(out).journal
    if not path.is_file():
        return []
    found: list[tuple[str, str]] = []
    for event in journal.read(path):
        if event["event"] == "end" and event["reason"] is not None:
            found.insert(0, (f"{figures.clock(event['at'])} the study: {event['reason']}", ""))
        elif event["event"] in (*_FAILURES, "trainer failed") and len(found) < MAX_FAILURES:
            member = f"member {event.get('member')}, attempt {event.get('attempt')}"
            place = member if event["event"] in _FAILURES else "the trainer"
            line = f"{figures.clock(event['at'])} {place}: {event.get('reason')}"
            found.append((line, str(event.get("details", ""))))
    return found


def page(run: RunFiles, failed: list[tuple[str, str]]) -> str:
    """The whole page."""
    phase = str(run.last.get("phase", "failed" if not run.summary else "done"))
    done = phase == "done"
    return render(
        title=f"{run.name} · headrace",
        name=run.name,
        badge="completed" if done else "failed" if phase == "failed" else f"ended while {phase}",
        good=done,
        what=_what(run),
        tiles=_tiles(run),
        cards=_cards(run, failed),
        footer=(
            "Written by headrace. Times are wall time since the start of the study; "
            "samples, draws and slots are sums over all ranks."
        ),
        source=run.source,
    )


def _cards(run: RunFiles, failed: list[tuple[str, str]]) -> list[Card]:
    """The cards that can be made; a fault in one part of the page leaves the others."""
    found: list[Card] = []
    for part in (_plot_cards(run), _picture_cards(run)):
        with carry_on("rest of a part of the report"):
            for each in part:
                found.append(each)  # noqa: PERF402 - keeps those before a fault
    if failed:
        found.append(Card(title="What failed", lines=failed, wide=True))
    return found


def _what(run: RunFiles) -> str:
    """In one line, what was simulated and trained."""
    solver, trainer = run.config.get("solver", {}), run.config.get("trainer", {})
    parts = []
    if "kind" in solver:
        parts.append(str(solver["kind"]))
    if "grid" in solver:
        parts.append(" x ".join(str(points) for points in solver["grid"]))
    if "steps" in solver:
        parts.append(f"{solver['steps']} solver steps")
    if "model" in trainer:
        parts.append(
            f"{trainer['model'].get('kind')} on {counted(int(trainer.get('ranks', 1)), 'rank')}"
        )
    return " · ".join(parts)


def _figure(run: RunFiles, name: str) -> float | None:
    """From ``summary.json``; from the last line of ``metrics.jsonl`` for an aborted study."""
    if name in run.summary:
        value: float | None = run.summary[name]
        return value
    return _LAST[name](run.last) if run.last and name in _LAST else None


def _total(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda last: sum(int(one[name]) for one in last["reservoirs"])


_LAST: dict[str, Callable[[dict[str, Any]], float]] = {
    "members_completed": lambda last: int(last["members"]["completed"]),
    "members_failed": lambda last: int(last["members"]["failed"]),
    "samples_inserted": _total("inserted"),
    "samples_drawn": _total("drawn"),
    "samples_unique": _total("unique"),
    "bytes_streamed": _total("bytes_received"),
    "reuse_mean": lambda last: float(last["reuse_mean"]),
    "train_steps": lambda last: max((int(rank["train_step"]) for rank in last["ranks"]), default=0),
    "wall_seconds": lambda last: float(last["elapsed_seconds"]),
    "solver_wait_seconds": lambda last: float(last["solver_wait_seconds"]),
}


def _count(value: float | None) -> str:
    return figures.UNKNOWN if value is None else figures.count(int(value))


def _tiles(run: RunFiles) -> Iterator[Tile]:
    result = run.validation
    if result is not None:
        more = figures.errors(result.one_step)
        if result.rollout is not None:
            more += f"; rollouts {figures.percent(result.rollout.nrmse)}"
        yield Tile("validation error", figures.percent(result.error), more)
    if run.breakeven is not None:
        paid = run.breakeven
        alone = paid.queries is not None
        queries = paid.queries if alone else paid.batched_queries
        yield Tile(
            "paid back after",
            "never" if queries is None else f"{figures.count(queries)}",
            "the solver is not slower" if queries is None
            else "queries" if alone else "queries, many at once",
        )  # fmt: skip
    inserted, unique = _figure(run, "samples_inserted"), _figure(run, "samples_unique")
    if inserted is not None:
        share = figures.percent(unique / inserted) if unique is not None and inserted else None
        yield Tile("samples", _count(inserted), f"{share or figures.UNKNOWN} drawn at least once")
    reuse = _figure(run, "reuse_mean")
    if reuse is not None:
        even = _figure(run, "effective_share")
        more = f"{_count(_figure(run, 'samples_drawn'))} draws"
        more += "" if even is None else f", {figures.percent(even)} even"
        yield Tile("reuse", figures.number(reuse), more)
    wall = _figure(run, "wall_seconds")
    if wall is not None:
        first = figures.seconds(_figure(run, "first_step_seconds"))
        yield Tile("wall time", figures.seconds(wall), f"first train step after {first}")
    steps = _figure(run, "train_steps")
    if steps is not None and wall:
        rate = float(np.max(run.series.inserted_rate, initial=0.0))
        yield Tile("train steps", _count(steps), f"up to {figures.number(rate)} samples/s stored")


def _rows(run: RunFiles) -> Iterator[tuple[str, str]]:
    streamed = _figure(run, "bytes_streamed")
    yield "members completed", _count(_figure(run, "members_completed"))
    yield "members failed", _count(_figure(run, "members_failed"))
    yield "samples stored", _count(_figure(run, "samples_inserted"))
    yield "samples drawn at least once", _count(_figure(run, "samples_unique"))
    yield "draws", _count(_figure(run, "samples_drawn"))
    yield "mean reuse", figures.number(_figure(run, "reuse_mean"))
    yield "train steps", _count(_figure(run, "train_steps"))
    yield "wall time", figures.seconds(_figure(run, "wall_seconds"))
    yield "first train step after", figures.seconds(_figure(run, "first_step_seconds"))
    yield "trainer waited, mean over ranks", figures.seconds(_figure(run, "trainer_wait_seconds"))
    yield "solvers waited, sum over members", figures.seconds(_figure(run, "solver_wait_seconds"))
    yield "fields streamed", figures.UNKNOWN if streamed is None else figures.size(streamed)


def _plot_cards(run: RunFiles) -> Iterator[Card]:
    series = run.series
    if np.isfinite(series.loss).any():
        yield _plot("Learning, by train step", "Values are on logarithmic scales.",
                    plots.learning(series, against="train_step"))  # fmt: skip
        yield _plot("Learning, by wall time", "Dotted lines: where the study's phase changed.",
                    plots.learning(series, against="elapsed"))  # fmt: skip
    if series.elapsed.size > 1:
        yield _plot("Reservoirs", "What could be drawn from, and what was still unseen.",
                    plots.population(series))  # fmt: skip
        yield _plot("Throughput", "Over the last few seconds at each moment.",
                    plots.throughput(series))  # fmt: skip
        yield _plot("Waiting", "Who stood still, mean over ranks; totals below.",
                    plots.waiting(series))  # fmt: skip
    if run.breakeven is not None:
        yield _plot("Paid back", "A query is what the solver simulates a member for.",
                    error_plots.payback(run.breakeven))  # fmt: skip
    yield from error_cards(run)
    yield Card(title="Numbers", facts=[*_rows(run), *cost_rows(run)], wide=True)


def _plot(title: str, note: str, drawing: Markup) -> Card:
    return Card(title=title, note=note, drawings=[drawing])


def _picture_cards(run: RunFiles) -> Iterator[Card]:
    if not run.pictures:
        return
    errors = ", ".join(
        f"{one.place or one.member} {figures.percent(one.error)}" for one in run.pictures
    )
    note = (
        "Members that were never trained on, at their last kept time. Error of the member, of the "
        f"fields' std: {errors}. Truth and prediction share one scale, errors another."
    )
    for channel in range(run.pictures[0].truth.shape[0]):
        named = run.channels.names[channel] if run.channels.names else f"channel {channel}"
        drawing = pictures.fields(run.pictures, channel, run.channels)
        yield Card(title=f"Validation members: {named}", note=note, drawings=[drawing], wide=True)
