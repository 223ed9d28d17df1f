"""Network architectures, one file each, and the registry that builds them by kind.

Invariants of every network (``tests/contract/test_model_contract.py`` checks each that is
registered):

1. ``(batch, inputs)`` numbers and ``(batch, given, *grid)`` input fields go in, ``(batch, channel,
   *grid)`` comes out; all float32 and normalised. There may be no input field: ``given`` is 0 then.
2. A sample's prediction does not depend on the other samples of its batch.
3. The same seed gives the same weights, and every weight gets a finite gradient.
4. The state is tensors with names, so that it can be kept as safetensors.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from pydantic_core import PydanticUndefined
from torch import nn

from trainers.configs.model_checks import model_problems
from trainers.configs.models import (
    AnyModelConfig,
    DeepONetConfig,
    FnoConfig,
    MessagePassingConfig,
    MlpConfig,
    OwnModelConfig,
    TfnoConfig,
    UnetConfig,
    UnoConfig,
)


class Option(NamedTuple):
    """A key under ``trainer.model``."""

    name: str
    default: object  # None where it is required
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelKind:
    """How one kind of network is built.

    Attributes:
        config: What stands under ``trainer.model`` in a study.
        target: ``module:Class`` or function, imported when it is needed: some bring a library.
        summary: One line for people.
    """

    config: type[AnyModelConfig]
    target: str
    summary: str

    @property
    def options(self) -> list[Option]:
        """Keys under ``trainer.model``, as the config describes them."""
        return [
            Option(
                field.alias or name,
                None if field.default is PydanticUndefined else field.default,
                field.description or "",
            )
            for name, field in self.config.model_fields.items()
            if name != "kind"
        ]


MODELS: Final[dict[str, ModelKind]] = {
    "mlp": ModelKind(
        config=MlpConfig,
        target="trainers.models.mlp:Mlp",
        summary="fully connected; the whole field at once from parameters and time",
    ),
    "unet": ModelKind(
        config=UnetConfig,
        target="trainers.models.unet:Unet",
        summary="convolutions on grids of half, a quarter, ... of the points",
    ),
    "fno": ModelKind(
        config=FnoConfig,
        target="trainers.models.fno:Fno",
        summary="Fourier neural operator; smooth fields, periodic or padded",
    ),
    "tfno": ModelKind(
        config=TfnoConfig,
        target="trainers.models.fno:Fno",
        summary="Fourier neural operator with a tenth of the weights, in Tucker form",
    ),
    "uno": ModelKind(
        config=UnoConfig,
        target="trainers.models.uno:Uno",
        summary="U-shaped neural operator; Fourier layers on coarser and coarser grids",
    ),
    "deeponet": ModelKind(
        config=DeepONetConfig,
        target="trainers.models.deeponet:DeepONet",
        summary="deep operator network; sums of learnt basis functions",
    ),
    "message_passing": ModelKind(
        config=MessagePassingConfig,
        target="trainers.models.message_passing:MessagePassingSolver",
        summary="messages between neighbouring points; what is learnt is local",
    ),
    "own": ModelKind(
        config=OwnModelConfig,
        target="trainers.models.own:own_network",
        summary="your class: path and class, further keys are its settings",
    ),
}


def build_model(
    config: AnyModelConfig,
    *,
    num_inputs: int,
    field_shape: tuple[int, ...],
    given_channels: int = 0,
) -> nn.Module:
    """Make a network with fresh weights out of torch's global random numbers.

    Args:
        config: Kind and sizes.
        num_inputs: Numbers that go in.
        field_shape: ``(channel, *grid)`` that comes out.
        given_channels: Input fields on the same grid that go in, too.

    Raises:
        ValueError: It cannot do what is asked of it on this grid.
    """
    found = model_problems(config, field_shape[1:])
    if found:
        raise ValueError("; ".join(f"trainer.model.{line}" for line in found))
    module, name = MODELS[config.kind].target.split(":")
    make: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
    network = make(
        config,
        num_inputs=num_inputs,
        field_shape=field_shape,
        given_channels=given_channels,
    )
    assert isinstance(network, nn.Module)
    for part in network.modules():  # no buffer stays a view: DDP could not write into it
        for key, buffer in part.named_buffers(recurse=False):
            plain = torch.empty_like(buffer, memory_format=torch.contiguous_format)
            setattr(part, key, plain.copy_(buffer))
    return network


def count_weights(network: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(math.prod(each.shape) for each in network.parameters() if each.requires_grad)
