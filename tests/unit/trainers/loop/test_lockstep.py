"""With one rank; several are in tests/integration/test_ddp.py."""

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.array_source import linear_source
from trainers.base import NothingToTrainOn, PeerFailed, TrainingDiverged
from trainers.loop.lockstep import BUSY, LockStep, Readiness, World, pick_device

CPU = torch.device("cpu")


@pytest.fixture
def alone() -> LockStep:
    return LockStep(World(), CPU)


def test_one_rank_needs_no_collectives(alone: LockStep) -> None:
    assert not dist.is_initialized()
    assert alone.agree(Readiness(steps=7, over=False, failed=False)) == Readiness(
        steps=7, over=False, failed=False
    )
    assert alone.agree(Readiness(steps=0, over=True, failed=False)) == Readiness(
        steps=BUSY, over=True, failed=False
    )
    assert alone.agree(Readiness(steps=3, over=False, failed=True)).failed
    assert alone.all(True)
    assert not alone.all(False)
    assert alone.most(-4) == -4
    assert alone.of_first(0.125) == 0.125
    gradients = [torch.tensor([1.0, 3.0])]
    alone.average(gradients)
    assert gradients[0].tolist() == [1.0, 3.0]
    np.testing.assert_array_equal(alone.gather(np.array([1.5, 2.5])), [[1.5, 2.5]])
    network = torch.nn.Linear(3, 2)
    assert alone.wrap(network) is network
    with alone.exchanging(network, when=False):
        pass


def test_moments_of_one_rank_are_merged_with_nothing(alone: LockStep) -> None:
    moments = linear_source(samples=31).moments()
    merged, counts = alone.merge(moments)
    assert counts.tolist() == [31]
    assert merged.field_count == moments.field_count
    for name in ("field_mean", "field_m2", "step_m2"):
        assert getattr(merged, name).tobytes() == getattr(moments, name).tobytes()


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_of_its_world_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"rank={rank} is not one of {size} ranks"):
        World(rank=rank, size=size)


def test_the_device_of_the_world_goes_before_the_wish() -> None:
    assert pick_device(World(device="cuda:3"), "cpu") == torch.device("cuda:3")
    assert pick_device(World(), "cpu") == CPU


def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(World(), "auto") == CPU
    with pytest.raises(ValueError, match=r"trainer\.device=cuda: torch finds no GPU"):
        pick_device(World(), "cuda")


@pytest.mark.parametrize("kind", [TrainingDiverged, PeerFailed, NothingToTrainOn])
def test_outcomes_cross_processes(kind: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(kind("train step 3: loss=nan")))
    assert type(again) is kind
    assert str(again) == "train step 3: loss=nan"
