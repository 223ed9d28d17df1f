"""How the network is called in training: in lower precision, and compiled, where that is asked for.

Weights, losses and what is validated and exported stay float32: only the products inside of the
network's forward and backward pass are done in ``trainer.precision`` (torch.autocast).

Invariants (``tests/unit/trainers/loop/test_forward.py``):

1. What comes out of the network is float32, so losses are.
2. A precision that the device cannot train in is refused, with a reason.
3. Without a compiler training goes on uncompiled, and a note says so.
"""

from typing import Final, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from trainers.config import TrainerConfig
from trainers.loop.lockstep import LockStep

DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FLOAT16_ON_CPU: Final = (
    "a CPU has no fast float16 products, and float16 gradients need a GPU's range of kernels. Use "
    "bfloat16 or float32, or train on a GPU"
)


def training_network(
    model: nn.Module, config: TrainerConfig, device: torch.device, ranks: LockStep
) -> tuple[nn.Module, tuple[str, ...]]:
    """What the loop calls, which shares its weights with ``model``; and notes for people.

    Called by all ranks together.

    Raises:
        ValueError: The device cannot train in this precision.
    """
    if config.precision == "float16" and device.type == "cpu":
        raise ValueError(f"trainer.precision=float16: {FLOAT16_ON_CPU}")
    network, notes = model, tuple[str, ...]()
    if config.precision != "float32":
        network = InPrecision(model, DTYPES[config.precision])
    if config.compile:
        network, notes = _compiled(network, device, ranks)
    return ranks.wrap(network), notes


@final
class InPrecision(nn.Module):
    """A network under autocast, with float32 coming out."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self._dtype = dtype

    def forward(
        self,
        numbers: Float32[Tensor, " batch inputs"],
        fields: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """As the network."""
        with torch.autocast(numbers.device.type, self._dtype):
            said: Tensor = self.network(numbers, fields)
        return said.float()


def _compiled(
    network: nn.Module, device: torch.device, ranks: LockStep
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network compiled where every rank has a compiler, else as it is."""
    missing = compiler_missing(device)
    if ranks.all(missing is None):
        # Batches are all of one shape; validation, whose chunks differ, calls the plain network.
        compiled = torch.compile(network, dynamic=False)
        assert isinstance(compiled, nn.Module)
        return compiled, ()
    why = missing or "another rank has none"
    return network, (f"trainer.compile: no compiler works here, trained without one ({why})",)


def compiler_missing(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in a line; None when it can."""

    def probe(x: Tensor) -> Tensor:
        return x.sin() + x.cos()

    try:
        torch.compile(probe, dynamic=False)(torch.ones(3, device=device))
    except RuntimeError as error:  # what dynamo and inductor raise, whatever is missing
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return None
