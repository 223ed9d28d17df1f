"""A trained network as something to call, in physical units, with NumPy arrays or with tensors.

Invariants (``tests/unit/trainers/surrogate/test_export.py``):

1. A surrogate that was read back predicts what the trained network predicts, to the last bit.
2. Outside of what was trained on it warns, raises or says nothing, as it was asked to; a message
   says which input, which value and which range.
3. Given a tensor it answers with one, which can be differentiated and mapped over with torch.func.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from safetensors.torch import load_file
from torch import Tensor, nn

from trainers.base import Input, Problem
from trainers.config import TrainerConfig
from trainers.surrogate.given import (
    as_array,
    as_double,
    as_single,
    check_axes,
    stack,
    undo_rounding,
    values_of,
)
from trainers.surrogate.labels import Numbers, by_label
from trainers.tasks.build import Task, build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization
from trainers.tasks.stepping import Stepping

CHUNK_BYTES: Final = 64 * 2**20
OUTSIDE: Final = ("warn", "raise", "ignore")
Prediction = Any  # a tensor where one was given, else an array; float32


class Physical(nn.Module):
    """A network with its normalisation, of tensors in physical units."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self._task, self._problem = task, task.problem

    def forward(
        self,
        parameters: Float[Tensor, " batch learnt"],
        time: Float[Tensor, " batch"],
        history: Float[Tensor, " batch snapshot channel *grid"] | None = None,
        fields: Float[Tensor, " batch given *grid"] | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Fields in their units; of a rollout ``steps`` snapshots, by default those of one call."""
        task, everything = self._task, self._all(parameters.double())
        # ``shape[0]``, never ``len``: an export would take that for a fixed number.
        shape = (parameters.shape[0], *self._problem.given_shape)
        given = everything.new_zeros(shape) if fields is None else fields
        if isinstance(task, Stepping):
            assert history is not None
            steps = task.ahead if steps is None else steps
            return task.rollout(
                self.network, everything, time.double(), history, given, steps=steps
            )
        inputs = torch.cat([everything, time.double()[:, None]], dim=1)
        return task.predict(self.network, inputs, given[:, None])[:, 0]

    def _all(self, parameters: Tensor) -> Tensor:
        """With a column for each parameter that is not learnt, which the network does not see."""
        columns, place = [], 0
        for each in self._problem.parameters:
            if each.learnt:
                columns.append(parameters[:, place : place + 1])
                place += 1
            else:
                columns.append(parameters.new_full((parameters.shape[0], 1), each.low))
        return torch.cat(columns, dim=1) if columns else parameters


@final
class Surrogate:
    """A trained network, called in physical units.

    Attributes:
        network: The network of normalised numbers; on the CPU, in evaluation mode, not to be
            trained on.
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
        self.network: Final = network.eval().requires_grad_(False)
        self.task: Final = task
        self.problem: Final = problem
        self.card: Final = card
        self._outside = outside
        self._physical = Physical(self.network, task)

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
        time: ArrayLike | None = None,
        fields: Mapping[str, ArrayLike] | None = None,
    ) -> Prediction:
        """Predict fields, in their units.

        Args:
            parameters: By name: a mapping, a data frame, a series, a named tuple, an array with a
                labelled axis. Or an array with the parameters along its last axis, in the order of
                ``problem.learnt``. Each may have leading axes; they are broadcast.
            time: In seconds; broadcast against the parameters. A steady problem needs none.
            fields: Each of ``problem.input_fields`` by name, ``(*leading, *grid)``; leading axes
                are broadcast against those of the parameters.

        Returns:
            ``(*leading, channel, *grid)`` in float32: a tensor, which can be differentiated, where
            any of the arguments is one; else an array.

        Raises:
            ValueError: A parameter or field is missing, unknown, or has a wrong shape; or it is
                outside of what was trained on, where that was to raise.
            TypeError: The surrogate goes from snapshots to later ones.
        """
        if not isinstance(self.task, Direct):
            raise TypeError("this surrogate goes from snapshots to later ones: call rollout(...)")
        seen = self.problem.time
        if time is None and seen.low < seen.high:
            raise ValueError(
                f"time is missing: give one in [{seen.low:g}, {seen.high:g}] {seen.unit}"
            )
        return self._predict(parameters, seen.low if time is None else time, fields or {})

    def rollout(
        self,
        parameters: Mapping[str, ArrayLike] | ArrayLike,
        history: ArrayLike,
        *,
        steps: int,
        time: ArrayLike = 0.0,
        fields: Mapping[str, ArrayLike] | None = None,
    ) -> Prediction:
        """Predict the snapshots after ``history``, each from those before it.

        Args:
            parameters: As for a call; leading axes are broadcast against those of ``history``.
            history: The first snapshots, ``(*leading, snapshot, channel, *grid)``, in the fields'
                units, as many as the task takes and ``problem.time_step`` seconds apart.
            steps: Snapshots to predict.
            time: Time of the last snapshot of the history, in seconds.
            fields: As for a call.

        Returns:
            ``(*leading, steps, channel, *grid)``, an array or a tensor as for a call.

        Raises:
            ValueError: An argument is missing, unknown, or has a wrong shape; or it is outside of
                what was trained on, where that was to raise.
            TypeError: The surrogate maps times to fields.
        """
        if not isinstance(self.task, Stepping):
            raise TypeError("this surrogate maps times to fields: call it with a time")
        start, axes = as_array(history), (self.task.history, *self.problem.field_shape)
        check_axes(start, axes, "history", "(snapshot, channel, *grid) =")
        return self._predict(parameters, time, fields or {}, start, steps)

    def _predict(
        self,
        parameters: Numbers,
        time: Numbers,
        fields: Mapping[str, Numbers],
        history: Numbers = None,
        steps: int | None = None,
    ) -> Prediction:
        columns, given = [*self._columns(parameters), time], self._given(fields)
        ranges, axes = (*self.problem.learnt, self.problem.time), len(self.problem.shape) + 1
        native = any(isinstance(each, Tensor) for each in (*columns, *given, history))
        with nullcontext() if native else torch.inference_mode():
            numbers = [
                undo_rounding(as_double(column), each)
                for column, each in zip(columns, ranges, strict=True)
            ]
            self._check_ranges(numbers, (steps or 0) * self.problem.time_step)
            # Each argument, and how many axes at its end are its own.
            arguments = {"numbers": (stack(numbers, -1), 1)}
            if history is not None:
                arguments["history"] = (as_single(history), axes + 1)
            if given:
                arguments["fields"] = (stack([*map(as_single, given)], -axes), axes)
            leading = np.broadcast_shapes(*(a.shape[:-own] for a, own in arguments.values()))
            rows = {
                name: a.expand(*leading, *a.shape[-own:]).reshape(-1, *a.shape[-own:])
                for name, (a, own) in arguments.items()
            }
            predicted = self._evaluate(rows, steps)
            predicted = predicted.reshape(*leading, *predicted.shape[1:])
        return predicted if native else predicted.numpy()

    def _evaluate(self, rows: Mapping[str, Tensor], steps: int | None) -> Tensor:
        """Predict all rows, in parts of bounded size."""
        inner = self.problem.field_shape if steps is None else (steps, *self.problem.field_shape)
        size = max(1, CHUNK_BYTES // (4 * math.prod(inner)))
        found = []
        for start in range(0, len(rows["numbers"]), size):
            part = {name: each[start : start + size] for name, each in rows.items()}
            numbers = part.pop("numbers")
            found.append(self._physical(numbers[:, :-1], numbers[:, -1], **part, steps=steps))
        return torch.cat(found) if found else torch.empty(0, *inner)

    def _given(self, fields: Mapping[str, Numbers]) -> list[Numbers]:
        """Input fields in their order, each an array or a tensor."""
        names, grid = self.problem.input_fields, self.problem.shape
        if set(fields) != set(names):
            raise ValueError(f"fields={sorted(fields)}: give exactly {list(names)}")
        arrays = [as_array(fields[name]) for name in names]
        for name, array in zip(names, arrays, strict=True):
            check_axes(array, grid, f"field {name!r}", "the grid")
        return arrays

    def _columns(self, parameters: Numbers) -> list[Numbers]:
        """Parameters that are learnt, in their order, each a number, an array or a tensor."""
        names = [each.name for each in self.problem.learnt]
        parameters = by_label(parameters, names)
        if isinstance(parameters, Mapping):
            missing = [name for name in names if name not in parameters]
            unknown = [name for name in parameters if name not in names]
            if missing or unknown:
                raise ValueError(
                    f"parameters missing: {missing}, unknown: {unknown}. Give exactly {names}"
                )
            return [parameters[name] for name in names]
        array = as_array(parameters)
        if array.ndim == 0 or array.shape[-1] != len(names):
            raise ValueError(
                f"parameters have the shape {tuple(array.shape)}, but the last axis must hold "
                f"{len(names)}: {names}"
            )
        return [array[..., place] for place in range(len(names))]

    def _check_ranges(self, numbers: Sequence[Tensor], seconds: float) -> None:
        """Warn of inputs that were not trained on, or raise; times last, and ``seconds`` later."""
        if self._outside == "ignore":
            return
        *parameters, time = map(values_of, numbers)
        checked = [*zip(self.problem.learnt, parameters, strict=True)]
        checked += [(self.problem.time, time), (self.problem.time, time + seconds)]
        for each, values in checked:
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
                warnings.warn(message, stacklevel=4)


def _problem(tree: dict[str, Any]) -> Problem:
    made: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in tree.items()
    }
    made["parameters"] = tuple(Input(**each) for each in tree["parameters"])
    return Problem(**made | {"time": Input(**tree["time"])})
