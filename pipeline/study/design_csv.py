"""Parameters that were given as a CSV file: one column per parameter, one row per member.

Training members take the first rows, validation members the next ones.

Invariants (``tests/unit/pipeline/study/test_design_csv.py``):

1. Columns may stand in any order; values come back in the order of the names asked for.
2. A table is whole (right columns, enough rows, finite numbers), or refused with every reason.
3. The list of reasons is bounded, however long the file is.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pipeline.study.distributions import AnyDistribution, Constant
from pipeline.study.problems import nearest
from pipeline.study.yaml_values import NUMBER

MAX_CELL_PROBLEMS = 5
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}


def read_rows(
    path: Path, names: Sequence[str], distributions: Mapping[str, AnyDistribution], rows: int
) -> tuple[Float64[np.ndarray, " rows names"], list[str]]:
    """The first ``rows`` rows of a CSV file, and what is wrong with it.

    Args:
        path: Comma-separated, UTF-8, names in the first line.
        names: The solver's parameters.
        distributions: What the study says of them: a constant needs no column, a range is a limit.
        rows: Members of both kinds.

    Returns:
        An array that is meaningful only when the list of problems is empty.
    """
    values = np.empty((rows, len(names)))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = [row for row in csv.reader(file, strict=True) if any(map(str.strip, row))]
    except OSError as error:
        return values, [_problem(path, f"cannot be read ({error.strerror}). Correct the path")]
    except (UnicodeDecodeError, csv.Error) as error:
        return values, [_problem(path, f"is no CSV text: {error}. Save it as UTF-8 CSV")]
    header = [name.strip() for name in table[0]] if table else []
    constants = [name for name in names if isinstance(distributions.get(name), Constant)]
    for mark, what in _OTHER_SEPARATORS.items():
        if len(header) == 1 and set(map(str.strip, header[0].split(mark))) & set(names) - {*header}:
            text = f"its columns are separated by {what}. Separate them by commas"
            return values, [_problem(path, f"{text}, and write numbers with points")]
    found = _header_problems(path, header, names, constants)
    if len(table) - 1 < rows:
        found.append(
            _problem(
                path,
                f"has {max(0, len(table) - 1)} rows, but ensemble.members + ensemble.validation = "
                f"{rows}. Add rows, or lower ensemble.members",
            )
        )
    if found:
        return values, found
    cells: list[str] = []
    for number, row in enumerate(table[1 : rows + 1]):
        cells += _read_row(row, header, number, names, distributions, values[number])
    found += [_problem(path, text) for text in cells[:MAX_CELL_PROBLEMS]]
    if len(cells) > MAX_CELL_PROBLEMS:
        found.append(_problem(path, f"and {len(cells) - MAX_CELL_PROBLEMS} more of this kind"))
    return values, found


def _problem(path: Path, text: str) -> str:
    return f"ensemble.design.csv={path}: {text}"


def _header_problems(
    path: Path, header: Sequence[str], names: Sequence[str], constants: Sequence[str]
) -> list[str]:
    expected = [name for name in names if name not in constants]
    listed = ", ".join(expected)
    found = []
    for column in dict.fromkeys(header):
        if column in constants:
            text = (
                f"column {column!r}, but parameters.{column} is a constant. Remove one of the two"
            )
        elif column not in expected:
            text = (
                f"column {column!r} is no parameter of the solver. {nearest(column, expected)}"
                f"Expected columns: {listed}. Rename or remove it"
            )
        elif header.count(column) > 1:
            text = f"column {column!r} stands {header.count(column)} times. Keep one of them"
        else:
            continue
        found.append(_problem(path, text))
    missing = [name for name in expected if name not in header]
    found += [
        _problem(
            path,
            f"column {name!r} is missing. Expected columns: {listed}. Add it, or set "
            f"parameters.{name}: {{constant: x}}",
        )
        for name in missing
    ]
    return found


def _read_row(
    row: Sequence[str],
    header: Sequence[str],
    number: int,
    names: Sequence[str],
    distributions: Mapping[str, AnyDistribution],
    into: Float64[np.ndarray, " names"],
) -> list[str]:
    where = f"row {number + 1}"
    if len(row) != len(header):
        return [f"{where} has {len(row)} cells, the header has {len(header)}. Correct the row"]
    found = []
    for place, name in enumerate(names):
        distribution = distributions.get(name)
        if isinstance(distribution, Constant):
            into[place] = distribution.constant
            continue
        cell = row[header.index(name)].strip()
        value = _number(cell)
        if value is None:
            found.append(f"{where}, {name}={cell!r} is no finite number. Correct the cell")
            continue
        into[place] = value
        if distribution is not None and not (distribution.lowest <= value <= distribution.highest):
            found.append(
                f"{where}, {name}={value:g} is outside parameters.{name} = "
                f"[{distribution.lowest:g}, {distribution.highest:g}]. Widen that range, or leave "
                "the parameter out there"
            )
    return found


def _number(cell: str) -> float | None:
    value = float(cell) if re.fullmatch(NUMBER, cell) else math.nan
    return value if math.isfinite(value) else None
