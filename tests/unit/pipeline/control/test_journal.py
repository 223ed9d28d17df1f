from pathlib import Path

from pipeline.control.journal import Journal, read


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("start", at=1.23456, member=3, parameters={"west": 250.5})
    journal.write("completed", at=2.0, member=3)
    journal.close()
    assert list(read(tmp_path / "journal.jsonl")) == [
        {"event": "start", "at": 1.235, "member": 3, "parameters": {"west": 250.5}},
        {"event": "completed", "at": 2.0, "member": 3},
    ]


def test_a_line_that_was_cut_off_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("start", at=1.0, member=3)
    journal.write("completed", at=2.0, member=3)
    journal.close()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert [line["event"] for line in read(path)] == ["start"]


def test_a_line_is_on_disk_before_the_journal_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("start", at=1.0, member=3)
    assert [line["member"] for line in read(tmp_path / "journal.jsonl")] == [3]
    journal.close()
