"""Small studies drawn at random: what ``check`` accepts of them has to run to a right end.

Solver and parameters are those of an example, on a smaller grid; all else is drawn.
"""

import random
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from pipeline.study.yaml_values import parse_yaml

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# What makes a member of an example small; grids are unequal where the solver allows that.
SMALL: dict[str, dict[str, Any]] = {
    "burgers": {"grid": [16], "steps": 10},
    "cavity": {"grid": [11, 11], "steps": 6},
    "darcy": {"grid": [12, 12]},
    "gray_scott": {"grid": [12, 16], "steps": 10},
    "heat": {"grid": [10, 14], "steps": 12},
    "heat_1d": {"grid": [17], "steps": 11},
    "heat_3d": {"grid": [6, 8, 10], "steps": 6},
    "kuramoto_sivashinsky": {"grid": [32], "steps": 10},
    "lorenz": {"steps": 12},
    "navier_stokes": {"grid": [16, 16], "steps": 5},
    "shallow_water": {"grid": [12, 12], "steps": 8},
    "wave": {"grid": [16, 16], "steps": 9},
}
NETWORKS: tuple[dict[str, Any], ...] = (
    {"kind": "mlp", "hidden": [16]},
    {"kind": "unet", "channels": 4, "depth": 2},
    {"kind": "fno", "channels": 4, "layers": 2, "n_modes": 4},
    {"kind": "tfno", "channels": 4, "layers": 2, "n_modes": 4},
    {"kind": "uno", "channels": 4, "n_modes": 4},
    {"kind": "deeponet", "basis": 8, "branch": [16], "trunk": [16]},
    {"kind": "message_passing", "channels": 8, "layers": 2},
)
TRIES = 200  # draws until one is accepted; about one in three is


def random_study(seed: int) -> StudyConfig:
    """The first study that is accepted of those that this seed draws."""
    rng = random.Random(seed)
    for _ in range(TRIES):
        try:
            return parse(_draw(rng), folder=EXAMPLES)
        except ConfigError:
            continue
    raise AssertionError(f"none of {TRIES} studies of seed {seed} was accepted")


def _draw(rng: random.Random) -> dict[str, Any]:
    example = rng.choice(sorted(SMALL))
    tree = parse_yaml((EXAMPLES / f"{example}.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return {
        "name": f"random-{example}".replace("_", "-"),
        "seed": rng.randrange(1000),
        "deterministic": rng.random() < 0.2,
        "solver": tree["solver"] | SMALL[example],
        "parameters": tree["parameters"],
        "ensemble": {
            "members": rng.randint(3, 8),
            "validation": rng.choice([0, 1, 2, 3]),
            "concurrent": rng.choice([1, 2, 3]),
            "mpi_ranks": rng.choice([1, 1, 1, 2]),
            "design": rng.choice(["halton", "uniform"]),
        },
        "stream": _stream(rng, tree.get("stream", {})),
        "reservoir": {
            "policy": rng.choice(["reservoir", "fifo", "firo"]),
            "capacity": rng.choice([20, 40, 200]),
            "watermark": rng.choice([1, 8, 15]),
            "max_reuse": rng.choice([None, 1, 2.5, 6]),
            "max_surplus": rng.choice([None, None, 200]),
        },
        "trainer": _trainer(rng),
        "checkpoint": {"every_seconds": rng.choice([None, 1.0])},
        "record": rng.choice([None, None, {"what": "inserted"}, {"what": "drawn", "every": 2}]),
    }


def _stream(rng: random.Random, example: dict[str, Any]) -> dict[str, Any]:
    return example | {
        "initial_state": rng.random() < 0.5,
        "every": rng.choice([1, 1, 2]),
        "coarsen": rng.choice([1, 1, 2]),
        "dtype": rng.choice(["float32", "float32", "float16"]),
        "transport": rng.choice(["auto", "tcp"]),
        "linger_ms": rng.choice([1, 20]),
    }


def _trainer(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["direct", "direct", "operator", "next", "delta", "derivative", "bundle"])
    return {
        "ranks": rng.choice([1, 2]),
        "batch": rng.choice([1, 3, 8]),
        "accumulate": rng.choice([1, 1, 2]),
        "device": "cpu",
        "log_every": 5,
        "task": {"kind": kind, "stride": rng.choice([1, 1, 2])},
        "model": rng.choice(NETWORKS),
    }
