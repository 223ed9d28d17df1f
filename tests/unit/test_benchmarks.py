import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main, names
from benchmarks.figures import Figure
from benchmarks.results import compared, load, save
from benchmarks.table import table


def test_a_figure_is_ok_on_the_right_side_of_its_bar() -> None:
    assert Figure.at_least("rate", 3.0, 3.0, "GB/s").ok
    assert not Figure.at_least("rate", 2.9, 3.0, "GB/s").ok
    assert Figure.at_most("overhead", 1.05, 1.05, "times").ok
    assert not Figure.at_most("overhead", 1.06, 1.05, "times").ok


def test_a_figure_is_one_json_line() -> None:
    line = Figure.at_least("rate", 123456.789, 100.0, "samples/s").as_line()
    assert json.loads(line) == {
        "name": "rate", "value": 123500.0, "unit": "samples/s", "bar": 100.0, "ok": True,
    }  # fmt: skip
    assert "\n" not in line


def test_every_benchmark_is_known_by_the_name_of_its_file(project: Path) -> None:
    known = names()
    assert {"ingest_16k", "ingest_16k_vs_ray", "ingest_256k", "producers"} <= set(known)
    assert all((project / "benchmarks" / f"{name}.py").exists() for name in known)


def test_an_unknown_benchmark_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "ingest_17k"]) == 2
    error = capsys.readouterr().err
    assert "ingest_17k" in error
    assert "ingest_16k" in error


def test_figures_are_kept_compared_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    save(path, [Figure.at_least("draw_256k", 8.1234, 4.0, "GB/s")])
    save(path, [Figure.at_least("ingest_16k.direct", 123_456.0, 0.0, "samples/s")])
    assert [figure.value for figure in load(path)] == [8.123, 123_500.0]
    again = [Figure.at_least("draw_256k", 4.0615, 4.0, "GB/s")]
    assert list(compared(load(path), again)) == ["draw_256k: 8.123 -> 4.061 GB/s, 0.50 times"]
    assert main(["--table", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:] == [
        "| batches of 32 x 256 KB drawn while two senders insert | 8.12 GB/s | 4 GB/s |",
        "| 16 KB samples into slots on one node | 124,000 samples/s |  |",
    ]
    assert main(["--compare", str(tmp_path / "none.json")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_readmes_table_is_what_was_measured(project: Path) -> None:
    measured = table(load(project / "docs" / "bench.json"))
    assert measured.count("\n") > 5
    assert measured in (project / "README.md").read_text("utf-8"), (
        "paste what `python -m benchmarks --table docs/bench.json` prints"
    )
