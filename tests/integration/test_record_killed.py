"""SIGKILL of the process that writes a record, at moments that nobody chose."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from pipeline.record.reader import open_record, parts_of
from tests.integration.killed_writer import SAMPLES
from tests.record_rig import check_content, pairs_in

KILLS = 6


def run_and_kill(folder: Path, project: Path, seconds: float, *keep: str) -> int:
    """Rows that the writer said were on the disk."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.killed_writer", str(folder), *keep],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(seconds)
        process.kill()
        said += process.stdout.read().splitlines(keepends=True)
    return int([line for line in said if line.endswith("\n")][-1])


def test_a_killed_writer_leaves_what_it_had_committed_and_can_go_on(
    tmp_path: Path, project: Path
) -> None:
    rng, keep = random.Random(29), 0
    for kill in range(KILLS):
        arguments = [str(keep)] if kill else []
        said = run_and_kill(tmp_path, project, rng.uniform(0.0, 0.4), *arguments)
        (part,) = parts_of(tmp_path)
        assert part.rows >= said > keep
        dataset = open_record(tmp_path, sort=False)
        assert pairs_in(dataset) == [divmod(row, SAMPLES) for row in range(part.rows)]
        check_content(dataset)
        # Back to any position that was reached, as a checkpoint would.
        keep = rng.randint(max(0, said - 90), said)
