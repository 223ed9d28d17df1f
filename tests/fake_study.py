"""A study that never ran: a 24x40 heat ensemble at any moment, for the views' tests."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.stats.breakeven import Cost, breakeven
from pipeline.stats.stats import MemberCounts, Phase, ReservoirStats, StudyStats, Summary, Waiting
from pipeline.study.load import parse
from tests.errors import made_errors
from trainers.durable import append_line, json_text
from trainers.results import QueryTime, TrainStats, ValidationResult

MEMBERS = 35
VALIDATION_MEMBERS = 5
SAMPLES_PER_MEMBER = 41
CAPACITY = 400
SAMPLE_BYTES = 24 * 40 * 4
RANKS = 2
WALL_SECONDS = 36.0
STD = 90.0  # of the temperature
MEMBER_SECONDS = 0.8
QUERY = QueryTime(
    device="cpu", snapshots=SAMPLES_PER_MEMBER, alone_seconds=0.002, batch=24,
    batched_seconds=0.0004,
)  # fmt: skip


def validation_at(step: int) -> ValidationResult | None:
    """The error falls with the train step; the members differ by a factor of five."""
    measured = step // 100 * 100
    if measured == 0:
        return None
    mse = mse_at(measured)
    return ValidationResult(
        train_step=measured,
        samples=VALIDATION_MEMBERS * SAMPLES_PER_MEMBER,
        one_step=made_errors(
            list(members_at(measured).values()),
            mse=mse,
            relative_l2=math.sqrt(mse) / 300.0,
            nrmse=math.sqrt(mse) / STD,
        ),
        query=QUERY,
    )


def mse_at(measured: int) -> float:
    return 4000.0 * math.exp(-measured / 350.0) + 60.0 + 12.0 * math.sin(measured)


def members_at(measured: int) -> dict[int, float]:
    """The error of each validation member, as a share of the field's standard deviation."""
    return {
        MEMBERS + index: math.sqrt(mse_at(measured) * (0.4 + 0.3 * index)) / STD
        for index in range(VALIDATION_MEMBERS)
    }


def phase_at(elapsed: float) -> Phase:
    if elapsed < 3.0:
        return "starting"
    if elapsed < 6.0:
        return "filling"
    return "training" if elapsed < 30.0 else "draining" if elapsed < 35.5 else "done"


def reservoir_at(rank: int, elapsed: float) -> ReservoirStats:
    expected = MEMBERS * SAMPLES_PER_MEMBER // RANKS
    inserted = min(expected, int(max(0.0, elapsed - 3.0 - 0.3 * rank) * 28.0))
    drawn = int(max(0.0, min(elapsed, 35.0) - 6.0) * 190.0)
    evicted = max(0, inserted - CAPACITY)
    held = inserted - evicted
    unseen = max(0, min(held, int(120 + 60 * math.sin(elapsed / 2)) if drawn else held))
    if elapsed >= 30.0:
        held = unseen = max(0, int(held * (35.0 - elapsed) / 5.0))
    return ReservoirStats(
        rank=rank,
        capacity=CAPACITY,
        held=held,
        unseen=unseen,
        leased=min(held, 40),
        inserted=inserted,
        drawn=drawn,
        unique=inserted - unseen,
        evicted=evicted,
        due=unseen,
        duplicates=3 * rank,
        refused=1,
        pending=2 if elapsed > 20.0 else 0,
        bytes_received=inserted * SAMPLE_BYTES,
        solver_blocked_seconds=max(0.0, elapsed - 18.0) * 0.25,
        trainer_blocked_seconds=min(max(0.0, elapsed - 6.0), 10.0) * 0.3,
        validation_held=VALIDATION_MEMBERS * SAMPLES_PER_MEMBER // RANKS + 1 - rank,
        production_ended=elapsed >= 30.0,
    )


def rank_at(rank: int, elapsed: float) -> TrainStats:
    step = int(max(0.0, min(elapsed, 35.0) - 6.0) * 38.0)
    return TrainStats(
        rank=rank,
        train_step=step,
        loss=0.8 * math.exp(-step / 180.0) + 0.004 + 0.001 * math.sin(7 * step + rank) ** 2,
        learning_rate=1e-3,
        wait_seconds=min(max(0.0, elapsed - 6.0), 10.0) * 0.3,
        first_step_seconds=6.1 if step else None,
        validation=validation_at(step),
    )


def cost_at(elapsed: float) -> Cost:
    """Two solvers from the third second to the thirtieth, and two ranks."""
    return Cost(
        solver_seconds=2.0 * min(27.0, max(0.0, elapsed - 3.0)),
        trainer_seconds=RANKS * elapsed,
        member_seconds=MEMBER_SECONDS if elapsed > 5.0 else None,
    )


def stats_at(elapsed: float, **changes: Any) -> StudyStats:
    """The study ``elapsed`` seconds after its start, with any field overridden."""
    reservoirs = tuple(reservoir_at(rank, elapsed) for rank in range(RANKS))
    inserted = sum(one.inserted for one in reservoirs)
    drawn = sum(one.drawn for one in reservoirs)
    completed = inserted // SAMPLES_PER_MEMBER
    phase = phase_at(elapsed)
    producing = phase in ("filling", "training")
    waiting: Waiting = "trainer" if 6.0 <= elapsed < 16.0 else "solvers"
    figures: dict[str, Any] = {
        "elapsed_seconds": elapsed,
        "phase": phase,
        "members": MemberCounts(
            total=MEMBERS + VALIDATION_MEMBERS,
            waiting=max(0, MEMBERS + VALIDATION_MEMBERS - completed - 3),
            running=2 if producing else 0,
            completed=completed,
            failed=1 if elapsed > 12.0 else 0,
            retries=2 if elapsed > 12.0 else 0,
        ),
        "reservoirs": reservoirs if elapsed >= 1.0 else (),
        "ranks": tuple(rank_at(rank, elapsed) for rank in range(RANKS)) if elapsed >= 6.0 else (),
        "samples_expected": MEMBERS * SAMPLES_PER_MEMBER,
        "samples_inserted_per_second": 56.0 + 4.0 * math.sin(elapsed) if producing else 0.0,
        "samples_drawn_per_second": 380.0 if 6.0 <= elapsed < 35.0 else 0.0,
        "reuse_mean": drawn / inserted if inserted else 0.0,
        "waiting": waiting if producing else "nobody",
        "solver_wait_seconds": max(0.0, elapsed - 18.0) * 0.4,
        "remaining_seconds": WALL_SECONDS - elapsed if elapsed >= 8.0 else None,
        "cost": cost_at(elapsed),
    }
    result = validation_at(rank_at(0, elapsed).train_step)
    if result is not None:
        figures["breakeven"] = breakeven(figures["cost"], result.query)
    return StudyStats(**(figures | changes))


STUDY = f"""\
name: heat-24x40
seed: 7
solver: {{kind: heat, grid: [24, 40], steps: 41, dt: 0.01}}
parameters:
  initial: {{uniform: [100, 500]}}
  west: {{uniform: [100, 500]}}
  east: {{uniform: [100, 500]}}
  south: {{uniform: [100, 500]}}
  north: {{uniform: [100, 500]}}
ensemble: {{members: {MEMBERS}, validation: {VALIDATION_MEMBERS}, concurrent: 2}}
reservoir: {{capacity: {CAPACITY}, watermark: 100, max_reuse: 8}}
trainer:
  ranks: {RANKS}
  batch: 10
  task: {{kind: direct}}
  model: {{kind: mlp, hidden: [64, 64]}}
  optimizer: {{kind: adam, lr: 1.0e-3}}
"""


def write_run(out: Path, *, until: float = WALL_SECONDS) -> Path:
    """A run directory as a study leaves it, or as it is ``until`` seconds after its start."""
    out.mkdir(parents=True)
    (out / "study.yaml").write_text(STUDY)
    resolved = parse(yaml.safe_load(STUDY), folder=out).as_json()
    (out / "resolved.json").write_text(json.dumps(resolved))
    moments = [tick / 2 for tick in range(int(2 * until) + 1)]
    (out / "metrics.jsonl").write_text(
        "".join(json_text(stats_at(moment).as_json()) + "\n" for moment in moments)
    )
    for measured in range(100, stats_at(until).ranks[0].train_step + 1 if until > 6 else 0, 100):
        append_line(
            out / "validation.jsonl",
            {
                "train_step": measured, "fields": ["temperature"], "std": [STD], "rollout": {},
                "one_step": {name: [error] for name, error in members_at(measured).items()},
            },
        )  # fmt: skip
    names = ("initial", "west", "east", "south", "north")
    events: list[dict[str, Any]] = [
        {
            "event": "start",
            "at": 3.0 + index,
            "member": MEMBERS + index,
            "attempt": 1,
            "validation": True,
            "parameters": {
                name: 110.0 + 80.0 * ((index + place) % 5) for place, name in enumerate(names)
            },
        }
        for index in range(VALIDATION_MEMBERS)
    ] + [
        {"event": "start", "at": 11.0, "member": 17, "attempt": 1, "validation": False},
        {
            "event": "failed",
            "at": 11.9,
            "member": 17,
            "attempt": 1,
            "reason": "KSP <diverged> & so",
        },
    ]
    (out / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if until >= WALL_SECONDS:
        (out / "summary.json").write_text(json_text(summary().as_json()))
        for rank in range(RANKS):
            write_validation(out, rank, shape=(24, 40))
    return out


def summary() -> Summary:
    last = stats_at(WALL_SECONDS)
    inserted = sum(one.inserted for one in last.reservoirs)
    result = last.ranks[0].validation
    assert result is not None
    return Summary(
        name="heat-24x40",
        members_completed=39,
        members_failed=1,
        samples_inserted=inserted,
        samples_unique=inserted,
        samples_drawn=sum(one.drawn for one in last.reservoirs),
        reuse_mean=last.reuse_mean,
        train_steps=last.ranks[0].train_step,
        wall_seconds=WALL_SECONDS,
        first_step_seconds=6.1,
        trainer_wait_seconds=3.0,
        solver_wait_seconds=last.solver_wait_seconds,
        bytes_streamed=inserted * SAMPLE_BYTES,
        one_step=result.one_step,
        query=result.query,
        cost=last.cost,
        breakeven=last.breakeven,
    )


def write_validation(out: Path, rank: int, *, shape: tuple[int, ...], channels: int = 1) -> None:
    """Three members, whose prediction is the worse the higher their number; steps by rank."""
    rng = np.random.default_rng(rank)
    steps = np.arange(rank, SAMPLES_PER_MEMBER, RANKS)
    axes = np.meshgrid(*(np.linspace(0.0, 1.0, points) for points in shape), indexing="ij")
    truth, prediction, members = [], [], []
    for member in (MEMBERS, MEMBERS + 2, MEMBERS + 4):
        walls = np.random.default_rng(member).uniform(100.0, 500.0, 4)
        for step in steps:
            spread = math.sqrt(0.02 + 0.01 * step)
            across = axes[-1]
            field = 300.0 + sum(
                (wall - 300.0) * np.exp(-(((place) / spread) ** 2))
                for wall, place in zip(
                    walls, (across, 1 - across, axes[0], 1 - axes[0]), strict=True
                )
            )
            bumps = np.sin(9.0 * across + step) * np.cos(7.0 * axes[0])
            error = (2.0 + 3.0 * (member - MEMBERS)) * (bumps + 0.2 * rng.normal(size=shape))
            truth.append(np.stack([field] * channels))
            prediction.append(np.stack([field + error] * channels))
            members.append(member)
    folder = out / "validation"
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / f"rank{rank}.npz",
        members=np.array(members, dtype=np.int64),
        steps=np.tile(steps, 3),
        times=np.tile(0.01 * steps, 3),
        truth=np.array(truth, dtype=np.float32),
        prediction=np.array(prediction, dtype=np.float32),
    )
