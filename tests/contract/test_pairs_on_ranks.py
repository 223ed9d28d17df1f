"""Every network trains with every task on two ranks, in 1-D, 2-D and 3-D."""

import json
import subprocess
import sys
from pathlib import Path

from tests.contract.pairs_on_ranks import GRIDS
from tests.contract.test_model_task_pairs import PAIRS

SECONDS = 100.0  # two torch imports on a busy machine, then some


def test_every_pair_trains_on_two_ranks_in_step(tmp_path: Path, project: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.pairs_on_ranks", str(rank), str(tmp_path)],
            cwd=project,
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(SECONDS) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert len(first) == len(GRIDS) * (len(PAIRS) + 2)
    assert {name: said for name, said in first.items() if not isinstance(said, float)} == {}
    assert first == second
