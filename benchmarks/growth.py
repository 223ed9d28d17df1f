"""``growth``: memory of all processes of a study that is ten times as long as the demo.

1. Measured are the driver and every process it started, shared memory included, twice a second.
2. The figure is how much a straight line through the second half of the run rises over that half,
   as a share of its mean.
"""

import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure
from pipeline import run as pipeline_run
from pipeline.stats.stats import StudyStats
from pipeline.study.load import load

PROJECT = Path(__file__).resolve().parent.parent
MEMBERS = 2500
BAR = 0.05


def observe_study() -> np.ndarray:
    """Seconds and resident bytes, a row per observation, while samples were being produced."""
    rows: list[tuple[float, float]] = []

    def observe(stats: StudyStats) -> None:
        if stats.phase == "training":
            rows.append((stats.elapsed_seconds, _resident_bytes()))

    study = load(
        PROJECT / "examples" / "heat.yaml",
        [f"ensemble.members={MEMBERS}", "reservoir.max_reuse=2", "reservoir.max_surplus=null"],
    )
    with tempfile.TemporaryDirectory() as folder:
        pipeline_run.run(study, out=Path(folder) / "run", observers=[observe])
    return np.array(rows)


def growth_of(rows: np.ndarray) -> float:
    """Rise of the fitted line over the second half, over the mean of that half."""
    half = rows[rows[:, 0] > rows[:, 0].mean()]
    slope, _ = np.polyfit(half[:, 0], half[:, 1], 1)
    return float(slope * np.ptp(half[:, 0]) / half[:, 1].mean())


def run() -> list[Figure]:
    """Run the long study."""
    return [Figure.at_most("growth", growth_of(observe_study()), BAR, "1")]


def _resident_bytes() -> float:
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return float(total)
