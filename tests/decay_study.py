"""A tiny study of fields that decay, trained without Ray: for what comes after the training."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from tests.array_source import GRID, ArraySource
from trainers.base import Held, Input, Problem
from trainers.config import TrainerConfig
from trainers.loop.lockstep import World
from trainers.trainer import train

SNAPSHOTS, TIME_STEP = 8, 0.125  # s
MEMBERS, HELD_OUT = 24, (40, 41, 42)
Trajectory = Float32[np.ndarray, " snapshot channel *grid"]


def problem_of(config: TrainerConfig, *, operator: bool = False) -> Problem:
    """Temperature that decays at a rate; with ``operator`` the initial state is an input field."""
    fields = ("temperature", "initial") if operator else ("temperature",)
    return Problem(
        field_names=fields,
        field_units=("K",) * len(fields),
        shape=GRID,
        spacing=(0.1, 0.2),
        parameters=(
            Input(name="seed", unit="1", low=0.0, high=1e6, learnt=False),
            Input(name="rate", unit="1/s", low=0.5, high=2.0),
        ),
        time=Input(name="time", unit="s", low=0.0, high=(SNAPSHOTS - 1) * TIME_STEP),
        snapshots=SNAPSHOTS,
        window=config.task.window,
        time_step=TIME_STEP,
        input_fields=fields[1:],
    )


def trajectory(rate: float, seed: int, *, operator: bool = False) -> Trajectory:
    """All snapshots of one member."""
    start = np.random.default_rng(seed).uniform(250.0, 350.0, GRID)
    times = TIME_STEP * np.arange(SNAPSHOTS)
    fields = start * np.exp(-rate * times)[:, None, None]
    around = [np.broadcast_to(start, fields.shape)] if operator else []
    return np.stack([fields, *around], axis=1).astype(np.float32)


def windows(
    member: int, window: int, *, operator: bool = False
) -> tuple[
    Float32[np.ndarray, " sample window channel *grid"], Float64[np.ndarray, " sample inputs"]
]:
    """The samples of a member: every window of consecutive snapshots."""
    rate = rate_of(member)
    whole = trajectory(rate, member, operator=operator)
    firsts = range(SNAPSHOTS - window + 1)
    fields = np.stack([whole[first : first + window] for first in firsts])
    times = [[(first + place) * TIME_STEP for place in range(window)] for first in firsts]
    inputs = np.array([[member, rate, *each] for each in times])
    return fields, inputs


def rate_of(member: int) -> float:
    """The parameter of a member."""
    return 0.5 + 1.5 * (member * 0.618034 % 1.0)


def study(out: Path, task: dict[str, Any], *, operator: bool = False, steps: int = 40) -> Problem:
    """Train for a few steps and leave ``model/`` and ``validation/`` in ``out``."""
    config = TrainerConfig.model_validate(
        {"batch": 6, "task": task, "model": {"kind": "mlp", "hidden": [24, 24]}}
    )
    problem, window = problem_of(config, operator=operator), config.task.window
    parts = [windows(member, window, operator=operator) for member in range(MEMBERS)]
    fields, inputs = (np.concatenate(each) for each in zip(*parts, strict=True))
    held = [windows(member, window, operator=operator) for member in HELD_OUT]
    per_member = len(held[0][0])
    order = np.random.default_rng(5).integers(0, len(fields), (steps, config.batch))
    source = ArraySource(
        fields,
        inputs,
        order,
        held=Held(
            fields=np.concatenate([each for each, _ in held]),
            inputs=np.concatenate([each for _, each in held]),
            members=np.repeat(np.array(HELD_OUT), per_member),
            steps=np.tile(np.arange(per_member), len(HELD_OUT)),
            complete=True,
        ),
    )
    train(source, config, problem, world=World(), out=out, seed=4)
    return problem
