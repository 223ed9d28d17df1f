"""Faults one after the other, on a program that behaves as a study does, and is none."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from deploy.drill.child import Child
from deploy.drill.course import MAX_RESTARTS, Course
from deploy.drill.judge import Outcome
from deploy.drill.plan import Fault, Kind

# It trains 100 steps a second, goes on from a little before the last checkpoint, and has one solver
# that is a process.
STUDY = dedent(
    """
    import json, os, subprocess, sys, time
    from pathlib import Path
    out, last, fails = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fails"
    out.mkdir(exist_ok=True)
    checkpoints = out / "checkpoints"
    begun = checkpoints.exists()
    checkpoints.mkdir(exist_ok=True)
    if fails and begun:
        sys.exit("it cannot be resumed")
    step = max((int(path.name) for path in checkpoints.iterdir()), default=0)
    step = max(0, step - 10)

    def append(name, line):
        with (out / name).open("a") as file:
            file.write(json.dumps(line) + "\\n")

    def solver():
        append("journal.jsonl", {"event": "start", "member": 3})
        return subprocess.Popen(
            ["ray::_SolverHost.run", "-c", "import sys; sys.stdin.read()"],
            executable=sys.executable, stdin=subprocess.PIPE,
        )

    running = solver()
    while step < last:
        time.sleep(0.02)
        step += 2
        if running.poll() is not None:
            append("journal.jsonl", {"event": "lost", "member": 3, "reason": "killed"})
            running = solver()
        if step % 20 == 0:
            (checkpoints / str(step)).mkdir(exist_ok=True)
        append("metrics.jsonl", {
            "phase": "training", "members": {"completed": step // 50},
            "reservoirs": [{"inserted": 3 * step}],
            "ranks": [{"train_step": step, "checkpoints_failed": 0}],
        })
    running.stdin.close()
    running.wait()
    (out / "summary.json").write_text("{}")
    """
)


def course(folder: Path, kinds: list[Kind], *, last: int, fails: bool = False) -> list[Outcome]:
    plan = [
        Fault(number=number, kind=kind, pause=0.0, pick=0.0)
        for number, kind in enumerate(kinds, start=1)
    ]
    out = folder / "run"
    arguments = [str(out), str(last), "fails" if fails else "runs"]
    child = Child(arguments, folder / "run.txt", program=[sys.executable, "-c", STUDY])
    made = Course(child, out, plan, None)
    outcomes = made.run()
    assert child.left(10.0) == []
    assert made.watch.has_ended is not fails
    return outcomes


def test_what_ends_the_command_is_answered_by_giving_it_again(tmp_path: Path) -> None:
    driver, solver = course(tmp_path, ["driver", "solver"], last=400)
    assert driver.survived
    assert (driver.restarts, solver.restarts) == (1, 0)
    assert driver.samples_lost >= 3 * 8  # the first step after it has begun again is told
    assert solver.survived
    assert solver.samples_lost == 0
    for each in (driver, solver):
        assert each.noticed is not None
        assert each.recovered is not None
        assert 0.0 <= each.noticed <= each.recovered


def test_a_fault_for_which_it_is_too_late_is_not_counted_as_survived(tmp_path: Path) -> None:
    first, *late = course(tmp_path, ["solver", "driver", "solver"], last=60)
    assert first.survived
    assert "the study had ended" in str(late[-1].missed)
    assert not late[-1].survived


def test_a_study_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    driver, later = course(tmp_path, ["driver", "solver"], last=400, fails=True)
    assert not driver.survived
    assert driver.missed is None
    assert driver.restarts == MAX_RESTARTS + 1
    assert later.missed == "the study did not come back from an earlier one"


def test_a_process_that_the_study_never_has_is_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.drill.course.VICTIM_SECONDS", 0.1)
    (outcome,) = course(tmp_path, ["reservoir"], last=100)
    assert outcome.missed == "there is no such process on this node"
