"""``python -m benchmarks``: one JSON line per figure on standard output.

1. Exit status 0 means that every figure passed its bar, 1 that one did not, 2 a wrong name or file.
2. A benchmark that fails is reported on standard error, and the others still run.
3. A file that ``--json`` writes has all that was measured, when and on how many busy cores; figures
   of a part of the benchmarks replace those in it. ``--compare`` and ``--table`` read such a file.
"""

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.results import compared, load, save
from benchmarks.table import table

NOT_BENCHMARKS: Final = {"__init__", "__main__", "figures"}


def names() -> list[str]:
    """Every module of this folder that has a ``run``, by what its source says."""
    folder = Path(__file__).parent
    return sorted(
        path.stem
        for path in folder.glob("*.py")
        if path.stem not in NOT_BENCHMARKS and "\ndef run() -> list[Figure]:" in path.read_text()
    )


def measured(wanted: list[str]) -> tuple[list[Figure], bool]:
    """Run these benchmarks and print their figures; whether all ran."""
    figures, ran = [], True
    for name in wanted:
        try:
            new = importlib.import_module(f"benchmarks.{name}").run()
        except Exception:  # noqa: BLE001 - one failing benchmark must not hide the others
            sys.stderr.write(f"{name} failed:\n{traceback.format_exc()}")
            ran = False
            continue
        figures += new
        for figure in new:
            sys.stdout.write(figure.as_line() + "\n")
            sys.stdout.flush()
    return figures, ran


def main(arguments: list[str]) -> int:
    """Run the benchmarks that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated names; all when left out")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--compare", type=Path, help="print ratios to the figures of this file")
    parser.add_argument("--table", type=Path, help="print this file's table, and measure nothing")
    asked = parser.parse_args(arguments)
    known = names()
    # `stream_overhead.64` is one figure of the benchmark `stream_overhead`.
    named = [name.partition(".")[0] for name in asked.only.split(",") if name]
    wanted = list(dict.fromkeys(named)) or known
    if unknown := [name for name in wanted if name not in known]:
        sys.stderr.write(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(known)}\n")
        return 2
    for path in (asked.compare, asked.table):
        if path is not None and not path.is_file():
            sys.stderr.write(f"no such file: {path}; --json writes one\n")
            return 2
    if asked.table is not None:
        sys.stdout.write(table(load(asked.table)))
        return 0
    before = [] if asked.compare is None else load(asked.compare)
    figures, ran = measured(wanted)
    if asked.json is not None:
        save(asked.json, figures)
    for line in compared(before, figures):
        sys.stdout.write(line + "\n")
    return 0 if ran and all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
