"""A batch source over arrays that a test made, which checks that its caller keeps the contract."""

import threading

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from trainers.base import Held, Input, Lease, Moments, Problem

GRID = (5, 7)


class ArraySource:
    """Hands out prepared batches, at most ``per_lease`` at a time."""

    def __init__(
        self,
        fields: Float32[np.ndarray, " slot window channel *grid"],
        inputs: Float64[np.ndarray, " slot inputs"],
        batches: Int64[np.ndarray, " batches batch"],
        *,
        held: Held,
        per_lease: int = 5,
        seed: int = 0,
    ) -> None:
        self.fields, self.inputs = fields, inputs
        self.fields.flags.writeable = False  # as mapped slots are
        self.drawn: list[int] = []
        self.replayed = 0
        self.open: list[tuple[int, int]] = []
        self.ended = 0  # batches given back
        self._batches, self._per_lease, self._held = batches, per_lease, held
        self._next, self._position = 0, 0
        self._rng = np.random.default_rng(seed)
        self._thread: int | None = None

    def wait_for_watermark(self, timeout: float) -> bool:
        return True

    def moments(self) -> Moments:
        fields = np.moveaxis(self.fields, 2, 0).reshape(self.fields.shape[2], -1)
        steps = np.diff(self.fields.astype(np.float64), axis=1)
        changes = np.moveaxis(steps, 2, 0).reshape(self.fields.shape[2], -1)
        return Moments(
            count=len(self.inputs),
            field_count=fields.shape[1],
            field_mean=fields.mean(1, dtype=np.float64),
            field_m2=fields.var(1, dtype=np.float64) * fields.shape[1],
            step_count=changes[0].size,
            step_m2=(changes**2).sum(1),
            time_low=float(self.inputs[:, 2:].min()),
            time_high=float(self.inputs[:, 2:].max()),
        )

    def lease(self, batches: int, *, timeout: float) -> Lease:
        self._one_thread()
        end = min(len(self._batches), self._position + min(batches, self._per_lease))
        indices = self._batches[self._position : end]
        self._position = end
        self.drawn += indices.reshape(-1).tolist()
        return self._lease(indices, finished=end == len(self._batches))

    def replay(self, batches: int) -> Lease:
        self._one_thread()
        assert self._position == len(self._batches), "replay before the stream has finished"
        self.replayed += batches
        shape = (batches, self._batches.shape[1])
        return self._lease(self._rng.integers(0, len(self.inputs), shape), finished=True)

    def give_back(self, lease_id: int) -> None:
        self._one_thread()
        expected, batches = self.open.pop(0)
        assert lease_id == expected, "not the oldest lease"
        self.ended += batches

    def held_validation(self) -> Held:
        return self._held

    def _lease(self, indices: Int64[np.ndarray, " batches batch"], *, finished: bool) -> Lease:
        self._next += 1
        if len(indices):
            self.open.append((self._next, len(indices)))
        return Lease(id=self._next, indices=indices, finished=finished)

    def _one_thread(self) -> None:
        self._thread = self._thread or threading.get_ident()
        assert self._thread == threading.get_ident(), "lease, replay, give_back: one thread"


def nothing_given(samples: int, *, window: int = 1) -> torch.Tensor:
    """The input fields of ``linear_problem``, of which there are none."""
    return torch.empty(samples, window, 0, *GRID)


def linear_problem(*, window: int = 1) -> Problem:
    """Two channels that depend linearly on two parameters and time."""
    return Problem(
        field_names=("temperature", "pressure"),
        field_units=("K", "Pa"),
        shape=GRID,
        spacing=(0.1, 0.2),
        parameters=(
            Input(name="west", unit="K", low=100.0, high=500.0),
            Input(name="load", unit="Pa", low=-2.0, high=3.0),
        ),
        time=Input(name="time", unit="s", low=0.0, high=0.5),
        window=window,
    )


def linear_samples(
    rng: np.random.Generator, count: int, *, window: int = 1
) -> tuple[
    Float32[np.ndarray, " sample window channel *grid"], Float64[np.ndarray, " sample inputs"]
]:
    """Samples of ``linear_problem``: fields, and parameters with the times of the window."""
    west, load = rng.uniform(100, 500, count), rng.uniform(-2, 3, count)
    times = rng.uniform(0, 0.4, count)[:, None] + np.linspace(0, 0.1, window)
    y, x = np.meshgrid(np.linspace(0, 1, GRID[0]), np.linspace(0, 1, GRID[1]), indexing="ij")
    ramp = times[:, :, None, None]
    fields = np.stack(
        [
            west[:, None, None, None] * (1 + x) + 300 * ramp * y,
            load[:, None, None, None] * (x - y) + 4 * ramp,
        ],
        axis=2,
    )
    inputs = np.concatenate([west[:, None], load[:, None], times], axis=1)
    return fields.astype(np.float32), inputs


def linear_held(
    rng: np.random.Generator, count: int, *, complete: bool = True, window: int = 1
) -> Held:
    """Validation samples, spread over the members 40, 41 and 42."""
    fields, inputs = linear_samples(rng, count, window=window)
    return Held(
        fields=fields,
        inputs=inputs,
        members=np.arange(40, 40 + count, dtype=np.int64) % 3 + 40,
        steps=np.arange(count, dtype=np.int64),
        complete=complete,
    )


def linear_source(
    *, samples: int = 230, batch: int = 6, batches: int = 300, held: int = 20, seed: int = 3
) -> ArraySource:
    """Every sample is drawn at least once where there are enough batches."""
    rng = np.random.default_rng(seed)
    fields, inputs = linear_samples(rng, samples)
    rounds = -(-batches * batch // samples)
    order = np.concatenate([rng.permutation(samples) for _ in range(rounds)])
    return ArraySource(
        fields,
        inputs,
        order[: batches * batch].reshape(batches, batch),
        held=linear_held(rng, held),
        seed=seed,
    )
