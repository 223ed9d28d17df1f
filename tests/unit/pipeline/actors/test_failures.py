"""What a failed attempt says: the reason in one line, the story behind it, and where both show."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from deploy.launch import MAX_STORIES, say_failures
from deploy.report.report import failures, write_report
from pipeline.actors.failures import (
    MAX_DETAIL_CHARACTERS,
    RankFailed,
    failure_of,
    first_failure,
    rank_failed,
)
from solvers.base import SolverBug, SolverFailed, SolverKilled
from trainers.base import Input, PeerFailed, TrainingDiverged
from trainers.configs.models import MlpConfig, OwnModelConfig


def raised(cause: Exception) -> RayTaskError:
    said = f"Traceback ...\n{type(cause).__name__}: {cause}"
    return RayTaskError("run", said, cause)  # type: ignore[no-untyped-call]


def test_a_solver_that_gave_up_is_final() -> None:
    failure = failure_of(raised(SolverFailed("linear solve failed at solver step 3")))
    assert failure.reason == "linear solve failed at solver step 3"
    assert (failure.details, failure.final) == (None, True)


def test_the_last_lines_of_a_program_are_details() -> None:
    failure = failure_of(raised(SolverFailed("program failed. Its last lines:\n  one\n  two")))
    assert failure.reason == "program failed. Its last lines:"
    assert (failure.details, failure.final) == ("  one\n  two", True)


@pytest.mark.parametrize("passing", [True, False])
def test_a_bug_is_final_unless_it_may_pass(passing: bool) -> None:
    bug = SolverBug("Cavity raised: KeyError", story="line 3, in run", passing=passing)
    failure = failure_of(raised(bug))
    assert (failure.reason, failure.details) == ("Cavity raised: KeyError", "line 3, in run")
    assert failure.final is not passing


def test_what_was_killed_is_tried_again() -> None:
    failure = failure_of(raised(SolverKilled("program failed: signal 9. Its last lines:\n  one")))
    assert (failure.details, failure.final) == ("  one", False)


def test_any_other_exception_is_tried_again() -> None:
    failure = failure_of(raised(RuntimeError("the socket is gone")))
    assert failure.reason == "RuntimeError: the socket is gone"
    assert (failure.details, failure.final) == (None, False)


def test_details_are_bounded() -> None:
    failure = failure_of(raised(SolverBug("Cavity raised", story="x" * 20_000 + "end")))
    assert failure.details is not None
    assert len(failure.details) == MAX_DETAIL_CHARACTERS
    assert failure.details.endswith("end")


def test_a_rank_tells_the_line_of_the_users_network(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("def forward():\n    raise KeyError('oops')\n")
    theirs: dict[str, Callable[[], None]] = {}
    exec(compile(path.read_text(), path, "exec"), theirs)
    config = OwnModelConfig.model_validate({"path": str(path), "class": "Net"})
    with pytest.raises(KeyError) as caught:
        theirs["forward"]()
    told = pickle.loads(pickle.dumps(rank_failed(caught.value, config)))
    failure = first_failure({0: raised(PeerFailed("rank 1")), 1: raised(told)})
    assert str(failure) == f"rank 1: KeyError: 'oops' ({path}:2, in forward)"
    assert f'File "{path}", line 2, in forward\n    raise KeyError' in failure.story


def test_a_rank_without_own_code_tells_ours() -> None:
    with pytest.raises(ValueError, match="reversed") as caught:
        Input(name="speed", unit="m/s", low=2.0, high=1.0)
    failed = rank_failed(caught.value, MlpConfig())
    assert "trainers/base.py:" in str(failed)
    assert "in __post_init__" in failed.story


def test_a_message_for_people_stays_as_it_is() -> None:
    diverged = first_failure({1: raised(TrainingDiverged("train step 3: loss=nan. Lower lr"))})
    assert (str(diverged), diverged.story) == ("rank 1: train step 3: loss=nan. Lower lr", "")


def test_the_rank_that_died_is_named_and_not_those_that_it_left_alone() -> None:
    lost = raised(RankFailed("RuntimeError: connection closed by peer"))
    failure = first_failure({0: lost, 1: raised(PeerFailed("peer")), 2: ActorDiedError()})
    assert str(failure).startswith("rank 2: The actor died")


def test_a_long_story_of_a_rank_is_bounded() -> None:
    failure = first_failure({0: raised(RankFailed("broken", "x" * 20_000))})
    assert len(failure.story) == MAX_DETAIL_CHARACTERS


def test_the_trainers_story_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"event": "trainer failed", "at": 1.0, "reason": "rank 0: broken", "details": "line 3"}
    (tmp_path / "journal.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
    say_failures(tmp_path)
    assert capsys.readouterr().err == "trainer failed: rank 0: broken\n    line 3\n"


def journal(folder: Path, *details: str) -> None:
    lines = [
        {"event": "failed", "at": 1.0, "member": place, "attempt": 1, "reason": "it broke"}
        | ({"details": text} if text else {})
        for place, text in enumerate(details)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "journal.jsonl").write_text(text, encoding="utf-8")


def test_each_story_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_failures(tmp_path)
    assert capsys.readouterr().err == ""
    journal(tmp_path, "", "line 3", "line 3", "line 9")
    say_failures(tmp_path)
    assert capsys.readouterr().err == (
        "member 1 failed: it broke\n    line 3\nmember 3 failed: it broke\n    line 9\n"
    )


def test_many_stories_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal(tmp_path, *(f"line {number}" for number in range(MAX_STORIES + 2)))
    say_failures(tmp_path)
    assert f"2 more kinds of failures are in {tmp_path}" in capsys.readouterr().err


def test_the_report_shows_the_story_and_escapes_it(tmp_path: Path) -> None:
    journal(tmp_path, 'File "<a>", line 3\n  here')
    assert failures(tmp_path) == [
        ("0:01 member 0, attempt 1: it broke", 'File "<a>", line 3\n  here')
    ]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "it broke<pre>File &#34;&lt;a&gt;&#34;, line 3\n  here</pre></li>" in page
