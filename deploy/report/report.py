"""Writes ``report.html``: what a study did, in numbers and pictures, in one file.

1. The page needs nothing else: no network, no script, no other file; it can be sent by mail.
2. Every text that comes from the run is escaped.
3. A part of the run that is missing leaves its card out; an aborted study has a report too.
4. The file appears whole or not at all.
"""

import math
from collections.abc import Callable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from deploy import figures
from deploy.report import error_cards, error_plots, pictures, plots, runfiles
from deploy.report.cards import card, facts
from deploy.report.runfiles import RunFiles
from pipeline.control import journal
from pipeline.control.rundir import RunPaths
from pipeline.errors import carry_on
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


def failures(out: Path) -> list[str]:
    """What went wrong, from the journal: the study first, then the first attempts."""
    path = RunPaths(out).journal
    if not path.is_file():
        return []
    found: list[str] = []
    for event in journal.read(path):
        if event["event"] == "end" and event["reason"] is not None:
            found.insert(0, f"{figures.clock(event['at'])} the study: {event['reason']}")
        elif event["event"] in ("failed", "lost") and len(found) < MAX_FAILURES:
            place = f"member {event.get('member')}, attempt {event.get('attempt')}"
            more = f"\n{event['details']}" if "details" in event else ""
            found.append(f"{figures.clock(event['at'])} {place}: {event.get('reason')}{more}")
    return found


def page(run: RunFiles, failed: list[str]) -> str:
    """The whole page."""
    phase = str(run.last.get("phase", "failed" if not run.summary else "done"))
    done = phase == "done"
    return Template(_template()).substitute(
        title=escape(f"{run.name} · headrace"),
        name=escape(run.name),
        badge="completed" if done else "failed" if phase == "failed" else f"ended while {phase}",
        badge_class="good" if done else "bad",
        what=escape(_what(run)),
        tiles="\n".join(_tile(*tile) for tile in _tiles(run)),
        cards="\n".join(_cards(run, failed)),
        footer=(
            "Written by headrace. Times are wall time since the start of the study; "
            "samples, draws and slots are sums over all ranks."
        ),
    )


def _cards(run: RunFiles, failed: list[str]) -> list[str]:
    """The cards that can be made; a fault in one part of the page leaves the others."""
    found: list[str] = []
    for part in (_plot_cards(run), _picture_cards(run), _text_cards(run, failed)):
        with carry_on("rest of a part of the report"):
            for each in part:
                found.append(each)  # noqa: PERF402 - keeps those before a fault
    return found


def _template() -> str:
    return (files("deploy") / "templates" / "report.html").read_text(encoding="utf-8")


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
        parts.append(f"{trainer['model'].get('kind')} on {trainer.get('ranks')} ranks")
    return " · ".join(parts)


def _figure(run: RunFiles, name: str) -> float | None:
    """From ``summary.json``; from the last line of ``metrics.jsonl`` for an aborted study."""
    if name in run.summary:
        value: float | None = run.summary[name]
        return value
    if not run.last:
        return None
    result = runfiles.newest_validation(run.last)
    if name in _OF_VALIDATION and result is not None:
        return result.get(name.removeprefix("validation_"))
    return _LAST[name](run.last) if name in _LAST else None


_OF_VALIDATION = (
    "validation_mse", "validation_relative_l2", "rollout_mse", "rollout_relative_l2",
)  # fmt: skip


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


def _unit(run: RunFiles) -> str:
    """Of the fields, when all channels share one."""
    units = set(run.channels.units)
    return units.pop() if len(units) == 1 else ""


def _tiles(run: RunFiles) -> Iterator[tuple[str, str, str]]:
    mse = _figure(run, "validation_mse")
    if mse is not None:
        unit = _unit(run)
        relative = figures.percent(_figure(run, "validation_relative_l2"))
        root = figures.number(math.sqrt(mse), "" if unit == "1" else unit)
        rollouts = _figure(run, "rollout_relative_l2")
        more = "" if rollouts is None else f", rollouts {figures.percent(rollouts)}"
        yield "validation error (RMS)", root, f"relative L2 {relative}{more}"
    if run.breakeven is not None:
        paid = run.breakeven
        alone = paid.queries is not None
        queries = paid.queries if alone else paid.batched_queries
        yield (
            "paid back after",
            "never" if queries is None else f"{figures.count(queries)}",
            "the solver is not slower" if queries is None
            else "queries" if alone else "queries, many at once",
        )  # fmt: skip
    inserted, unique = _figure(run, "samples_inserted"), _figure(run, "samples_unique")
    if inserted is not None:
        share = figures.percent(unique / inserted) if unique is not None and inserted else None
        yield "samples", _count(inserted), f"{share or figures.UNKNOWN} drawn at least once"
    reuse = _figure(run, "reuse_mean")
    if reuse is not None:
        even = _figure(run, "effective_share")
        more = f"{_count(_figure(run, 'samples_drawn'))} draws"
        more += "" if even is None else f", {figures.percent(even)} even"
        yield "reuse", figures.number(reuse), more
    wall = _figure(run, "wall_seconds")
    if wall is not None:
        first = figures.seconds(_figure(run, "first_step_seconds"))
        yield "wall time", figures.seconds(wall), f"first train step after {first}"
    steps = _figure(run, "train_steps")
    if steps is not None and wall:
        rate = float(np.max(run.series.inserted_rate, initial=0.0))
        yield "train steps", _count(steps), f"up to {figures.number(rate)} samples/s stored"


def _tile(label: str, value: str, more: str) -> str:
    return (
        f'<div class="tile"><div class="label">{escape(label)}</div>'
        f'<div class="value">{escape(value)}</div><div class="more">{escape(more)}</div></div>'
    )


def _rows(run: RunFiles) -> Iterator[tuple[str, str]]:
    unit = figures.squared(_unit(run))
    streamed = _figure(run, "bytes_streamed")
    yield "members completed", _count(_figure(run, "members_completed"))
    yield "members failed", _count(_figure(run, "members_failed"))
    yield "samples stored", _count(_figure(run, "samples_inserted"))
    yield "samples drawn at least once", _count(_figure(run, "samples_unique"))
    yield "draws", _count(_figure(run, "samples_drawn"))
    yield "mean reuse", figures.number(_figure(run, "reuse_mean"))
    yield "train steps", _count(_figure(run, "train_steps"))
    yield "validation mean squared error", figures.number(_figure(run, "validation_mse"), unit)
    yield "validation relative L2", figures.percent(_figure(run, "validation_relative_l2"))
    if run.rollouts:
        rollout = _figure(run, "rollout_mse")
        yield "rollouts, mean squared error", figures.number(rollout, unit)
        yield "rollouts, relative L2", figures.percent(_figure(run, "rollout_relative_l2"))
    yield "wall time", figures.seconds(_figure(run, "wall_seconds"))
    yield "first train step after", figures.seconds(_figure(run, "first_step_seconds"))
    yield "trainer waited, mean over ranks", figures.seconds(_figure(run, "trainer_wait_seconds"))
    yield "solvers waited, sum over members", figures.seconds(_figure(run, "solver_wait_seconds"))
    yield "fields streamed", figures.UNKNOWN if streamed is None else figures.size(streamed)


def _plot_cards(run: RunFiles) -> Iterator[str]:
    series, unit = run.series, _unit(run)
    if np.isfinite(series.loss).any():
        yield card("Learning, by train step", "Values are on logarithmic scales.",
                    plots.learning(series, against="train_step", unit=unit))  # fmt: skip
        yield card("Learning, by wall time", "Dotted lines: where the study's phase changed.",
                    plots.learning(series, against="elapsed", unit=unit))  # fmt: skip
    if series.elapsed.size > 1:
        yield card("Reservoirs", "What could be drawn from, and what was still unseen.",
                    plots.population(series))  # fmt: skip
        yield card("Throughput", "Over the last few seconds at each moment.",
                    plots.throughput(series))  # fmt: skip
        yield card("Waiting", "Who stood still, mean over ranks; totals below.",
                    plots.waiting(series))  # fmt: skip
    if run.breakeven is not None:
        yield card("Paid back", "A query is what the solver simulates a member for.",
                    error_plots.payback(run.breakeven))  # fmt: skip
    if run.member_errors:
        yield card("Validation members", "Sorted by error, at the newest validation.",
                    plots.members(list(run.member_errors.values()), unit))  # fmt: skip
    yield from error_cards.error_cards(run)
    yield card("Numbers", "", facts([*_rows(run), *error_cards.cost_rows(run)]), wide=True)


def _picture_cards(run: RunFiles) -> Iterator[str]:
    if not run.pictures:
        return
    errors = ", ".join(
        f"{one.place} {figures.number(math.sqrt(one.mse), _unit(run))}" for one in run.pictures
    )
    note = escape(
        f"Members that were never trained on, at their last kept time. RMS error: {errors}. "
        "Truth and prediction share one scale, errors another."
    )
    for channel in range(run.pictures[0].truth.shape[0]):
        named = run.channels.names[channel] if run.channels.names else f"channel {channel}"
        picture = pictures.fields(run.pictures, channel, run.channels)
        yield card(
            f"Validation members: {escape(named)}",
            note,
            f'<div class="scroll">{picture}</div>',
            wide=True,
        )


def _failure(text: str) -> str:
    """One line, and a traceback below it where there is one."""
    line, _, details = text.partition("\n")
    return f"<li>{escape(line)}{f'<pre>{escape(details)}</pre>' if details else ''}</li>"


def _text_cards(run: RunFiles, failed: list[str]) -> Iterator[str]:
    if failed:
        items = "".join(_failure(text) for text in failed)
        yield card("What failed", "", f"<ul>{items}</ul>", wide=True)
    if run.source:
        yield (
            '<article class="card wide"><details><summary>study.yaml</summary>'
            f"<pre>{escape(run.source)}</pre></details></article>"
        )
