import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main, names
from benchmarks.figures import Figure


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
