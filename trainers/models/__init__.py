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
from dataclasses import dataclass
from typing import Final

from torch import nn

from trainers.config import MlpConfig, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelKind:
    """How one kind of network is built.

    Attributes:
        config: What stands under ``trainer.model`` in a study.
        target: ``module:Class``, imported when it is needed.
        summary: One line for people.
    """

    config: type[ModelConfig]
    target: str
    summary: str


MODELS: Final[dict[str, ModelKind]] = {
    "mlp": ModelKind(
        config=MlpConfig,
        target="trainers.models.mlp:Mlp",
        summary="fully connected; the whole field at once from parameters and time",
    ),
}


def build_model(
    config: ModelConfig,
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
    """
    module, name = MODELS[config.kind].target.split(":")
    network = getattr(importlib.import_module(module), name)(
        config,
        num_inputs=num_inputs,
        field_shape=field_shape,
        given_channels=given_channels,
    )
    assert isinstance(network, nn.Module)
    return network
