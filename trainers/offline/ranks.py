"""Runs an offline training: a process for each rank, which reads its share of a data set.

Invariants (``tests/integration/test_compare.py``):

1. Nothing heavy is imported where it is started from: torch lives in the ranks' processes.
2. However it ends, its processes end.
3. Times count from when it was asked for: processes and imports are part of it, as they are of a
   study.
"""

import time
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from trainers.base import Held, Moments, Problem
from trainers.config import TrainerConfig
from trainers.offline.stored import InMemory, MemberFiles, NpyFiles, Store, files_of
from trainers.processes import processes
from trainers.results import TrainStats

if TYPE_CHECKING:
    from trainers.loop.lockstep import World

_COLLECTIVE_TIMEOUT: Final = timedelta(seconds=300)


@dataclass(frozen=True, kw_only=True, slots=True)
class OfflineJob:
    """What is trained, on what, and for how long.

    Attributes:
        folder: Folder of the members to train on.
        store: What they lie in.
        read: ``"sample"`` or ``"member"``, see ``trainers.offline.reading``.
        in_memory: Whether every rank reads all members before it trains, and no file afterwards.
        members: Numbers of those to train on.
        validation_folder: Folder of the validation members, ``.npy``.
        validation: Their numbers.
        config: The ``trainer`` section of the study.
        problem: What is learnt.
        moments: Statistics of each member that is trained on.
        passes: Over the data; None for no end.
        seconds: When to stop, from the start; None for no limit.
        workers: Reading processes of each rank.
        weights_seed: Seed of the network's weights.
        order_seed: Seed of the order of the samples.
        expected_steps: For the schedule; None where nobody knows.
        use_gpu: Whether a rank has a GPU.
        out: Where ``model/`` and ``validation/`` are written.
    """

    folder: Path
    store: Store
    read: Literal["sample", "member"]
    in_memory: bool
    members: tuple[int, ...]
    validation_folder: Path
    validation: tuple[int, ...]
    config: TrainerConfig
    problem: Problem
    moments: tuple[Moments, ...]
    passes: int | None
    seconds: float | None
    workers: int
    weights_seed: int
    order_seed: int
    expected_steps: int | None
    use_gpu: bool
    out: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A report of rank 0, and when it was made, in seconds from the start."""

    at: float
    stats: TrainStats


def train_offline(job: OfflineJob) -> list[Said]:
    """Train to the end; what rank 0 reported.

    Raises:
        Exception: What went wrong in a rank.
    """
    started, ranks = time.monotonic(), job.config.ranks
    meeting = job.out / ".meeting"
    job.out.mkdir(parents=True, exist_ok=True)
    try:
        with processes(ranks) as pool:
            running = [
                pool.submit(_train_rank, job, rank, started, meeting) for rank in range(ranks)
            ]
            said = [future.result() for future in as_completed(running)]  # the first that fails
        return next(one for one in said if one)
    finally:
        meeting.unlink(missing_ok=True)


def _train_rank(job: OfflineJob, rank: int, started: float, meeting: Path) -> list[Said]:
    """Runs in each rank's process, whose clock is that of the system; rank 0 tells."""
    from trainers.offline.reading import Table
    from trainers.offline.source import FileSource
    from trainers.trainer import train

    said: list[Said] = []
    loop_began = 0.0

    def note(stats: TrainStats) -> None:
        if stats.first_step_seconds is not None:
            stats = replace(stats, first_step_seconds=stats.first_step_seconds + loop_began)
        said.append(Said(at=time.monotonic() - started, stats=stats))

    files: MemberFiles = files_of(job.store, job.folder)
    if job.in_memory:
        files = InMemory(files, job.members)
    source = FileSource(
        files=files,
        table=Table.of(files, job.members),
        read=job.read,
        batch=job.config.batch,
        lease_batches=job.config.lease_batches,
        passes=job.passes,
        workers=job.workers,
        seed=job.order_seed,
        moments=reduce(Moments.merge, job.moments),
        validation=read_held(job.validation_folder, job.validation[rank :: job.config.ranks]),
        share=(rank, job.config.ranks),
        ends_at=None if job.seconds is None else started + job.seconds,
    )
    loop_began = time.monotonic() - started
    try:
        train(
            source,
            job.config,
            job.problem,
            world=_world(job, rank, meeting),
            out=job.out,
            seed=job.weights_seed,
            expected_steps=job.expected_steps,
            report=note,
        )
    finally:
        source.close()
    return said if rank == 0 else []


def _world(job: OfflineJob, rank: int, meeting: Path) -> "World":
    import torch.distributed as dist

    from trainers.loop.lockstep import World

    ranks, device = job.config.ranks, f"cuda:{rank}" if job.use_gpu else "cpu"
    if ranks > 1:
        dist.init_process_group(
            "nccl" if job.use_gpu else "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=ranks,
            timeout=_COLLECTIVE_TIMEOUT,
        )
    return World(rank=rank, size=ranks, device=device)


def read_held(folder: Path, members: tuple[int, ...]) -> Held:
    """Validation members, read into memory; at least one."""
    files = NpyFiles(folder)
    found = [files.index(member) for member in members]
    counts = [len(each.steps) for each in found]
    return Held(
        fields=np.concatenate([files.read(member) for member in members]),
        inputs=np.concatenate([each.inputs for each in found]),
        members=np.repeat(np.array(members, np.int64), counts),
        steps=np.concatenate([each.steps for each in found]),
        complete=True,
    )
