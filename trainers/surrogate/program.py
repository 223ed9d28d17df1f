"""A surrogate as a program that runs without this package: ``surrogate.pt2``, ``surrogate.onnx``.

Physical units go in and come out, for a batch of any size. A ``.pt2`` program takes numbers of any
floating type; ONNX wants parameters and time in float64, and all else in float32:

    parameters  (batch, parameter)                  in the order of the card's inputs
    time        (batch,)                            in seconds; of the newest snapshot of a history
    history=    (batch, snapshot, channel, *grid)   only for tasks that step
    fields=     (batch, field, *grid)               only where there are input fields

and ``(batch, channel, *grid)`` comes out; for tasks that step ``(batch, ahead, channel, *grid)``:
append it to the history, drop as many from the front, add to the time, and call again.

In a ``.pt2`` program one set of parameters with one time, without a batch axis, is a batch of one.

Invariants (``tests/unit/trainers/surrogate/test_program.py``):

1. A fresh process that has nothing but torch loads the program and predicts the same.
2. A program refuses other shapes of parameters and time with the names and shapes that it expects.
3. A network that cannot be exported is an error that says which of its layers is in the way.
"""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from trainers.durable import replacing
from trainers.surrogate.surrogate import Physical, Surrogate
from trainers.tasks.stepping import Stepping

ONNX_PACKAGES: Final = ("onnx", "onnxscript")
ONNX_OPSET: Final = 20
EXAMPLE_ROWS: Final = 3  # neither 0 nor 1, which an export would take for fixed sizes


class NotExportable(ValueError):
    """The surrogate cannot be written in this form; the message says why, and what to do."""


class _Checked(nn.Module):
    """Checks the shapes of parameters and time; torch's own checks name neither."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self._physical = Physical(surrogate.network, surrogate.task)
        names = [each.name for each in surrogate.problem.learnt]
        self._columns: Tensor
        self.register_buffer("_columns", torch.arange(len(names)))
        self._expected = (
            f"expected parameters of shape (batch, {len(names)}), {', '.join(names)}, and time of "
            "shape (batch,)"
        )

    def forward(
        self,
        parameters: Tensor,
        time: Tensor,
        history: Tensor | None = None,
        fields: Tensor | None = None,
    ) -> Tensor:
        """Fields in their units."""
        # No size is read here, and every index is a tensor: what reads a size is checked by torch
        # before anything that stands here.
        count, each = len(self._columns), torch.ones_like(parameters).sum(-1)
        right = (each == count).all() & (torch.ones_like(each).sum() == torch.ones_like(time).sum())
        torch._assert_async(right, self._expected)
        rows = (torch.ones_like(each).cumsum(0) - 1).long().reshape(-1)
        columns = parameters.index_select(-1, self._columns)
        columns = columns.reshape(-1, count) if count else columns
        times = time.reshape(-1).index_select(0, rows)
        predicted: Tensor = self._physical(columns, times, history, fields)
        return predicted


def write_program(surrogate: Surrogate, path: Path) -> None:
    """Write a ``torch.export`` program; ``torch.export.load(path).module()`` runs it.

    Raises:
        NotExportable: torch cannot follow what the network computes.
    """
    with replacing(path) as part:
        torch.export.save(_program(surrogate, checked=True), part)


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


def _program(surrogate: Surrogate, *, checked: bool = False) -> torch.export.ExportedProgram:
    arguments, batch = _example(surrogate), torch.export.Dim("batch", min=1)
    module: nn.Module = Physical(surrogate.network, surrogate.task)
    shapes = {name: {0: batch} for name in arguments}
    if checked:  # sizes that torch neither takes for fixed nor for each other
        module = _Checked(surrogate)
        arguments["parameters"] = torch.zeros(EXAMPLE_ROWS, len(surrogate.problem.learnt) + 2)
        arguments["time"] = torch.zeros(EXAMPLE_ROWS + 1)
        shapes["parameters"][1] = torch.export.Dim("parameter")
        shapes["time"] = {0: torch.export.Dim("time")}
    try:
        program = torch.export.export(
            module.eval(),
            (arguments.pop("parameters"), arguments.pop("time")),
            arguments,
            dynamic_shapes=shapes,
        )
        for node in list(program.graph.nodes):
            # Written where the type of an input is changed: it would refuse every other type.
            if str(node.target).startswith("aten._assert_tensor_metadata"):
                program.graph.erase_node(node)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError) as error:
        raise NotExportable(
            f"{_kind(surrogate)}: torch.export cannot follow it: {_first_line(error)}. Use "
            "model.safetensors and load_surrogate instead"
        ) from error
    return program


def _example(surrogate: Surrogate) -> dict[str, Tensor]:
    """What a program of this surrogate is called with, in the middle of its training range."""
    problem, task = surrogate.problem, surrogate.task
    middle = [(each.low + each.high) / 2 for each in problem.learnt]
    time = (problem.time.low + problem.time.high) / 2
    arguments = {
        "parameters": torch.tensor([middle] * EXAMPLE_ROWS, dtype=torch.float64),
        "time": torch.full((EXAMPLE_ROWS,), time, dtype=torch.float64),
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
