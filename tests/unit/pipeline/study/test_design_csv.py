from pathlib import Path
from typing import Any

import pytest

from pipeline.study.design_csv import MAX_CELL_PROBLEMS, read_rows
from pipeline.study.distributions import Constant, Uniform

NAMES = ["west", "east", "north"]


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "design.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffnorth , west,east\n 3,1,2\n\n6,4,5e0\n9,7,8\n")
    rows, problems = read_rows(path, NAMES, {}, 2)
    assert problems == []
    assert rows.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_constant_needs_no_column(tmp_path: Path) -> None:
    path = written(tmp_path, "north,west\n3,1\n")
    rows, problems = read_rows(path, NAMES, {"east": Constant(constant=2.5)}, 1)
    assert problems == []
    assert rows.tolist() == [[1, 2.5, 3]]


@pytest.mark.parametrize(
    ("text", "distributions", "words"),
    [
        (
            "west,east,nort\n1,2,3\n",
            {},
            ["column 'nort'", "Did you mean 'north'?", "Expected columns: west, east, north",
             "Rename", "column 'north' is missing", "Add it"],
        ),
        ("west,east,north,west\n1,2,3,4\n", {}, ["column 'west' stands 2 times", "Keep one"]),
        (
            "west,east,north\n1,2,3\n",
            {"east": Constant(constant=1.0)},
            ["column 'east'", "parameters.east is a constant", "Remove"],
        ),
        ("west,east,north\n", {}, ["has 0 rows", "members + ensemble.validation = 1", "Add rows"]),
        ("", {}, ["column 'west' is missing", "has 0 rows"]),
        ("west,east,north\n1,2\n", {}, ["row 1 has 2 cells", "header has 3", "Correct the row"]),
        ("west,east,north\n1,2,\n", {}, ["row 1, north=''", "no finite number", "Correct"]),
        ("west,east,north\n1,inf,3\n", {}, ["row 1, east='inf'", "no finite number"]),
        (
            "west,east,north\n1,2,9\n",
            {"north": Uniform(uniform=(0.0, 8.0))},
            ["row 1, north=9 is outside parameters.north = [0, 8]", "Widen"],
        ),
        (b"west\xff,east\n", {}, ["is no CSV text", "UTF-8"]),
        ("west,east,north\n0_5,2,3\n", {}, ["row 1, west='0_5' is no finite number"]),
        ("west,east,north\n1,\u0662,3\n", {}, ["row 1, east='\u0662' is no finite number"]),
        ('west,east,north\n1,"2,3\n', {}, ["is no CSV text"]),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str | bytes) else None,
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused(
    text: str | bytes, distributions: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    problems = read_rows(path, NAMES, distributions, 1)[1]
    assert problems
    assert all(line.startswith(f"ensemble.design.csv={path}: ") for line in problems)
    for word in words:
        assert word in "\n".join(problems)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    problems = read_rows(tmp_path / "none.csv", NAMES, {}, 1)[1]
    assert len(problems) == 1
    assert "none.csv: cannot be read (No such file" in problems[0]
    assert "Correct the path" in problems[0]


def test_the_list_of_reasons_is_bounded(tmp_path: Path) -> None:
    path = written(tmp_path, "west,east,north\n" + "a,b,c\n" * 1000)
    problems = read_rows(path, NAMES, {}, 1000)[1]
    assert len(problems) == MAX_CELL_PROBLEMS + 1
    assert problems[-1].endswith("and 2995 more of this kind")


@pytest.mark.parametrize(
    ("mark", "what"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "blanks")]
)
def test_another_separator_is_named_in_one_line(tmp_path: Path, mark: str, what: str) -> None:
    path = written(tmp_path, f"{mark.join(NAMES)}\n{mark.join(['0,5', '2', '3'])}\n")
    (line,) = read_rows(path, NAMES, {}, 1)[1]
    assert f"its columns are separated by {what}. Separate them by commas, and write" in line


def test_a_single_column_needs_no_separator(tmp_path: Path) -> None:
    rows, problems = read_rows(written(tmp_path, "a b\n1\n"), ["a b"], {}, 1)
    assert (rows.tolist(), problems) == ([[1.0]], [])
