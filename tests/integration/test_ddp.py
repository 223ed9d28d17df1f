"""Two real gloo ranks, each a process of its own, started twice for all tests of this file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.array_source import ArraySource, linear_problem
from tests.integration import ddp_rank
from tests.integration.ddp_rank import BATCH, BATCHES, CONFIG, HELD, NAN_STEP, SIZE
from trainers.loop.lockstep import World
from trainers.trainer import train

SECONDS = 100.0  # two torch imports on a busy machine, then a few seconds
Results = list[dict[str, Any]]


def start(scenario: str, folder: Path, project: Path, **environment: str) -> list[int]:
    """Run both ranks to their end; their exit codes."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.ddp_rank", scenario, str(rank), str(folder)],
            cwd=project,
            env={**os.environ, **environment},
        )
        for rank in range(SIZE)
    ]
    try:
        return [rank.wait(SECONDS) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def together(folder: Path, project: Path) -> Results:
    assert start("together", folder, project) == [0, 0]
    return [json.loads((folder / f"together-{rank}.json").read_text()) for rank in range(SIZE)]


def test_ranks_with_uneven_streams_end_together_and_draw_everything(together: Results) -> None:
    first, second = (result["uneven"] for result in together)
    assert first["train_step"] == second["train_step"] == BATCHES[0]
    assert [first["drawn"], second["drawn"]] == [BATCH * batches for batches in BATCHES]
    assert [first["distinct"], second["distinct"]] == [150, BATCHES[1] * BATCH]
    assert [first["replayed"], second["replayed"]] == [0, BATCHES[0] - BATCHES[1]]
    for result in (first, second):
        assert result["ended"] == BATCHES[0]
        assert result["open"] == 0


def test_validation_is_the_same_on_every_rank_also_on_one_without_samples(
    together: Results,
) -> None:
    first, second = (result["uneven"] for result in together)
    for name in ("samples", "error", "errors", "validated"):
        assert first[name] == second[name], name
    assert first["samples"] == sum(HELD)
    assert first["validated"] == [20, 40, 57]


def test_the_surrogate_is_exported_by_rank_0_and_every_rank_writes_its_samples(
    together: Results, folder: Path
) -> None:
    assert len(together) == SIZE
    out = folder / "uneven"
    assert (out / "model" / "card.json").exists()
    with np.load(out / "validation" / "rank0.npz") as file:
        assert len(file["members"]) == HELD[0]
    with np.load(out / "validation" / "rank1.npz") as file:
        assert len(file["members"]) == 0


def test_two_ranks_learn_what_one_learns_from_their_batches_together(
    together: Results, folder: Path, tmp_path: Path
) -> None:
    assert together[0]["even"]["train_step"] == BATCHES[0]
    parts = [ddp_rank.source(rank, even=True) for rank in range(SIZE)]
    shift = len(parts[0].inputs)
    batches = np.concatenate([parts[0]._batches, parts[1]._batches + shift], axis=1)
    merged = ArraySource(
        np.concatenate([part.fields for part in parts]),
        np.concatenate([part.inputs for part in parts]),
        batches,
        held=parts[0].held_validation(),
    )
    config = CONFIG.model_copy(update={"ranks": 1, "batch": SIZE * BATCH})
    train(merged, config, linear_problem(), world=World(), out=tmp_path, seed=2)
    expected = load_file(tmp_path / "model" / "model.safetensors")
    for name, weights in load_file(folder / "even" / "model" / "model.safetensors").items():
        np.testing.assert_allclose(weights, expected[name], rtol=2e-2, atol=2e-4, err_msg=name)


def test_a_batch_that_is_not_finite_stops_every_rank_at_the_same_step(together: Results) -> None:
    for result in together:
        assert result["nan"]["raised"].startswith(f"TrainingDiverged: train step {NAN_STEP}:")


def test_a_rank_that_fails_between_bursts_stops_the_others(together: Results) -> None:
    first, second = (result["broken"] for result in together)
    assert second["raised"] == "ConnectionError: reservoir 1 is gone"
    assert first["raised"].startswith("PeerFailed: after train step")
    assert max(first["seconds"], second["seconds"]) < 50.0  # the time-out of collectives is 60 s


def test_every_rank_gets_the_same_gradient_to_the_last_bit(together: Results) -> None:
    for way in ("shared", "own"):
        assert together[0][way]["values"] == together[1][way]["values"]


def test_gradients_through_shared_memory_are_those_of_ddp_to_rounding(together: Results) -> None:
    shared, own = together[0]["shared"], together[0]["own"]
    # A network that was trained before may still hold its file: what counts is the one more.
    assert len(shared["files"]) == len(own["files"]) + 1
    np.testing.assert_allclose(shared["values"], own["values"], rtol=1e-5, atol=1e-8)
    assert np.abs(own["values"]).max() > 1e-3


def test_the_shared_file_has_no_name_any_more(together: Results) -> None:
    for result in together:
        for line in result["shared"]["files"]:
            assert line.endswith(" (deleted)")
            assert not Path(line.split()[-2]).exists()


def test_a_rank_that_dies_is_noticed(folder: Path, project: Path) -> None:
    assert start("death", folder, project) == [0, 9]
    survivor = json.loads((folder / "death-0.json").read_text())
    assert survivor["raised"].startswith("RuntimeError")
    assert survivor["seconds"] < 50.0  # the time-out of collectives is 60 s
