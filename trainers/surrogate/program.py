"""A surrogate as a program that runs without this package: ``surrogate.pt2``, ``surrogate.onnx``.

What goes in and comes out is in physical units and float32, for a batch of any size:

    parameters  (batch, parameter)                  in the order of the card's inputs
    time        (batch,)                            in seconds; of the newest snapshot of a history
    history=    (batch, snapshot, channel, *grid)   only for tasks that step
    fields=     (batch, field, *grid)               only where there are input fields

and ``(batch, channel, *grid)`` comes out; for tasks that step ``(batch, ahead, channel, *grid)``:
append it to the history, drop as many from the front, add to the time, and call again.

Invariants (``tests/unit/trainers/surrogate/test_program.py``):

1. A fresh process that has nothing but torch loads the program and predicts the same.
2. A network that cannot be exported is an error that says which of its layers is in the way.
"""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.durable import replacing
from trainers.surrogate.surrogate import Surrogate
from trainers.tasks.direct import Direct
from trainers.tasks.stepping import Stepping

ONNX_PACKAGES: Final = ("onnx", "onnxscript")
ONNX_OPSET: Final = 20
EXAMPLE_ROWS: Final = 3  # neither 0 nor 1, which an export would take for fixed sizes


class NotExportable(ValueError):
    """The surrogate cannot be written in this form; the message says why, and what to do."""


class Physical(nn.Module):
    """A surrogate's network with its normalisation, of tensors in physical units."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.network = surrogate.network
        self._task, self._problem = surrogate.task, surrogate.problem

    def forward(
        self,
        parameters: Float32[Tensor, " batch learnt"],
        time: Float32[Tensor, " batch"],
        history: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """Fields in their units."""
        task, everything = self._task, self._all(parameters)
        # ``shape[0]``, never ``len``: an export would take that for a fixed number.
        shape = (parameters.shape[0], *self._problem.given_shape)
        given = parameters.new_zeros(shape) if fields is None else fields
        if isinstance(task, Stepping):
            assert history is not None
            return task.rollout(self.network, everything, time, history, given, steps=task.ahead)
        assert isinstance(task, Direct)
        inputs = torch.cat([everything, time[:, None]], dim=1)
        return task.predict(self.network, inputs, given[:, None])[:, 0]

    def _all(self, parameters: Tensor) -> Tensor:
        """With a column for each parameter that is not learnt, which the network does not see."""
        columns, place = [], 0
        for each in self._problem.parameters:
            if each.learnt:
                columns.append(parameters[:, place : place + 1])
                place += 1
            else:
                columns.append(torch.full_like(parameters[:, :1], each.low))
        return torch.cat(columns, dim=1) if columns else parameters


def write_program(surrogate: Surrogate, path: Path) -> None:
    """Write a ``torch.export`` program; ``torch.export.load(path).module()`` runs it.

    Raises:
        NotExportable: torch cannot follow what the network computes.
    """
    with replacing(path) as part:
        torch.export.save(_program(surrogate), part)


def check_onnx() -> None:
    """Make sure that ONNX can be written at all.

    Raises:
        NotExportable: A package is missing.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise NotExportable(
            f"an ONNX file needs {' and '.join(missing)}, and not all of it is installed: "
            f"pip install {' '.join(ONNX_PACKAGES)} (or headrace[onnx])"
        )


def write_onnx(surrogate: Surrogate, path: Path) -> None:
    """Write the same for ONNX runtimes.

    Raises:
        NotExportable: A package is missing, or the network computes what ONNX cannot say.
    """
    check_onnx()
    program = _program(surrogate)
    layers = complex_layers(program)
    if layers:
        raise NotExportable(
            f"{_kind(surrogate)}: ONNX has no complex numbers, and these layers compute with them: "
            f"{', '.join(layers)}. Use surrogate.pt2, or a model without Fourier layers"
        )
    names = list(_example(surrogate))
    # It says at length which operations of other packages it does not know, and warns of itself.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with replacing(path) as part, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(
                program,
                (),
                part,
                dynamo=True,
                external_data=False,
                input_names=names,
                output_names=["prediction"],
                opset_version=ONNX_OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise NotExportable(
            f"{_kind(surrogate)}: torch cannot write it as ONNX: {_first_line(error)}. Use "
            "surrogate.pt2"
        ) from error


def complex_layers(program: torch.export.ExportedProgram) -> list[str]:
    """Layers whose results are complex, as ``name (operation)``, each once."""
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            stack = node.meta.get("nn_module_stack") or {}
            inside = [name for name, _ in stack.values() if name]
            layer = inside[-1].removeprefix("network.") if inside else "network"
            found.setdefault(f"{layer} ({node.target})" if layer else str(node.target))
    return list(found)


def _program(surrogate: Surrogate) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    arguments = _example(surrogate)
    try:
        return torch.export.export(
            Physical(surrogate).eval(),
            (arguments.pop("parameters"), arguments.pop("time")),
            arguments,
            dynamic_shapes={name: {0: batch} for name in ("parameters", "time", *arguments)},
        )
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError) as error:
        raise NotExportable(
            f"{_kind(surrogate)}: torch.export cannot follow it: {_first_line(error)}. Use "
            "model.safetensors and load_surrogate instead"
        ) from error


def _example(surrogate: Surrogate) -> dict[str, Tensor]:
    """What a program of this surrogate is called with, in the middle of its training range."""
    problem, task = surrogate.problem, surrogate.task
    middle = [(each.low + each.high) / 2 for each in problem.learnt]
    time = (problem.time.low + problem.time.high) / 2
    arguments = {
        "parameters": torch.tensor([middle] * EXAMPLE_ROWS, dtype=torch.float32),
        "time": torch.full((EXAMPLE_ROWS,), time),
    }
    if isinstance(task, Stepping):
        arguments["history"] = torch.zeros(EXAMPLE_ROWS, task.history, *problem.field_shape)
    if problem.input_fields:
        arguments["fields"] = torch.zeros(EXAMPLE_ROWS, *problem.given_shape)
    return arguments


def _kind(surrogate: Surrogate) -> str:
    return f"model {surrogate.card['trainer']['model']['kind']!r}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
