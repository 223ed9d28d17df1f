"""What the trainer is told of a study."""

import pytest

from pipeline.study.config import StudyConfig
from pipeline.study.for_trainer import problem_of
from pipeline.study.load import parse


def study(solver: dict[str, object], **stream: object) -> StudyConfig:
    program = {"kind": "program", "command": "true", "components": {"u": "K"}, "grid": [4, 6]}
    return parse(
        {
            "name": "p",
            "solver": program | solver,
            "parameters": {"nu": {"uniform": [1, 2]}},
            "ensemble": {"members": 4, "validation": 1},
            "stream": stream,
            "reservoir": {"capacity": 20, "watermark": 4},
            "trainer": {"ranks": 1, "batch": 2, "model": {"kind": "mlp", "hidden": [4]}},
        }
    )


OPTIONS = {"nu": "-nu {value}"}


def test_a_steady_program_has_one_snapshot_one_time_and_no_step() -> None:
    steady = {"steps": 0, "stream": "snes_view_solution", "options": OPTIONS}
    problem = problem_of(study(steady, initial_state=True))
    assert (problem.time.low, problem.time.high, problem.time_step) == (0.0, 0.0, 0.0)
    assert problem.snapshots == 1


@pytest.mark.parametrize(("every", "count", "last"), [(1, 10, 0.5), (3, 3, 0.45)])
def test_times_are_those_that_leave_the_solver(every: int, count: int, last: float) -> None:
    problem = problem_of(study({"steps": 10, "dt": 0.05, "options": OPTIONS}, every=every))
    assert problem.time_step == pytest.approx(every * 0.05)
    assert (problem.time.low, problem.time.high) == pytest.approx((every * 0.05, last))
    assert problem.snapshots == count
