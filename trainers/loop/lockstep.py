"""Ranks in lock-step: what they agree on before they take train steps together.

Invariants (``tests/unit/trainers/loop/test_lockstep.py``, ``tests/integration/test_ddp.py``):

1. A burst is as long as the rank with the fewest batches can go: no rank waits in a gradient
   all-reduce for one that has no batch.
2. All ranks end after the same train step, once every one has drawn everything.
3. Numbers that decide something are those of rank 0 on every rank (``of_first``).
4. A rank that fails between bursts stops all others at the next agreement.
5. With one rank there are no collectives, and torch.distributed need not be initialised.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, Final, final

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.base import Moments
from trainers.loop import exchange
from trainers.loop.exchange import SharedGradients

BUSY: Final = 2**31  # steps that a rank without a stream of its own can go


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Where this process stands among the ranks; torch.distributed is initialised when size > 1.

    Attributes:
        rank: torch.distributed rank.
        size: Number of ranks.
        device: Such as ``"cuda:0"``; None: as the config says.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(
                f"rank={self.rank} is not one of {self.size} ranks: need 0 <= rank < size"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """What one rank, or the least of all ranks, can do next.

    Attributes:
        steps: Train steps with batches at hand; ``BUSY`` when over.
        over: Its stream has finished and everything was drawn.
        failed: It cannot go on.
        due: It is time for a checkpoint.
        stop: The training is to end here, after a checkpoint.
        busy: A checkpoint is still being written.
        spoilt: And cannot be.
    """

    steps: int
    over: bool
    failed: bool
    due: bool = False
    stop: bool = False
    busy: bool = False
    spoilt: bool = False


def pick_device(world: World, wish: str) -> torch.device:
    """The device of this rank.

    Raises:
        ValueError: A GPU was asked for where there is none.
    """
    if world.device is not None:
        return torch.device(world.device)
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "trainer.device=cuda: torch finds no GPU on this node. Use device: auto or cpu, or "
            "start the study where there is one"
        )
    return torch.device(wish)


@final
class LockStep:
    """The collectives of one training; each is called by all ranks, in the same order."""

    def __init__(self, world: World, device: torch.device) -> None:
        self._world = world
        self._alone = world.size == 1
        nccl = not self._alone and dist.get_backend() == "nccl"
        self._device = device if nccl else torch.device("cpu")

    def agree(self, mine: Readiness) -> Readiness:
        """The shortest burst; over when all are; everything else when one is."""
        steps = BUSY if mine.over else mine.steps
        any_of = ("failed", "due", "stop", "busy", "spoilt")
        least = self._least([steps, mine.over, *(not getattr(mine, name) for name in any_of)])
        found = {name: not none for name, none in zip(any_of, least[2:], strict=True)}
        return Readiness(steps=least[0], over=bool(least[1]), **found)

    def all(self, condition: bool) -> bool:
        """Whether it holds on every rank."""
        return bool(self._least([int(condition)])[0])

    def most(self, number: int) -> int:
        """The largest number of any rank."""
        return -self._least([-number])[0]

    def of_first(self, number: float) -> float:
        """What rank 0 says, so that what is decided by it is decided alike everywhere."""
        return float(self.gather(np.array([number], np.float64))[0, 0])

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the ranks."""
        if not self._alone:
            for each in gradients:
                dist.all_reduce(each)
                each /= self._world.size

    def exchanging(self, network: nn.Module, *, when: bool) -> AbstractContextManager[None]:
        """Whether a forward and backward pass in it averages the gradients over the ranks."""
        if when or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def gather(self, values: Float64[np.ndarray, " *shape"]) -> Float64[np.ndarray, " rank *shape"]:
        """Arrays of all ranks, which have the same shape, stacked in the order of the ranks."""
        if self._alone:
            return values[None]
        tensor = torch.from_numpy(values.copy()).to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self._world.size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts).cpu().numpy()

    def merge(self, moments: Moments) -> tuple[Moments, Int64[np.ndarray, " rank"]]:
        """Moments of all ranks together, and the number of samples of each."""
        mine = {each.name: getattr(moments, each.name) for each in fields(moments)}
        ends = np.cumsum([np.size(values) for values in mine.values()])[:-1]
        parts = []
        for row in self.gather(np.hstack(list(mine.values()))):
            rank: dict[str, Any] = {
                name: values if isinstance(own, np.ndarray) else type(own)(values[0])
                for (name, own), values in zip(mine.items(), np.split(row, ends), strict=True)
            }
            parts.append(Moments(**rank))
        return reduce(Moments.merge, parts), np.array([each.count for each in parts])

    def wrap(self, model: nn.Module) -> nn.Module:
        """The same network with gradients averaged over the ranks, and rank 0's weights."""
        if self._alone:
            return model
        saved = model.state_dict()
        constant = [name for name, _ in model.named_buffers() if name not in saved]
        # What no checkpoint holds is the same on every rank: it is not sent before each forward.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, constant)  # type: ignore[no-untyped-call]
        first = next(model.parameters()).device
        if first.type == "cuda":
            return DistributedDataParallel(model, device_ids=[first], gradient_as_bucket_view=True)
        network = DistributedDataParallel(
            model, gradient_as_bucket_view=True, bucket_cap_mb=exchange.BUCKET_MIB
        )
        shared = SharedGradients.open(model, rank=self._world.rank, size=self._world.size)
        if shared is not None:
            network.register_comm_hook(shared, exchange.hook)
        return network

    def _least(self, numbers: list[int]) -> list[int]:
        if self._alone:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.int64, device=self._device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return [int(number) for number in tensor.tolist()]
