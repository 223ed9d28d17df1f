"""Figures in a file: what was measured once, to compare with and to make the README's table of."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure


def save(path: Path, figures: list[Figure]) -> None:
    """Write figures; others that the file has already stay in it, with their own date."""
    now = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    rows = {row["name"]: row for row in _rows(path)}
    for figure in figures:
        value = float(f"{figure.value:.4g}")
        rows[figure.name] = asdict(figure) | {"value": value} | now
    path.write_text(json.dumps(list(rows.values()), indent=1) + "\n", "utf-8")


def load(path: Path) -> list[Figure]:
    """The figures that ``save`` wrote."""
    fields = ("name", "value", "unit", "bar", "ok")
    return [Figure(**{name: row[name] for name in fields}) for row in _rows(path)]


def compared(before: list[Figure], now: list[Figure]) -> Iterator[str]:
    """For each figure in both: its old value, its new one, and their ratio."""
    old = {figure.name: figure.value for figure in before}
    for figure in now:
        if figure.name in old:
            value = old[figure.name]
            ratio = figure.value / value if value else float("nan")
            new = f"{figure.value:.4g} {figure.unit}"
            yield f"{figure.name}: {value:.4g} -> {new}, {ratio:.2f} times"


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return rows
