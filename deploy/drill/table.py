"""A drill as a person reads it: a line for each fault, and a table of them all."""

from collections.abc import Sequence

from rich.console import JustifyMethod
from rich.table import Table

from deploy import figures
from deploy.drill.judge import Outcome
from pipeline.study.problems import counted


def course(outcome: Outcome) -> str:
    """One fault, when it is over."""
    what = f"fault {outcome.number}, {outcome.kind}"
    if outcome.missed is not None:
        return f"{what}: not carried out: {outcome.missed}"
    if not outcome.survived:
        return f"{what}: the study did not come back"
    again = f", given again {counted(outcome.restarts, 'time')}" if outcome.restarts else ""
    return (
        f"{what}: noticed after {figures.seconds(outcome.noticed)}, recovered after "
        f"{figures.seconds(outcome.recovered)}{again}"
    )


def table(outcomes: Sequence[Outcome]) -> Table:
    """All of them."""
    made = Table(box=None, pad_edge=False)
    for title in (
        "", "fault", "noticed\nafter", "recovered\nafter", "given\nagain", "samples\nlost",
        "stored\ntwice", "members\nfinished",
    ):  # fmt: skip
        justify: JustifyMethod = "left" if title == "fault" else "right"
        made.add_column(title, justify=justify, no_wrap=True)
    for each in outcomes:
        made.add_row(*_cells(each))
    return made


def _cells(outcome: Outcome) -> list[str]:
    begin = [str(outcome.number), outcome.kind]
    if outcome.missed is not None:
        return [*begin, "not done", *[figures.UNKNOWN] * 5]
    return [
        *begin,
        figures.seconds(outcome.noticed),
        figures.seconds(outcome.recovered) if outcome.survived else "NEVER",
        str(outcome.restarts),
        figures.count(outcome.samples_lost),
        figures.count(outcome.stored_twice),
        figures.count(outcome.members),
    ]
