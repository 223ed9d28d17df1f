"""One of two gloo ranks: runs the scenario it is told and writes what came out as JSON.

``python -m tests.integration.ddp_rank SCENARIO RANK FOLDER``
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist

from tests.array_source import (
    ArraySource,
    linear_held,
    linear_problem,
    linear_samples,
)
from trainers.base import Lease
from trainers.config import TrainerConfig
from trainers.loop import exchange
from trainers.loop.lockstep import LockStep, World
from trainers.models.registry import build_model
from trainers.results import TrainStats, ValidationResult
from trainers.trainer import train

SIZE: Final = 2
BATCHES: Final = (57, 31)
HELD: Final = (23, 0)
BATCH: Final = 6
NAN_STEP: Final = 13
CONFIG: Final = TrainerConfig.model_validate(
    {
        "ranks": SIZE,
        "batch": BATCH,
        "model": {"kind": "mlp", "hidden": [40, 24]},
        "optimizer": {"kind": "adam", "lr": 3e-3},
        "validate_every": 20,
        "log_every": 10,
        "lease_batches": 4,
        "device": "cpu",
    }
)


def source(rank: int, kind: type[ArraySource] = ArraySource, *, even: bool = False) -> ArraySource:
    """Rank 0 has the longer stream and all validation samples."""
    rng = np.random.default_rng(100 + rank)
    batches = BATCHES[0] if even else BATCHES[rank]
    samples = 150 + 37 * rank
    fields, inputs = linear_samples(rng, samples)
    order = np.concatenate([rng.permutation(samples) for _ in range(4)])[: batches * BATCH]
    held = linear_held(np.random.default_rng(5), HELD[rank])
    per_lease = (5, 3)[rank]
    return kind(fields, inputs, order.reshape(batches, BATCH), held=held, per_lease=per_lease)


class BrokenOnRank1(ArraySource):
    """Its reservoir dies before the third lease."""

    calls = 0

    def lease(self, batches: int, *, timeout: float) -> Lease:
        self.calls += 1
        if self.calls == 3 and dist.get_rank() == 1:
            raise ConnectionError("reservoir 1 is gone")
        return super().lease(batches, timeout=timeout)


class NanOnRank1(ArraySource):
    """A field turns bad after the statistics were taken."""

    def lease(self, batches: int, *, timeout: float) -> Lease:
        lease = super().lease(batches, timeout=timeout)
        first = (lease.id - 1) * self._per_lease
        if dist.get_rank() == 1 and first <= NAN_STEP < first + len(lease.indices):
            self.fields.flags.writeable = True
            self.fields[lease.indices[NAN_STEP - first, 2], 0, 1, 3, 4] = np.nan
        return lease


def die_on_rank_1(stats: TrainStats) -> None:
    """End the process of rank 1 after a few train steps."""
    if dist.get_rank() == 1 and stats.train_step == 20:
        os._exit(9)


def digest(folder: Path) -> str:
    """Of the exported weights."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def run(
    fed: ArraySource,
    rank: int,
    out: Path,
    config: TrainerConfig = CONFIG,
    *,
    size: int = SIZE,
    told: Callable[[TrainStats], None] = lambda stats: None,
) -> dict[str, Any]:
    """Train; what came out, or what was raised and how long it took."""
    begin = time.monotonic()
    reports: list[TrainStats] = []

    def report(stats: TrainStats) -> None:
        reports.append(stats)
        told(stats)

    try:
        stats = train(
            fed,
            config,
            linear_problem(),
            world=World(rank=rank, size=size),
            out=out,
            seed=2,
            report=report,
        )
    except Exception as error:  # noqa: BLE001 - what is raised is the result
        text = f"{type(error).__name__}: {error}"
        return {"raised": text, "seconds": time.monotonic() - begin}
    validation = stats.validation
    assert validation is not None
    return {
        "train_step": stats.train_step,
        "drawn": len(fed.drawn),
        "distinct": len(set(fed.drawn)),
        "replayed": fed.replayed,
        "ended": fed.ended,
        "open": len(fed.open),
        "validated": sorted({each.validation.train_step for each in reports if each.validation}),
        "samples": validation.samples,
        "error": validation.error,
        "errors": asdict(validation.one_step),
        "learning_rate": stats.learning_rate,
        "loss": stats.loss,
        "notes": stats.notes,
    }


def changed(**changes: object) -> TrainerConfig:
    """``CONFIG`` but for some keys."""
    return TrainerConfig.model_validate({**CONFIG.model_dump(), **changes})


ACCUMULATING: Final = changed(accumulate=4, validate_every=3, log_every=1)
JUDGED: Final = changed(
    schedule={"kind": "plateau", "patience": 1, "drop": 0.5},
    early_stop={"patience": 3},
    validate_every=3,
)
GOING_ON: Final = changed(after_production={"kind": "steps", "steps": 7}, accumulate=3)
AVERAGED: Final = changed(ema=0.8, precision="bfloat16")
COMPILED: Final = changed(compile=True, accumulate=2)


def gradients(rank: int, *, shared: bool) -> dict[str, Any]:
    """Averaged gradients of a network, and the files they were exchanged through."""
    torch.manual_seed(4)
    model = build_model(CONFIG.model, num_inputs=3, field_shape=(2, 5, 7))
    with patch.object(exchange, "FOLDER", exchange.FOLDER if shared else "/nowhere"):
        network = LockStep(World(rank=rank, size=SIZE), torch.device("cpu")).wrap(model)
    torch.manual_seed(50 + rank)
    for _ in range(5):  # both turns of the rows, and DDP's rebuilt buckets
        model.zero_grad()
        network(torch.randn(BATCH, 3), torch.empty(BATCH, 0, 5, 7)).square().mean().backward()
    # Rank 0 has taken the name away before it enters its first sum.
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    flat = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    return {"values": flat.tolist(), "files": [line for line in maps if "headrace-" in line]}


def scenario_together(rank: int, folder: Path) -> dict[str, Any]:
    """Everything after which both ranks can go on."""
    results = {
        "uneven": run(source(rank), rank, folder / "uneven"),
        "even": run(source(rank, even=True), rank, folder / "even"),
        "nan": run(source(rank, NanOnRank1, even=True), rank, folder / "nan"),
        "broken": run(source(rank, BrokenOnRank1), rank, folder / "broken"),
    }
    results["own"] = gradients(rank, shared=False)
    results["shared"] = gradients(rank, shared=True)
    return results


def scenario_death(rank: int, folder: Path) -> dict[str, Any]:
    """Rank 1 dies without a word."""
    return run(source(rank), rank, folder / "death", told=die_on_rank_1)


def scenario_settings(rank: int, folder: Path) -> dict[str, Any]:
    """What a study may ask of the training loop."""
    results = {
        "accumulating": run(source(rank, even=True), rank, folder / "accumulating", ACCUMULATING),
        "uneven": run(source(rank), rank, folder / "uneven", ACCUMULATING),
        "going_on": run(source(rank), rank, folder / "going_on", GOING_ON),
        "averaged": run(source(rank, even=True), rank, folder / "averaged", AVERAGED),
    }
    # Rank 0 gets the same error every time, rank 1 one that falls for ever.
    errors = property(lambda result: 0.5 if rank == 0 else 1.0 / result.train_step)
    with patch.object(ValidationResult, "error", errors):
        results["judged"] = run(source(rank), rank, folder / "judged", JUDGED)
    return results


def scenario_compiled(rank: int, folder: Path) -> dict[str, Any]:
    """With torch.compile, and as it is."""
    plain = changed(compile=False, accumulate=2)
    return {
        "compiled": run(source(rank), rank, folder / "compiled", COMPILED),
        "plain": run(source(rank), rank, folder / "plain", plain),
    }


def main() -> None:
    """Join the other rank, run, write the result."""
    scenario, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/{scenario}-rendezvous",
        rank=rank,
        world_size=SIZE,
        timeout=timedelta(seconds=60),
    )
    scenarios: dict[str, Callable[[int, Path], dict[str, Any]]] = {
        "together": scenario_together,
        "death": scenario_death,
        "settings": scenario_settings,
        "compiled": scenario_compiled,
    }
    result = scenarios[scenario](rank, folder)
    (folder / f"{scenario}-{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    # gloo's threads may hold tensors of Python's while it ends, and then abort the process
    # (torch issue 179291); nothing is left to be done.
    os._exit(0)


if __name__ == "__main__":
    main()
