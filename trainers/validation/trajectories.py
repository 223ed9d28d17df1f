"""Puts a member's overlapping samples together again, as the trajectory that they were cut from.

1. Every snapshot that a sample holds stands in its place; ``known`` says which are there.
2. A trajectory starts at the member's first sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from trainers.base import Held
from trainers.tasks.stepping import Stepping

# Member, solver step, time [s], truth, prediction.
Row = tuple[int, int, float, Float32[np.ndarray, " channel *grid"], Float32[np.ndarray, " _ *grid"]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trajectory:
    """One validation member.

    Attributes:
        member: Its number.
        parameters: All of them, in their units.
        steps: Solver step of each snapshot.
        times: Of each snapshot [s].
        fields: All channels, in their units.
        known: Which snapshots are there.
    """

    member: int
    parameters: Float64[np.ndarray, " parameters"]
    steps: Int64[np.ndarray, " snapshot"]
    times: Float64[np.ndarray, " snapshot"]
    fields: Float[np.ndarray, " snapshot channel *grid"]
    known: Bool[np.ndarray, " snapshot"]

    def rows(
        self, prediction: Float32[np.ndarray, " step channel *grid"], history: int
    ) -> list[Row]:
        """Every predicted snapshot beside the truth, where that is known."""
        return [
            (
                self.member,
                int(self.steps[place]),
                float(self.times[place]),
                self.fields[place, : prediction.shape[1]].astype(np.float32),
                prediction[place - history],
            )
            for place in range(history, len(self.fields))
            if self.known[place]
        ]


def trajectories(held: Held, task: Stepping, members: Sequence[int]) -> list[Trajectory]:
    """The members among ``members`` of which this rank holds enough to start and to compare."""
    found = []
    for member in members:
        rows = np.flatnonzero(held.members == member)
        rows = rows[np.argsort(held.steps[rows], kind="stable")]
        made = _trajectory(held, task, member, rows)
        if len(made.fields) > task.history and made.known[: task.history].all():
            found.append(made)
    return found


def _trajectory(
    held: Held, task: Stepping, member: int, rows: Int64[np.ndarray, " row"]
) -> Trajectory:
    every, window = task.problem.step_every, held.fields.shape[1]
    parameters = len(task.problem.parameters)
    first = held.steps[rows[0]]
    places = (held.steps[rows] - first) // every
    length = int(places[-1]) + window
    fields = np.zeros((length, *held.fields.shape[2:]), held.fields.dtype)
    times = np.zeros(length)
    known = np.zeros(length, np.bool_)
    for row, place in zip(rows, places, strict=True):
        fields[place : place + window] = held.fields[row]
        times[place : place + window] = held.inputs[row, parameters:]
        known[place : place + window] = True
    return Trajectory(
        member=member,
        parameters=held.inputs[rows[0], :parameters],
        steps=first + every * np.arange(length),
        times=times,
        fields=fields,
        known=known,
    )
