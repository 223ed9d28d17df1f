"""How long a surrogate takes for one member, alone and among many: what a study is paid back with.

1. It takes about ``BUDGET_SECONDS`` for each of a few calls, however large the network is.
2. Nothing is drawn and no random number is used: training goes on as if nothing had happened.
"""

import math
import time
from statistics import median
from typing import Final

import torch
from torch import nn

from trainers.results import QueryTime
from trainers.tasks.build import Task
from trainers.tasks.stepping import Stepping

BUDGET_SECONDS: Final = 0.1
MOST_ROWS: Final = 1024
MOST_BYTES: Final = 16 * 2**20  # of predicted fields
REPEATS: Final = 3


def query_time(task: Task, network: nn.Module) -> QueryTime:
    """Measure a network that is in evaluation mode, without gradients, on its device."""
    first = _seconds(task, network, 1)
    most = min(MOST_ROWS, MOST_BYTES // (4 * math.prod(task.problem.field_shape)))
    rows = max(1, min(most, int(BUDGET_SECONDS / first)))
    together = _seconds(task, network, rows) / rows
    snapshots = task.problem.snapshots
    if isinstance(task, Stepping):
        steps = max(1, -(-(snapshots - task.history) // task.ahead))
        alone, batch = steps * first, rows
        batched = steps * together
    else:
        part = min(snapshots, rows)
        alone = snapshots * _seconds(task, network, part) / part
        batch, batched = max(1, rows // snapshots), snapshots * together
    return QueryTime(
        device=str(task.device),
        snapshots=snapshots,
        alone_seconds=alone,
        batch=batch,
        batched_seconds=batched,
    )


def _seconds(task: Task, network: nn.Module, rows: int) -> float:
    """Of one evaluation, the median of a few after one that warms up."""
    problem, device = task.problem, task.device
    middle = [(each.low + each.high) / 2 for each in (*problem.parameters, problem.time)]
    inputs = torch.tensor([middle] * rows, dtype=torch.float64, device=device)
    given = torch.zeros(rows, *problem.given_shape, device=device)
    history = torch.zeros(
        rows, task.history if isinstance(task, Stepping) else 0, *problem.field_shape, device=device
    )

    def evaluate() -> None:
        if isinstance(task, Stepping):
            numbers, at = inputs[:, :-1], inputs[:, -1]
            task.rollout(network, numbers, at, history, given, steps=task.ahead)
        else:
            task.predict(network, inputs, given[:, None])
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    taken = []
    for _ in range(1 + REPEATS):
        begin = time.perf_counter()
        evaluate()
        taken.append(time.perf_counter() - begin)
    return median(taken[1:])
