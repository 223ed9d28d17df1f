"""What a drill reads of a study that is being written, killed and continued."""

import json
from pathlib import Path
from typing import Any

from deploy.drill.watch import Seen, StudyWatch, Tail
from tests.fake_study import stats_at


def event(name: str, **facts: Any) -> dict[str, Any]:
    return {"event": name, "at": 1.0, **facts}


def line(inserted: int, train_step: int = 0, failed: int = 0) -> dict[str, Any]:
    """Of the metrics, of two ranks."""
    told = stats_at(10.0).as_json()
    parts = (inserted // 2, inserted - inserted // 2)
    for reservoir, part in zip(told["reservoirs"], parts, strict=True):
        reservoir["inserted"] = part
    for rank in told["ranks"]:
        rank["train_step"], rank["checkpoints_failed"] = train_step, failed
    return told


def test_a_line_is_taken_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    path.write_text('{"a": 1}\n{"a": 2')
    assert tail.new() == [{"a": 1}]
    assert tail.new() == []
    path.write_text('{"a": 1}\n{"b": 3}\n')  # whoever resumes removes what was cut off
    assert tail.new() == [{"b": 3}]


def test_members_run_until_their_end_is_told() -> None:
    seen = Seen()
    seen.take_events([event("start", member=3), event("start", member=4)])
    assert seen.running == {3, 4}
    seen.take_events([event("completed", member=3), event("lost", member=4, reason="killed")])
    assert (seen.running, seen.troubles) == (set(), 1)
    seen.take_events([event("start", member=4), event("failed", member=4, reason="diverged")])
    assert (seen.running, seen.troubles) == (set(), 2)


def test_the_end_of_a_study_is_trouble_only_with_a_reason() -> None:
    seen = Seen()
    seen.take_events([event("production ended"), event("end", reason=None)])
    assert (seen.ended, seen.troubles) == (True, 0)
    seen.take_events([event("end", reason="a reservoir cannot go on")])
    assert seen.troubles == 1


def test_samples_that_a_later_part_does_not_have_are_lost() -> None:
    seen = Seen()
    seen.take_metrics([line(80), line(101)])
    seen.new_part()
    seen.take_metrics([line(91), line(150)])
    assert seen.samples_lost == 10
    seen.new_part()
    seen.take_metrics([line(147)])
    assert seen.samples_lost == 13


def test_the_furthest_train_step_outlives_a_part() -> None:
    seen = Seen()
    seen.take_metrics([line(80, train_step=41, failed=1)])
    assert (seen.train_step, seen.checkpoints_failed) == (41, 2)
    seen.new_part()
    assert (seen.train_step, seen.furthest, seen.checkpoints_failed) == (0, 41, 0)
    seen.take_metrics([line(80, train_step=30)])
    assert (seen.train_step, seen.furthest) == (30, 41)


def test_a_run_directory_is_followed(tmp_path: Path) -> None:
    watch = StudyWatch(tmp_path)
    assert watch.look().phase == "starting"
    (tmp_path / "journal.jsonl").write_text(json.dumps(event("start", member=2)) + "\n")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line(80, train_step=7)) + "\n")
    seen = watch.look()
    assert (seen.running, seen.train_step, seen.phase) == ({2}, 7, "training")
    assert (watch.newest_checkpoint, watch.has_ended) == (0, False)
    (tmp_path / "checkpoints" / "000000012").mkdir(parents=True)
    (tmp_path / "summary.json").write_text("{}")
    assert (watch.newest_checkpoint, watch.has_ended) == (12, True)
    watch.new_part()
    assert (seen.parts, seen.running, seen.phase) == (1, set(), "starting")
