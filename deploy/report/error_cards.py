"""The report's boxes on errors: how large and how spread they are, where, and what they cost."""

import math
from collections.abc import Iterator

from deploy import figures
from deploy.report import error_plots
from deploy.report.page import Card
from deploy.report.runfiles import RunFiles
from pipeline.stats.members import mean_errors
from pipeline.study.problems import counted
from trainers.results import Errors
from trainers.surrogate.card import HEADINGS, STATISTICS


def error_cards(run: RunFiles) -> Iterator[Card]:
    """The errors of the fields, their spread over the members, and where they are large."""
    result = run.validation
    if result is None:
        return
    single = "members" if result.rollout is None else "one step"
    kinds = {single: result.one_step}
    if result.rollout is not None:
        kinds = {"rollouts": result.rollout} | kinds
    yield Card(
        title="How wrong each field is",
        note="Over all validation members; the std is the field's own, over those members.",
        table=[
            ("", "RMS error", "of its std", "relative L2"),
            *(
                (f"{one.name}, {kind}" if len(kinds) > 1 else one.name,
                 figures.number(one.rmse, one.unit), figures.percent(one.nrmse),
                 figures.percent(one.relative_l2))
                for kind, errors in kinds.items() for one in errors.fields
            ),
        ],
    )  # fmt: skip
    tables = {"rollouts": run.members.rollout, single: run.members.one_step}
    known = {kind: list(mean_errors(table).values()) for kind, table in tables.items() if table}
    yield Card(
        title="How errors are spread over the members",
        note="A surrogate fails in the tail. Error of each member: the mean of its fields' RMS "
        "errors, each as a share of the field's std.",
        drawings=[error_plots.spread(known)] if known else [],
        table=[("", *HEADINGS, "n", "diverged"), *(_row(*each) for each in kinds.items())],
    )
    if run.regions:
        yield _regions(run, "members" if result.rollout is None else "rollouts")


def _row(kind: str, errors: Errors) -> tuple[str, ...]:
    spread = errors.spread
    shares = (figures.percent(getattr(spread, name)) for name in STATISTICS)
    return (kind, *shares, figures.count(spread.members), figures.count(spread.diverged))


def _regions(run: RunFiles, kind: str) -> Card:
    has_plane = len(run.regions) > 1 and run.regions[0].effect is not None
    drawings = [error_plots.regions(run.regions, columns=2 if has_plane else 4)]
    more = ""
    if has_plane:
        first, second = run.regions[:2]
        errors = mean_errors(run.members.shown)
        at = [m for m, error in errors.items() if math.isfinite(error) and m in run.parameters]
        drawings.insert(
            0,
            error_plots.plane(
                first, second, [run.parameters[m] for m in at], [errors[m] for m in at]
            ),
        )
        more = (
            " The effect is the share of the errors' variance that a parameter explains. The two "
            "strongest span the plane: mean of each cell, and every member."
        )
    names = run.members.fields
    rows = [
        (f"{one.name}: {figures.number(part.low)} to {figures.number(part.high, one.unit)}",
         *(figures.percent(part.fields.get(name)) for name in names))
        for one in run.regions[: error_plots.MAX_PARAMETERS] for part in one.ranges
    ]  # fmt: skip
    return Card(
        title="Where errors are large",
        note=f"Errors of the {kind} by parameter, and how many lie in each range.{more}",
        drawings=drawings,
        table=[("mean error, of the field's std", *names), *rows] if len(names) > 1 else [],
        wide=True,
    )


def cost_rows(run: RunFiles) -> Iterator[tuple[str, str]]:
    """What the study took, and what a query of its surrogate saves."""
    cost = run.summary.get("cost") or run.last.get("cost")
    if cost is not None:
        yield "solvers were held, sum over members", figures.seconds(cost["solver_seconds"])
        yield "ranks were held, sum over ranks", figures.seconds(cost["trainer_seconds"])
    paid = run.breakeven
    if paid is not None:
        yield "solver, one member", figures.duration(paid.member_seconds)
        yield "surrogate, the same alone", figures.duration(paid.query_seconds)
        yield "surrogate, many at once, each", figures.duration(paid.batched_query_seconds)
        yield "paid back after", _queries(paid.queries)
        yield "paid back after, many at once", _queries(paid.batched_queries)


def _queries(count: int | None) -> str:
    return "never" if count is None else counted(count, "query", "queries")
