"""A study small enough for a test: unequal grid, an odd number of samples, seconds to run."""

import os
from typing import Any

from pipeline.study.config import StudyConfig
from pipeline.study.load import parse

MEMBERS, VALIDATION, STEPS = 9, 2, 21
# Two test processes may run one at a time: what each leaves in shared memory is its own.
NAME = f"small-{os.getpid()}"


def small_study(**sections: dict[str, Any]) -> StudyConfig:
    """A heat study; ``reservoir={"policy": "fifo"}`` changes single keys of a section."""
    tree: dict[str, Any] = {
        "name": NAME,
        "seed": 3,
        "solver": {"kind": "heat", "grid": [10, 14], "steps": STEPS, "dt": 0.01},
        "parameters": {
            name: {"uniform": [100, 500]} for name in ("initial", "west", "east", "south", "north")
        },
        "ensemble": {"members": MEMBERS, "validation": VALIDATION, "concurrent": 2},
        "reservoir": {"policy": "reservoir", "capacity": 60, "watermark": 20, "max_reuse": 4},
        "trainer": {
            "ranks": 2,
            "batch": 4,
            "log_every": 5,
            "model": {"kind": "mlp", "hidden": [32]},
        },
    }
    for name, changes in sections.items():
        tree[name] = tree.get(name, {}) | changes
    return parse(tree)
