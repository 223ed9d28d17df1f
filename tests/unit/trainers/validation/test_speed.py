from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.decay_study import SNAPSHOTS, study
from trainers.surrogate.export import load_surrogate
from trainers.surrogate.surrogate import Surrogate
from trainers.validation import speed
from trainers.validation.speed import query_time


class Counted(nn.Module):
    """Notes how many rows it is called with; takes no time worth speaking of."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = network, list[int]()

    def forward(self, numbers: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(numbers))
        said: torch.Tensor = self.inner(numbers, fields)
        return said


def surrogate_of(out: Path, task: dict[str, Any]) -> Surrogate:
    study(out, task, steps=2)
    return load_surrogate(out)


def ticking(monkeypatch: pytest.MonkeyPatch, network: Counted) -> None:
    """A clock that stands still but for a millisecond for each row, and ten for each call."""

    def now() -> float:
        return 1e-3 * sum(network.rows) + 1e-2 * len(network.rows)

    monkeypatch.setattr("trainers.validation.speed.time.perf_counter", now)


def test_a_query_of_a_map_is_all_snapshots_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate = surrogate_of(tmp_path, {"kind": "direct"})
    network = Counted(surrogate.network)
    ticking(monkeypatch, network)
    query = query_time(surrogate.task, network)
    assert query.snapshots == SNAPSHOTS == 8
    assert query.alone_seconds == pytest.approx(0.010 + 8 * 0.001)
    # A row takes 11 ms alone, so that nine fit into the budget of 0.1 s: one member.
    assert query.batch == 1
    assert query.batched_seconds == pytest.approx(8 * (0.010 + 9 * 0.001) / 9)


def test_a_query_of_what_steps_is_one_step_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate = surrogate_of(tmp_path, {"kind": "next", "history": 2, "ahead": 4})
    network = Counted(surrogate.network)
    ticking(monkeypatch, network)
    query = query_time(surrogate.task, network)
    # Six snapshots after the first two, four at a time: two calls.
    assert query.alone_seconds == pytest.approx(2 * 0.011)
    assert query.batch == 9
    assert query.batched_seconds == pytest.approx(2 * (0.010 + 9 * 0.001) / 9)


def test_a_slow_network_is_not_tried_on_large_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate = surrogate_of(tmp_path, {"kind": "direct"})
    network = Counted(surrogate.network)
    ticking(monkeypatch, network)
    monkeypatch.setattr(speed, "BUDGET_SECONDS", 1e-4)
    query = query_time(surrogate.task, network)
    assert set(network.rows) == {1}
    assert query.alone_seconds == pytest.approx(8 * 0.011)


def test_it_uses_no_random_number(tmp_path: Path) -> None:
    surrogate = surrogate_of(tmp_path, {"kind": "direct"})
    before = torch.get_rng_state()
    query_time(surrogate.task, surrogate.network)
    assert torch.equal(torch.get_rng_state(), before)
