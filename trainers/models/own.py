"""A user's own network: loaded from a Python file, and tried out before it is trained.

Invariants (``tests/unit/trainers/models/test_own.py``):

1. What is wrong with the class is said before training, with file and line: not a module, another
   signature, another shape or type of the prediction, no weights, any exception.
2. The file is run once in a process, under a name of its own: it may be called like any package.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from trainers.configs.model_checks import own_model_problems
from trainers.configs.models import OwnModelConfig

TRIED = 2  # samples of the trial


def own_network(
    config: OwnModelConfig,
    *,
    num_inputs: int,
    field_shape: tuple[int, ...],
    given_channels: int = 0,
) -> nn.Module:
    """The network of a user's class, after one trial.

    Raises:
        ValueError: It cannot be built, or does not predict what it should.
    """
    where = f"trainer.model: class {config.class_name} of {config.path}"
    sizes = {
        "num_inputs": num_inputs,
        "field_shape": field_shape,
        "given_channels": given_channels,
    }
    found = own_model_problems(config)
    if found:
        raise ValueError(f"trainer.model.{found[0]}")
    file = Path(config.path)
    with _errors_with_lines(file, f"{where} cannot be loaded", "Correct the file"):
        module = _module(file)
    made = _network_class(getattr(module, config.class_name, None), where)
    with suppress(OSError, TypeError):  # a class that no file holds has no line
        lines = inspect.getsourcefile(made), inspect.getsourcelines(made)[1]
        where = f"trainer.model: class {config.class_name} of {lines[0]}:{lines[1]}"
    _check_signature(made, where, {**sizes, **config.settings})
    with _errors_with_lines(file, f"{where} cannot be made", "Correct its __init__"):
        network = made(**sizes, **config.settings)
    _try_out(network, where, file, num_inputs, field_shape, given_channels)
    return network


@contextmanager
def _errors_with_lines(file: Path, what: str, remedy: str) -> Iterator[None]:
    """Say of any exception in the user's code where it was raised."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [each for each in frames if Path(each.filename) == file]
        at = f" ({file}:{theirs[-1].lineno}, in {theirs[-1].name})" if theirs else ""
        line = f"{what}: {type(error).__name__}: {error}{at}. {remedy}"
        raise ValueError(line) from error


def _module(path: Path) -> ModuleType:
    name = f"headrace_own_{sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:  # once, as dataclasses and pickle need it
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _network_class(found: object, where: str) -> type[nn.Module]:
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    raise ValueError(f"{where} is no torch.nn.Module, but {found!r}. Derive it from nn.Module")


def _check_signature(made: type[nn.Module], where: str, arguments: dict[str, Any]) -> None:
    try:
        inspect.signature(made).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"{where} cannot be made with the keywords {', '.join(arguments)}: {error}. Its "
            "__init__ must take num_inputs, field_shape, given_channels and the other keys that "
            "stand under trainer.model"
        ) from None


def _try_out(
    network: nn.Module,
    where: str,
    file: Path,
    num_inputs: int,
    field_shape: tuple[int, ...],
    given_channels: int,
) -> None:
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(f"{where} has no weights to train. Make its layers attributes of it")
    numbers = torch.zeros(TRIED, num_inputs)
    given = torch.zeros(TRIED, given_channels, *field_shape[1:])
    was_training = network.training
    shapes = f"numbers {tuple(numbers.shape)} and input fields {tuple(given.shape)}"
    remedy = "Correct its forward(numbers, given)"
    with _errors_with_lines(file, f"{where} fails on {shapes}", remedy), torch.no_grad():
        prediction = network.eval()(numbers, given)
    network.train(was_training)
    wanted = (TRIED, *field_shape)
    got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
    if got != wanted:
        raise ValueError(
            f"{where} predicts {got} from {shapes}, but must predict {wanted}: (batch, channel, "
            f"*grid). {remedy}"
        )
    if prediction.dtype != torch.float32:
        raise ValueError(f"{where} predicts {prediction.dtype}, but must predict torch.float32")
