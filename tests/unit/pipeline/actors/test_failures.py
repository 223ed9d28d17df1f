"""What a failed attempt says: the reason in one line, the story behind it, and where both show."""

import json
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from deploy.launch import MAX_STORIES, say_failures
from deploy.report.report import failures, write_report
from pipeline.actors.failures import MAX_DETAIL_CHARACTERS, failure_of
from solvers.base import SolverBug, SolverFailed, SolverKilled


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
    assert failures(tmp_path) == ['0:01 member 0, attempt 1: it broke\nFile "<a>", line 3\n  here']
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "it broke<pre>File &quot;&lt;a&gt;&quot;, line 3\n  here</pre></li>" in page
