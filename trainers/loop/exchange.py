"""Gradients of ranks on one node, summed through shared memory; a communication hook for DDP.

gloo sends each gradient through the loopback device, which takes longer than the whole train step
of a small network. Here every rank writes its gradient into its own row of one shared file, one
all-reduce of four bytes says that all have, and every rank adds the rows.

Rows are written and read in turns of two: whoever writes turn t has passed the all-reduce of turn
t - 1, which every rank entered after it had read turn t - 2. So one all-reduce per sum is enough.

Invariants (``tests/integration/test_ddp.py``):

1. Every rank gets the same sum to the last bit, and DDP's own all-reduce to rounding.
2. A rank that dies is noticed by the all-reduce, as without this hook.
3. The file has no name any more once ``open`` returns on rank 0, so at the first sum on every rank:
   nothing is left behind.
4. Where memory cannot be shared (ranks on several nodes, a small /dev/shm), DDP's own is used.
"""

import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from typing import Final, Self, final

import torch
import torch.distributed as dist
from torch import nn

FOLDER: Final = "/dev/shm"
MOST_RANKS: Final = 8  # every rank reads all rows: beyond that a ring moves fewer bytes
BUCKET_MIB: Final = 25  # DDP's default; a bucket exceeds it by less than its last parameter
_NAME_BYTES: Final = 256


@final
class SharedGradients:
    """One row for each rank and turn, each as long as DDP's largest bucket."""

    def __init__(self, rows: torch.Tensor, rank: int) -> None:
        self._rows = rows  # (turn, rank, value)
        self._rank = rank
        self._turn = 0
        self._flag = torch.zeros(1)

    @classmethod
    def open(cls, model: nn.Module, *, rank: int, size: int) -> Self | None:
        """Called by all ranks together; None on all of them where memory cannot be shared."""
        values = _largest_bucket(model)
        if size > MOST_RANKS or values is None:
            return None
        length = 2 * size * values * 4
        descriptor, path = _create(length) if rank == 0 else (-1, "")
        try:
            path = _told_by_rank_0(path)
            mapped = _mapped(path, length)
            agreed = torch.tensor([mapped is not None], dtype=torch.int32)
            dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
        finally:
            if descriptor >= 0:
                os.unlink(path)
                os.close(descriptor)
        if mapped is None or not agreed.item():
            return None
        rows = torch.frombuffer(mapped, dtype=torch.float32).view(2, size, values)
        return cls(rows, rank)

    def mean(self, gradient: torch.Tensor) -> torch.Tensor:
        """Replace a bucket's gradient by its mean over the ranks; called by all of them."""
        rows = self._rows[self._turn, :, : gradient.numel()]
        self._turn = 1 - self._turn
        torch.mul(gradient, 1.0 / len(rows), out=rows[self._rank])
        dist.all_reduce(self._flag)
        torch.add(rows[0], rows[1], out=gradient)  # in the order of the ranks, on every rank
        for row in rows[2:]:
            gradient += row
        return gradient


def hook(
    state: SharedGradients,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # exported without a stub
) -> torch.futures.Future[torch.Tensor]:
    """What DDP calls for each bucket, in the same order on all ranks."""
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(state.mean(bucket.buffer()))
    return done


def _largest_bucket(model: nn.Module) -> int | None:
    """Values in DDP's largest bucket at most; None for what this hook does not know."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    if any(each.dtype != torch.float32 or each.device.type != "cpu" for each in parameters):
        return None
    sizes = [each.numel() for each in parameters]
    return min(sum(sizes), BUCKET_MIB * 2**20 // 4 + max(sizes))


def _create(length: int) -> tuple[int, str]:
    """A file of this length with its memory allocated, locked so that nobody takes it for stale."""
    path = ""
    with suppress(OSError):
        descriptor, path = tempfile.mkstemp(prefix="headrace-gradients-", dir=FOLDER)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(descriptor, 0, length)
        except OSError:
            os.close(descriptor)
            os.unlink(path)
            return -1, ""
        return descriptor, path
    return -1, ""


def _told_by_rank_0(path: str) -> str:
    name = torch.frombuffer(
        bytearray(path.encode().ljust(_NAME_BYTES, b"\0")), dtype=torch.uint8
    ).clone()
    dist.broadcast(name, src=0)
    return bytes(name.tolist()).rstrip(b"\0").decode()


def _mapped(path: str, length: int) -> mmap.mmap | None:
    if not path:
        return None
    try:
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), length)
    except (OSError, ValueError):  # another node's file, or another file of that name
        return None
