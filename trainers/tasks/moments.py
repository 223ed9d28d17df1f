"""Statistics of samples, for normalisation: exact, in bounded memory.

1. Whatever the blocks, the moments equal those of all values at once, to rounding.
2. No more than a block is copied at a time.
3. What is spread evenly over many samples depends on their order alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from jaxtyping import Float, Float64, Int64

from trainers.base import Held, Moments

_MOST_BYTES: Final = 256 << 20  # field bytes that are looked at: enough for a mean, and quick
_BLOCK_BYTES: Final = 16 << 20  # field bytes turned into float64 at a time


def moments_of_members(held: Held) -> Moments:
    """Statistics of what is held, whatever the order in which it came."""
    order = np.lexsort((held.steps, held.members))
    return moments_of(held.fields, held.inputs, spread_evenly(order, held.fields[:1].nbytes))


def spread_evenly(
    slots: Int64[np.ndarray, " held"], sample_bytes: int
) -> Int64[np.ndarray, " part"]:
    """Every n-th slot, so many that their samples are no more than is looked at."""
    return slots[:: max(1, -(-slots.size * sample_bytes // _MOST_BYTES))]


def moments_of(
    fields: Float[np.ndarray, " slot window channel *grid"],
    inputs: Float64[np.ndarray, " slot inputs"],
    slots: Int64[np.ndarray, " held"],
) -> Moments:
    """Count, mean and summed squared deviation over some slots, in float64; changes and times, too.

    Blocks of bounded size are reduced by themselves and merged (Chan, Golub, LeVeque 1979), so a
    large reservoir is neither copied nor summed with cancellation. No slots give zeros.
    """
    channels, window = fields.shape[2], fields.shape[1]
    total_fields = _Sums.zero(channels)
    times = inputs[slots, inputs.shape[1] - window :]
    step_m2 = np.zeros(channels)
    for rows in _blocks(slots, fields[:1].nbytes):
        block = fields[rows].astype(np.float64)
        by_channel = np.moveaxis(block, 2, 0).reshape(channels, -1)
        total_fields = total_fields.merge(_Sums.of(by_channel))
        changes = np.diff(block, axis=1)
        step_m2 += np.square(np.moveaxis(changes, 2, 0)).reshape(channels, -1).sum(axis=1)
    return Moments(
        count=int(slots.size),
        field_count=total_fields.count,
        field_mean=total_fields.mean,
        field_m2=total_fields.m2,
        step_count=total_fields.count // window * (window - 1),
        step_m2=step_m2,
        time_low=float(times.min(initial=np.inf)),
        time_high=float(times.max(initial=-np.inf)),
    )


def _blocks(
    slots: Int64[np.ndarray, " held"], sample_bytes: int
) -> Iterator[Int64[np.ndarray, " block"]]:
    size = max(1, _BLOCK_BYTES // max(sample_bytes, 1))
    for start in range(0, slots.size, size):
        yield slots[start : start + size]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Moments of several rows of numbers."""

    count: int
    mean: Float64[np.ndarray, " row"]
    m2: Float64[np.ndarray, " row"]

    @classmethod
    def zero(cls, rows: int) -> Self:
        return cls(0, np.zeros(rows), np.zeros(rows))

    @classmethod
    def of(cls, values: Float64[np.ndarray, " row value"]) -> Self:
        mean = values.mean(axis=1)
        deviation = values - mean[:, None]
        return cls(values.shape[1], mean, np.einsum("rv,rv->r", deviation, deviation))

    def merge(self, other: Self) -> Self:
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        m2 = self.m2 + other.m2 + shift**2 * (self.count * other.count / count)
        return type(self)(count, mean, m2)
