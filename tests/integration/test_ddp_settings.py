"""Settings of the training loop on two real gloo ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.array_source import ArraySource, linear_problem
from tests.integration import ddp_rank
from tests.integration.ddp_rank import (
    ACCUMULATING,
    BATCH,
    BATCHES,
    GOING_ON,
    SIZE,
)
from tests.integration.test_ddp import start
from trainers.loop.lockstep import World
from trainers.trainer import train

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


@pytest.fixture(scope="module")
def settings(folder: Path, project: Path) -> Results:
    assert start("settings", folder, project) == [0, 0]
    return read("settings", folder)


def read(scenario: str, folder: Path) -> Results:
    return [json.loads((folder / f"{scenario}-{rank}.json").read_text()) for rank in range(SIZE)]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model" / "model.safetensors")


def test_ranks_that_accumulate_learn_what_one_learns_from_their_batches_together(
    settings: Results, folder: Path, tmp_path: Path
) -> None:
    """57 batches in groups of 4: the last train step is of one batch."""
    for result in settings:
        assert result["accumulating"]["train_step"] == 15
        assert result["accumulating"]["ended"] == BATCHES[0]
    parts = [ddp_rank.source(rank, even=True) for rank in range(SIZE)]
    shift = len(parts[0].inputs)
    merged = ArraySource(
        np.concatenate([part.fields for part in parts]),
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([parts[0]._batches, parts[1]._batches + shift], axis=1),
        held=parts[0].held_validation(),
    )
    config = ACCUMULATING.model_copy(update={"ranks": 1, "batch": SIZE * BATCH})
    train(merged, config, linear_problem(), world=World(), out=tmp_path, seed=2)
    expected = weights(tmp_path)
    for name, values in weights(folder / "accumulating").items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-2, atol=2e-4, err_msg=name)


def test_ranks_that_accumulate_from_uneven_streams_end_together(settings: Results) -> None:
    first, second = (result["uneven"] for result in settings)
    assert first["train_step"] == second["train_step"] == 15
    assert [first["drawn"], second["drawn"]] == [BATCH * batches for batches in BATCHES]
    assert [first["replayed"], second["replayed"]] == [0, BATCHES[0] - BATCHES[1]]
    assert first["validated"] == second["validated"] == [3, 6, 9, 12, 15]
    assert first["open"] == second["open"] == 0


def test_after_the_drain_both_ranks_go_on_for_as_many_train_steps(settings: Results) -> None:
    first, second = (result["going_on"] for result in settings)
    more = 7 * GOING_ON.accumulate
    assert first["train_step"] == second["train_step"] == 57 // 3 + 7
    assert [first["replayed"], second["replayed"]] == [more, BATCHES[0] - BATCHES[1] + more]
    assert [first["ended"], second["ended"]] == [BATCHES[0] + more] * 2
    assert first["open"] == second["open"] == 0


def test_plateau_and_early_stop_are_alike_on_all_ranks(settings: Results) -> None:
    """Although rank 1 gets other errors out of its validations: rank 0 decides."""
    first, second = (result["judged"] for result in settings)
    for name in ("train_step", "learning_rate", "notes", "validated"):
        assert first[name] == second[name], name
    assert first["train_step"] == 12  # validations at 3, 6, 9 and 12
    assert first["learning_rate"] == pytest.approx(3e-3 / 8)
    (note,) = first["notes"]
    assert note.startswith("stopped early at train step 12: in 3 validations")


def test_averaged_weights_are_validated_and_exported_alike(settings: Results) -> None:
    first, second = (result["averaged"] for result in settings)
    assert first["error"] == second["error"]
    assert first["train_step"] == BATCHES[0]


def test_bfloat16_trains(settings: Results) -> None:
    for result in settings:
        assert result["averaged"]["loss"] < 0.5  # of normalised fields, so 1 is knowing nothing
        assert result["averaged"]["error"] < 1.0


@pytest.mark.slow
def test_a_compiled_network_trains_as_a_plain_one(folder: Path, project: Path) -> None:
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    assert start("compiled", folder, project, **cache) == [0, 0]
    for result in read("compiled", folder):
        assert result["compiled"]["notes"] == []
        assert result["compiled"]["train_step"] == result["plain"]["train_step"] == 29
    plain = weights(folder / "plain")
    for name, values in weights(folder / "compiled").items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-2, atol=1e-4, err_msg=name)


def test_without_a_compiler_ranks_go_on_and_say_so(folder: Path, project: Path) -> None:
    alone = folder / "alone"
    alone.mkdir()
    none = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(alone)}
    assert start("compiled", alone, project, **none) == [0, 0]
    for result in read("compiled", alone):
        (note,) = result["compiled"]["notes"]
        assert note.startswith("trainer.compile: no compiler works here, trained without one (")
    assert weights(alone / "compiled").keys() == weights(alone / "plain").keys()
    for name, values in weights(alone / "compiled").items():
        assert values.tobytes() == weights(alone / "plain")[name].tobytes(), name
