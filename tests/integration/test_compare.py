"""One command compares online and offline training: real Ray, PETSc, files and DataLoader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.petsc]

STUDY: dict[str, Any] = {
    "name": "compared",
    "seed": 3,
    "solver": {"kind": "heat", "grid": [10, 14], "steps": 21, "dt": 0.01},
    "parameters": {
        name: {"uniform": [100, 500]} for name in ("initial", "west", "east", "south", "north")
    },
    "ensemble": {"members": 9, "validation": 2, "concurrent": 2},
    "reservoir": {"policy": "reservoir", "capacity": 60, "watermark": 20, "max_reuse": 4},
    "trainer": {
        "ranks": 2, "batch": 4, "log_every": 5, "validate_every": 20,
        "model": {"kind": "mlp", "hidden": [32]},
    },
}  # fmt: skip


PROGRAM = Path(sys.executable).with_name("headrace")


def compared(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    command = [str(PROGRAM), "compare", str(path), "--out", str(folder / "out"), *options]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    told = json.loads((folder / "out" / "compare.json").read_text())
    return {one["method"]: one for one in told["outcomes"]}


@pytest.mark.studies
def test_the_same_members_online_and_from_files(tmp_path: Path) -> None:
    result = compared(tmp_path, "--methods", "firo,npy:6,ram:6,zarr@disk:1", "--disk", "50kB")
    assert result.returncode == 0, result.stdout
    found = outcomes(tmp_path)
    assert list(found) == ["firo", "npy:6", "ram:6", "zarr@disk:1"]
    firo, often, resident, small = found.values()
    assert (resident["train_steps"], resident["samples"]) == (143, 9 * 21)
    assert firo["members"] == often["members"] == 9
    assert firo["samples"] == 9 * 21
    assert often["train_steps"] == 143  # rank 0 has 95 of 189 samples in a pass: 570 / 4
    assert small["members"] == 2
    assert small["samples"] == 2 * 21
    assert often["bytes_written"] > 9 * 21 * 10 * 14 * 4
    for one in found.values():
        assert 0.0 < one["first_step_seconds"] < one["wall_seconds"]
        assert one["batches_per_second"] > 0.0
        assert one["spread"]["max"] > 0.0
        assert one["course"][-1]["train_step"] == one["train_steps"]
    assert (
        often["error"] < small["error"]
    )  # it has learnt more, and is measured on the same members
    told = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert told["data_sets"][0]["wall_seconds"] > 0.0
    assert any(line.startswith("validation error") for line in told["verdict"])
    assert (tmp_path / "out" / "compare.html").read_text().count("<svg") == 4
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.slow
def test_the_same_time_online_and_from_files(tmp_path: Path) -> None:
    methods = ("--methods", "reservoir,npy-member", "--set", "trainer.ranks=1")
    result = compared(tmp_path, "--seconds", "15", *methods, "--keep-data")
    assert result.returncode == 0, result.stdout
    online, offline = outcomes(tmp_path).values()
    assert online["members"] > 9  # whatever the solvers made meanwhile
    assert offline["members"] == 9
    assert online["wall_seconds"] >= 15.0
    assert offline["wall_seconds"] >= online["wall_seconds"]
    assert offline["draws"] > 9 * 21
    stored = tmp_path / "out" / "data" / "3" / "training" / "npy"
    assert len(list(stored.glob("*.npy"))) == 9


def test_what_cannot_be_compared_exits_2(tmp_path: Path) -> None:
    result = compared(tmp_path, "--methods", "hdf5")
    assert result.returncode == 2
    assert "--methods: 'hdf5' is unknown" in result.stdout
    assert not (tmp_path / "out").exists()
