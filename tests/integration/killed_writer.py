"""Records samples as fast as it can until it is killed: ``killed_writer.py FOLDER [KEEP]``."""

import sys
from pathlib import Path

import numpy as np

from tests.record_rig import add, open_rank

SAMPLES = 40


def main(folder: str, *keep: str) -> None:
    """Members one after another, each of ``SAMPLES`` samples, from the first row that is not kept.

    Prints the rows that are on the disk after each flush.
    """
    record = open_rank(
        Path(folder),
        keep=int(keep[0]) if keep else None,
        commit_seconds=0.002,
        compression="zstd",
    )
    row = record.rows
    while True:
        count = min(7, SAMPLES - row % SAMPLES)
        pairs = [divmod(number, SAMPLES) for number in range(row, row + count)]
        rows = add(record, pairs)
        record.count_draws(rows, np.ones(count, np.int64))
        row += count
        if row % 200 == 0:
            sys.stdout.write(f"{record.flush()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
