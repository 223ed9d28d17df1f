"""The verdict over a drill: what fails it, what does not, and what it says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from deploy.drill.judge import Account, Outcome, Reference, Verdict, as_json, judge
from deploy.drill.plan import Fault
from deploy.drill.table import course, table

FAULTS = [
    Outcome(number=1, kind="solver", at=20.0, noticed=0.4, recovered=3.25, members=17),
    Outcome(
        number=2, kind="driver", at=41.0, noticed=0.1, recovered=75.0, restarts=1,
        samples_lost=1234, members=25,
    ),
]  # fmt: skip
GOOD = Account(
    ended=True,
    members_due=37,
    members_finished=37,
    members_twice=0,
    samples_due=1400,
    samples_stored=1400,
    checkpoint_stored=1470,
    checkpoint_twice=0,
    recorded=1400,
    recorded_twice=0,
    error=10.5,
)
REFERENCES = [Reference(seed=3 + i, error=e, wall_seconds=40.0) for i, e in enumerate((9, 12, 10))]


def verdict(
    outcomes: Sequence[Outcome] = FAULTS,
    references: Sequence[Reference] = REFERENCES,
    **changes: Any,
) -> Verdict:
    return judge(outcomes, replace(GOOD, **changes), references, {"program": "solver.kind is heat"})


def test_a_drill_in_which_nothing_was_lost_is_passed() -> None:
    passed = verdict()
    assert passed.passed
    assert passed.lines[0] == "2 of 2 faults survived, 1 of them by starting again"
    assert passed.lines[1] == "37 of 37 members finished, 0 counted twice"
    assert "1400 of 1400 samples stored, 0 twice" in passed.lines[2]
    assert passed.lines[-1] == "not in this study: program (solver.kind is heat)"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ended": False}, "the study did not end by itself"),
        ({"members_finished": 35}, "2 members lost"),
        ({"members_finished": 38}, "1 member counted twice"),
        ({"members_twice": 3}, "3 members counted twice"),
        ({"samples_stored": 1399}, "1 sample lost"),
        ({"recorded": 1390}, "10 samples lost"),
        ({"samples_stored": 1402}, "2 samples stored twice"),
        ({"checkpoint_twice": 4}, "4 samples stored twice"),
        ({"recorded_twice": 5}, "5 samples stored twice"),
        ({"left_behind": ("process 12: ray",)}, "left behind: process 12: ray"),
    ],
)
def test_whatever_is_wrong_is_said_and_fails_the_drill(
    changes: dict[str, Any], problem: str
) -> None:
    failed = verdict(**changes)
    assert not failed.passed
    assert failed.problems == (problem,)


def test_faults_that_were_not_carried_out_or_not_survived_fail_it() -> None:
    missed = [
        Outcome.of_missed(Fault(number=n, kind="disk", pause=0.0, pick=0.0), 50.0, "too late")
        for n in (3, 4)
    ]
    never = Outcome(number=5, kind="reservoir", at=60.0, noticed=0.5)
    failed = verdict([*FAULTS, *missed, never])
    assert failed.problems == (
        "2 of 5 faults not carried out: too late",
        "fault 5 (reservoir): the study did not come back",
    )


@pytest.mark.parametrize(
    ("error", "place"),
    [(10.5, "within"), (15.0, "within"), (15.1, "ABOVE"), (1.0, "within")],
)
def test_the_error_is_compared_with_the_spread_and_decides_nothing(
    error: float, place: str
) -> None:
    said = verdict(error=error)
    assert said.passed
    assert f"{place} the spread of 3 undisturbed seeds: 9 to 12 (up to 15" in said.lines[3]


def test_one_undisturbed_run_has_no_spread_and_none_says_so() -> None:
    assert "(ratio 1.17; one has no spread)" in verdict(references=REFERENCES[:1]).lines[3]
    assert "no undisturbed run" in verdict(references=[]).lines[3]
    assert not any("MSE" in line for line in verdict(error=None).lines)


def shown(outcomes: list[Outcome]) -> list[list[str]]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(outcomes))
    return [line.split() for line in capture.get().splitlines()]


def test_the_table_has_a_row_for_each_fault() -> None:
    never = Outcome(number=3, kind="reservoir", at=60.0, noticed=0.5)
    missed = Outcome.of_missed(Fault(number=4, kind="disk", pause=0.0, pick=0.0), 50.0, "too late")
    _, _, *rows = shown([*FAULTS, never, missed])
    assert rows[0] == ["1", "solver", "0.4", "s", "3.2", "s", "0", "0", "0", "17"]
    assert rows[1][:2] + rows[1][4:] == [
        "2",
        "driver",
        "1",
        "min",
        "15",
        "s",
        "1",
        "1,234",
        "0",
        "25",
    ]
    assert "NEVER" in rows[2]
    assert rows[3][:4] == ["4", "disk", "not", "done"]


def test_each_fault_is_told_when_it_is_over() -> None:
    assert course(FAULTS[0]) == "fault 1, solver: noticed after 0.4 s, recovered after 3.2 s"
    assert course(FAULTS[1]).endswith("given again 1 time")
    assert course(Outcome(number=3, kind="disk", at=1.0)).endswith("the study did not come back")
    late = Outcome.of_missed(Fault(number=4, kind="disk", pause=0.0, pick=0.0), 50.0, "too late")
    assert course(late).endswith("not carried out: too late")


def test_all_of_it_is_plain_json() -> None:
    assert as_json(FAULTS[1])["samples_lost"] == 1234
    assert as_json(GOOD)["recorded_twice"] == 0
