"""The report's boxes on errors: how they are spread, where they are large, and what they cost."""

import math
from collections.abc import Iterator
from html import escape

from deploy import figures
from deploy.report import error_plots
from deploy.report.cards import card
from deploy.report.runfiles import RunFiles
from trainers.base import Spread
from trainers.surrogate.card import HEADINGS, STATISTICS


def error_cards(run: RunFiles) -> Iterator[str]:
    """The spread of the members' errors, and where they are large."""
    named = {"rollouts": run.rollouts, "one step" if run.rollouts else "members": run.relative}
    known = {
        name: [error for error in errors.values() if math.isfinite(error)]
        for name, errors in named.items()
    }
    known = {name: errors for name, errors in known.items() if errors}
    if not known:
        return
    yield card(
        "How errors are spread over the members",
        "A surrogate fails in the tail: relative error of each member, sorted.",
        error_plots.spread(known) + _spread_table(known),
    )
    if not run.regions:
        return
    errors = run.rollouts or run.relative
    members = [m for m, e in errors.items() if math.isfinite(e) and m in run.parameters]
    drawings = [error_plots.regions(run.regions)]
    if len(run.regions) > 1:
        drawings.insert(
            0,
            error_plots.plane(
                run.regions[0],
                run.regions[1],
                [run.parameters[member] for member in members],
                [errors[member] for member in members],
            ),
        )
    kind = "rollouts" if run.rollouts else "members"
    yield card(
        "Where errors are large",
        f"Relative error of the {kind}, by parameter: how many lie in each range, and the effect, "
        "which is the share of the errors' variance that a parameter explains. The two strongest "
        "span the plane: mean of each cell, and every member.",
        f'<div class="pair">{"".join(f"<div>{drawing}</div>" for drawing in drawings)}</div>',
        wide=True,
    )


def _spread_table(errors: dict[str, list[float]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("", *HEADINGS))
    rows = []
    for name, values in errors.items():
        spread = Spread.of(values)
        assert spread is not None
        cells = "".join(f"<td>{figures.percent(getattr(spread, s))}</td>" for s in STATISTICS)
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


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
    return "never" if count is None else f"{figures.count(count)} queries"
