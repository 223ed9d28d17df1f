"""``python -m benchmarks [--only name,name]``: one JSON line per figure on standard output.

1. Exit status 0 means that every figure passed its bar, 1 that one did not, 2 a wrong name.
2. A benchmark that fails is reported on standard error, and the others still run.
"""

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Final

NOT_BENCHMARKS: Final = {"__init__", "__main__", "figures"}


def names() -> list[str]:
    """Every module of this folder that has a ``run``, by what its source says."""
    folder = Path(__file__).parent
    return sorted(
        path.stem
        for path in folder.glob("*.py")
        if path.stem not in NOT_BENCHMARKS and "\ndef run() -> list[Figure]:" in path.read_text()
    )


def main(arguments: list[str]) -> int:
    """Run the benchmarks that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="comma-separated names; all when left out")
    known = names()
    asked = [name for name in parser.parse_args(arguments).only.split(",") if name]
    # `stream_overhead.64` is one figure of the benchmark `stream_overhead`.
    wanted = list(dict.fromkeys(name.partition(".")[0] for name in asked)) or known
    if unknown := [name for name in wanted if name not in known]:
        sys.stderr.write(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(known)}\n")
        return 2
    passed = True
    for name in wanted:
        try:
            figures = importlib.import_module(f"benchmarks.{name}").run()
        except Exception:  # noqa: BLE001 - one failing benchmark must not hide the others
            sys.stderr.write(f"{name} failed:\n{traceback.format_exc()}")
            passed = False
            continue
        for figure in figures:
            sys.stdout.write(figure.as_line() + "\n")
            sys.stdout.flush()
            passed = passed and figure.ok
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
