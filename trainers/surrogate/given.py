"""What a surrogate is given, as tensors: numbers, arrays, tensors, and lists of them.

1. What comes from a tensor keeps its gradient, and may be mapped over by ``torch.func``.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from trainers.base import Input
from trainers.surrogate.labels import Numbers


def as_array(values: Numbers) -> Numbers:
    """A tensor, where there is one among the values; else an array."""
    if isinstance(values, list | tuple) and any(isinstance(each, Tensor) for each in values):
        return torch.stack([torch.as_tensor(each) for each in values])
    return values if isinstance(values, Tensor) else np.asarray(values)


def check_axes(values: Numbers, axes: tuple[int, ...], name: str, meaning: str) -> None:
    """Make sure that an array or tensor ends with these axes.

    Raises:
        ValueError: It does not.
    """
    shape = tuple(values.shape)
    if shape[max(0, len(shape) - len(axes)) :] != axes:
        raise ValueError(
            f"{name} has the shape {shape}, but its last axes must be {meaning} {axes}"
        )


def as_double(values: Numbers) -> Float64[Tensor, " *shape"]:
    """On the CPU, in float64."""
    if isinstance(values, Tensor):
        return values.to("cpu", torch.float64)
    return torch.from_numpy(np.array(values, np.float64, order="C"))


def as_single(values: Numbers) -> Float32[Tensor, " *shape"]:
    """On the CPU, in float32."""
    if isinstance(values, Tensor):
        return values.to("cpu", torch.float32)
    return torch.from_numpy(np.array(values, np.float32, order="C"))


def stack(tensors: Sequence[Tensor], axis: int) -> Float[Tensor, " *shape"]:
    """Beside each other on a new axis, broadcast."""
    return torch.stack(torch.broadcast_tensors(*tensors), axis)  # type: ignore[no-untyped-call]


def undo_rounding(values: Float64[Tensor, " *shape"], of: Input) -> Float64[Tensor, " *shape"]:
    """An end of a range in place of what float32 makes of it, where that lies outside."""
    for end in {of.low, of.high}:
        with np.errstate(over="ignore"):
            rounded = float(np.float32(end))
        if math.isfinite(rounded) and not of.low <= rounded <= of.high:
            values = values + (end - rounded) * (values == rounded).double()
    return values


def values_of(numbers: Float64[Tensor, " *shape"]) -> Float64[np.ndarray, " *other"]:
    """What a tensor holds, also within ``torch.func``, where ``numpy()`` fails."""
    while torch._C._functorch.is_functorch_wrapped_tensor(numbers):
        numbers = torch._C._functorch.get_unwrapped(numbers)
    return np.array(numbers.tolist(), np.float64)
