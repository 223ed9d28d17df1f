"""A user's own network: loaded from a Python file, and tried out before it is trained.

Invariants (``tests/unit/trainers/models/test_own.py``):

1. What is wrong with the class is said before training: not a module, another signature, another
   shape or type of the prediction, no weights.
2. The file is run once in a process, under a name of its own: it may be called like any package.
"""

import importlib.util
import inspect
import sys
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
    made = _network_class(getattr(_module(Path(config.path)), config.class_name, None), where)
    _check_signature(made, where, {**sizes, **config.settings})
    network = made(**sizes, **config.settings)
    _try_out(network, where, num_inputs, field_shape, given_channels)
    return network


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
    num_inputs: int,
    field_shape: tuple[int, ...],
    given_channels: int,
) -> None:
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(f"{where} has no weights to train. Make its layers attributes of it")
    numbers = torch.zeros(TRIED, num_inputs)
    given = torch.zeros(TRIED, given_channels, *field_shape[1:])
    was_training = network.training
    try:
        with torch.no_grad():
            prediction = network.eval()(numbers, given)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{where} fails on numbers {tuple(numbers.shape)} and input fields "
            f"{tuple(given.shape)}: {error}. Correct its forward(numbers, given)"
        ) from error
    network.train(was_training)
    wanted = (TRIED, *field_shape)
    got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
    if got != wanted:
        raise ValueError(
            f"{where} predicts {got} from numbers {tuple(numbers.shape)} and input fields "
            f"{tuple(given.shape)}, but must predict {wanted}: (batch, channel, *grid). Correct "
            "its forward(numbers, given)"
        )
    if prediction.dtype != torch.float32:
        raise ValueError(f"{where} predicts {prediction.dtype}, but must predict torch.float32")
