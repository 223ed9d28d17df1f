"""One of two gloo ranks that take two train steps with every network, task and number of axes."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.contract.test_model_contract import EXAMPLES
from tests.contract.test_model_task_pairs import PAIRS
from tests.contract.test_task_contract import TASKS, Made
from trainers.configs.models import OwnModelConfig
from trainers.loop.lockstep import LockStep, World

GRIDS = [(8,), (8, 10), (4, 5, 6)]
BUFFERS = OwnModelConfig.model_validate(
    {"path": str(Path(__file__).with_name("own_network.py")), "class": "WithBuffers"}
)


def outcomes(ranks: LockStep, rank: int) -> Iterator[tuple[str, Any]]:
    """The weights' sum after two steps on different samples, or what was raised."""
    for grid in GRIDS:
        for kind, name in [*PAIRS, ("buffers", "direct"), ("buffers", "bundle")]:
            config = BUFFERS if kind == "buffers" else EXAMPLES[kind][0]
            try:
                made = Made(TASKS[name], grid=grid)
                torch.manual_seed(5)
                model = made.task.network(config)
                network = ranks.wrap(model)
                assert isinstance(network, DistributedDataParallel)
                optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                mine = slice(rank, rank + 3)
                for _ in range(2):
                    losses = made.task.losses(network, made.inputs[mine], made.fields[mine])
                    torch.autograd.backward(losses.mean())
                    optimizer.step()
                said: Any = sum(float(each.detach().abs().sum()) for each in model.parameters())
            except Exception as error:  # noqa: BLE001 - told to the test
                said = repr(error)
            yield f"{kind}, {name}, {len(grid)} axes", said


def main() -> None:
    """Join the other rank, run, write the result."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    ranks = LockStep(World(rank=rank, size=2), torch.device("cpu"))
    (folder / f"{rank}.json").write_text(json.dumps(dict(outcomes(ranks, rank))))
    os._exit(0)  # as tests/integration/ddp_rank.py


if __name__ == "__main__":
    main()
