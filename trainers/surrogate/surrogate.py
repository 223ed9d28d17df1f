"""A trained network as something to call, in physical units, with NumPy arrays.

Invariants (``tests/unit/trainers/surrogate/test_export.py``):

1. A surrogate that was read back predicts what the trained network predicts, to the last bit.
2. Outside of what was trained on it warns, raises or says nothing, as it was asked to; a message
   says which input, which value and which range.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from numpy.typing import ArrayLike
from safetensors.torch import load_file
from torch import Tensor, nn

from trainers.base import Input, Problem
from trainers.config import TrainerConfig
from trainers.tasks.base import Task
from trainers.tasks.build import build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization
from trainers.tasks.stepping import Stepping

CHUNK_BYTES: Final = 64 * 2**20
OUTSIDE: Final = ("warn", "raise", "ignore")


@final
class Surrogate:
    """A trained network, called in physical units.

    Attributes:
        network: Of normalised numbers; on the CPU, in evaluation mode.
        task: How it is used.
        problem: Names, units, shapes and trained ranges.
        card: Everything that was exported with it, errors included.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        *,
        problem: Problem,
        card: dict[str, Any],
        outside: str = "warn",
    ) -> None:
        if outside not in OUTSIDE:
            raise ValueError(f"outside={outside!r}: choose one of {list(OUTSIDE)}")
        self.network: Final = network.eval()
        self.task: Final = task
        self.problem: Final = problem
        self.card: Final = card
        self._outside = outside

    @classmethod
    def read(cls, folder: Path, card: dict[str, Any], *, outside: str = "warn") -> Self:
        """Rebuild the network that a card describes, with its weights."""
        problem = _problem(card["problem"])
        config = TrainerConfig.model_validate(card["trainer"])
        normalization = Normalization.from_json(card["normalization"])
        task = build_task(config, problem, normalization, torch.device("cpu"))
        network = task.network(config.model)
        network.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(network, task, problem=problem, card=card, outside=outside)

    def __call__(
        self,
        parameters: Mapping[str, ArrayLike] | ArrayLike,
        time: ArrayLike,
        fields: Mapping[str, ArrayLike] | None = None,
    ) -> Float32[np.ndarray, " *leading_channel_grid"]:
        """Predict fields, in their units.

        Args:
            parameters: By name, or an array with the parameters along its last axis, in the order
                of ``problem.learnt``. Each may have leading axes; they are broadcast.
            time: In seconds; broadcast against the parameters.
            fields: Each of ``problem.input_fields`` by name, ``(*leading, *grid)``; leading axes
                are broadcast against those of the parameters.

        Returns:
            ``(*leading, channel, *grid)``.

        Raises:
            ValueError: A parameter or field is missing, unknown, or has a wrong shape; or it is
                outside of what was trained on, where that was to raise.
            TypeError: The surrogate goes from snapshots to later ones.
        """
        task = self.task
        if not isinstance(task, Direct):
            raise TypeError("this surrogate goes from snapshots to later ones: call rollout(...)")
        inputs, given = self._inputs(parameters, time), self._given(fields or {})
        axes = given.ndim - len(self.problem.given_shape)
        leading = np.broadcast_shapes(inputs.shape[:-1], given.shape[:axes])
        self._check_ranges(inputs)
        inputs = np.broadcast_to(inputs, (*leading, inputs.shape[-1]))
        rows = torch.from_numpy(inputs.reshape(-1, inputs.shape[-1]).astype(np.float32))
        given = np.broadcast_to(given, (*leading, *self.problem.given_shape))
        given = given.reshape(len(rows), 1, *self.problem.given_shape)
        predicted = np.empty((len(rows), *self.problem.field_shape), np.float32)
        step = max(1, CHUNK_BYTES // predicted[:1].nbytes) if len(rows) else 1
        with torch.inference_mode():
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                around = torch.from_numpy(given[part].astype(np.float32))
                predicted[part] = task.predict(self.network, rows[part], around)[:, 0]
        return predicted.reshape(*leading, *self.problem.field_shape)

    def rollout(
        self,
        parameters: Mapping[str, ArrayLike] | ArrayLike,
        history: ArrayLike,
        *,
        steps: int,
        time: ArrayLike = 0.0,
        fields: Mapping[str, ArrayLike] | None = None,
    ) -> Float32[np.ndarray, " *leading_steps_channel_grid"]:
        """Predict the snapshots after ``history``, each from those before it.

        Args:
            parameters: As for a call; leading axes are broadcast against those of ``history``.
            history: The first snapshots, ``(*leading, snapshot, channel, *grid)``, in the fields'
                units, as many as the task takes and ``problem.time_step`` seconds apart.
            steps: Snapshots to predict.
            time: Of the last snapshot of the history, in seconds.
            fields: As for a call.

        Returns:
            ``(*leading, steps, channel, *grid)``.

        Raises:
            ValueError: An argument is missing, unknown, or has a wrong shape; or it is outside of
                what was trained on, where that was to raise.
            TypeError: The surrogate maps times to fields.
        """
        task, shape = self.task, self.problem.field_shape
        if not isinstance(task, Stepping):
            raise TypeError("this surrogate maps times to fields: call it with a time")
        start = np.asarray(history, np.float32)
        wanted = (task.history, *shape)
        if start.shape[start.ndim - len(wanted) :] != wanted:
            raise ValueError(
                f"history has the shape {start.shape}, but its last axes must be (snapshot, "
                f"channel, *grid) = {wanted}"
            )
        inputs, given = self._inputs(parameters, time), self._given(fields or {})
        leading = np.broadcast_shapes(
            inputs.shape[:-1],
            start.shape[: start.ndim - len(wanted)],
            given.shape[: given.ndim - len(shape)],
        )

        end = inputs.copy()
        end[..., -1] += steps * self.problem.time_step
        self._check_ranges(np.stack([inputs, end]))

        def rows(array: np.ndarray, inner: tuple[int, ...]) -> Tensor:
            whole = np.broadcast_to(array, (*leading, *inner)).reshape(math.prod(leading), *inner)
            return torch.from_numpy(whole.astype(np.float32))

        numbers = rows(inputs, (inputs.shape[-1],))
        with torch.inference_mode():
            predicted = task.rollout(
                self.network,
                numbers[:, :-1],
                numbers[:, -1],
                rows(start, wanted),
                rows(given, self.problem.given_shape),
                steps=steps,
            )
        return predicted.numpy().reshape(*leading, steps, *shape)

    def _given(self, fields: Mapping[str, ArrayLike]) -> Float[np.ndarray, " *leading_given_grid"]:
        names, grid = self.problem.input_fields, self.problem.shape
        if set(fields) != set(names):
            raise ValueError(f"fields={sorted(fields)}: give exactly {list(names)}")
        arrays = [np.asarray(fields[name]) for name in names]
        for name, array in zip(names, arrays, strict=True):
            if array.shape[array.ndim - len(grid) :] != grid:
                raise ValueError(
                    f"field {name!r} has the shape {array.shape}, but its last axes must be the "
                    f"grid {grid}"
                )
        if not arrays:
            return np.empty(self.problem.given_shape, np.float32)
        return np.stack(np.broadcast_arrays(*arrays), axis=-1 - len(grid))

    def _inputs(
        self, parameters: Mapping[str, ArrayLike] | ArrayLike, time: ArrayLike
    ) -> Float64[np.ndarray, " *leading inputs"]:
        names = [each.name for each in self.problem.learnt]
        if isinstance(parameters, Mapping):
            missing = [name for name in names if name not in parameters]
            unknown = [name for name in parameters if name not in names]
            if missing or unknown:
                raise ValueError(
                    f"parameters missing: {missing}, unknown: {unknown}. Give exactly {names}"
                )
            columns = [np.asarray(parameters[name], np.float64) for name in names]
        else:
            array = np.asarray(parameters, np.float64)
            if array.ndim == 0 or array.shape[-1] != len(names):
                raise ValueError(
                    f"parameters have the shape {array.shape}, but the last axis must hold "
                    f"{len(names)}: {names}"
                )
            columns = list(np.moveaxis(array, -1, 0))
        learnt = dict(zip(names, columns, strict=True))
        seeds = {each.name: np.asarray(each.low) for each in self.problem.parameters}
        columns = [(seeds | learnt)[each.name] for each in self.problem.parameters]
        columns.append(np.asarray(time, np.float64))
        return np.stack(np.broadcast_arrays(*columns), axis=-1)

    def _check_ranges(self, inputs: Float64[np.ndarray, " *leading inputs"]) -> None:
        """Warn of the inputs that were not trained on, or raise, as was asked for."""
        if self._outside == "ignore":
            return
        for each, values in zip(
            (*self.problem.parameters, self.problem.time), np.moveaxis(inputs, -1, 0), strict=True
        ):
            margin = 1e-6 * (each.high - each.low)
            outside = values[~((values >= each.low - margin) & (values <= each.high + margin))]
            if outside.size:
                message = (
                    f"{each.name}={outside.flat[0]:g} {each.unit} is outside of what was trained "
                    f"on, [{each.low:g}, {each.high:g}] {each.unit}: the prediction is an "
                    "extrapolation. Stay inside, or train on a wider range"
                )
                if self._outside == "raise":
                    raise ValueError(message)
                warnings.warn(message, stacklevel=3)


def _problem(tree: dict[str, Any]) -> Problem:
    return Problem(
        field_names=tuple(tree["field_names"]),
        field_units=tuple(tree["field_units"]),
        shape=tuple(tree["shape"]),
        spacing=tuple(tree["spacing"]),
        parameters=tuple(Input(**each) for each in tree["parameters"]),
        time=Input(**tree["time"]),
        snapshots=tree["snapshots"],
        window=tree["window"],
        time_step=tree["time_step"],
        step_every=tree["step_every"],
        input_fields=tuple(tree["input_fields"]),
    )
