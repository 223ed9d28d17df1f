import json
import math

import pytest

from trainers.config import TrainerConfig
from trainers.loop.progress import Patience, Progress

ERRORS = (0.9, 0.5, 0.45, 0.44, 0.48, 0.46, 0.43, 0.43, 0.43)


def progress(**changes: object) -> Progress:
    return Progress(TrainerConfig.model_validate(changes))


def ends(patience: Patience, errors: tuple[float, ...]) -> list[int]:
    return [index for index, error in enumerate(errors) if patience.ends(error)]


def test_it_ends_after_as_many_errors_in_a_row_that_are_not_lower() -> None:
    assert ends(Patience(2), ERRORS) == [5, 8]
    assert ends(Patience(3), ERRORS) == []
    assert ends(Patience(1), ERRORS) == [4, 5, 7, 8]


def test_an_error_that_is_hardly_lower_does_not_count() -> None:
    assert ends(Patience(2, min_delta=0.06), ERRORS) == [3, 5, 8]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_an_error_that_is_not_finite_decides_nothing(odd: float) -> None:
    patience = Patience(2)
    assert ends(patience, (odd, 0.5, odd, odd, odd, 0.6, odd, 0.4)) == []
    assert patience.lowest == 0.4
    assert ends(Patience(2), (0.5, odd, 0.6, odd, 0.7)) == [4]


def test_the_learning_rate_drops_on_a_plateau() -> None:
    judge = progress(schedule={"kind": "plateau", "patience": 2, "drop": 0.1})
    factors = []
    for step, error in enumerate(ERRORS):
        judge.validated(error, step)
        factors.append(judge.factor)
    assert factors == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01])
    assert judge.stopped is None


def test_it_stops_early_and_says_why() -> None:
    judge = progress(early_stop={"patience": 2, "min_delta": 0.06})
    for step, error in enumerate(ERRORS[:4]):
        assert judge.stopped is None
        judge.validated(error, 100 * step)
    assert judge.stopped == (
        "stopped early at train step 300: in 2 validations the error was never more than 0.06 "
        "below 0.5 (trainer.early_stop)"
    )
    assert judge.factor == 1.0


def test_nothing_is_decided_where_nothing_was_asked_for() -> None:
    judge = progress()
    for _ in range(100):
        judge.validated(1.0, 1)
    assert (judge.factor, judge.stopped) == (1.0, None)


@pytest.mark.parametrize("at", range(len(ERRORS)))
def test_its_state_is_json_and_goes_on_where_it_was(at: int) -> None:
    settings = {
        "schedule": {"kind": "plateau", "patience": 2, "drop": 0.1},
        "early_stop": {"patience": 4},
    }
    whole, first, second = (progress(**settings) for _ in range(3))
    for step, error in enumerate(ERRORS):
        whole.validated(error, step)
        (first if step < at else second).validated(error, step)
        if step == at - 1:
            second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    if at == 0:
        second.restore(json.loads(json.dumps(whole.state(), allow_nan=False)))
    assert second.state() == whole.state()
