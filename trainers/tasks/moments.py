"""Statistics of samples, for normalisation: exact, in bounded memory.

1. Whatever the blocks, the moments equal those of all values at once, to rounding.
2. No more than a block is copied at a time.
3. What is spread evenly over many samples depends on their order alone.
"""

from functools import reduce
from typing import Final

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
    times = inputs[:, inputs.shape[1] - fields.shape[1] :]
    size = max(1, _BLOCK_BYTES // max(1, fields[:1].nbytes))
    blocks = (slots[start : start + size] for start in range(0, max(1, slots.size), size))
    return reduce(Moments.merge, (_of_block(fields[rows], times[rows]) for rows in blocks))


def _of_block(
    fields: Float[np.ndarray, " slot window channel *grid"],
    times: Float64[np.ndarray, " slot window"],
) -> Moments:
    by_channel = np.moveaxis(fields.astype(np.float64), 2, 0)
    steps = np.square(np.diff(by_channel, axis=2)).reshape(len(by_channel), -1)
    values = by_channel.reshape(len(by_channel), -1)
    mean = values.sum(axis=1) / max(1, values.shape[1])
    deviation = values - mean[:, None]
    return Moments(
        count=len(fields),
        field_count=values.shape[1],
        field_mean=mean,
        field_m2=np.einsum("rv,rv->r", deviation, deviation),
        step_count=steps.shape[1],
        step_m2=steps.sum(axis=1),
        time_low=float(times.min(initial=np.inf)),
        time_high=float(times.max(initial=-np.inf)),
    )
