"""What this machine has that a study asks for: GPUs, room in shared memory, programs.

Nothing is imported that a login node may lack.

1. Only GPUs that this process may use are counted: those of the container, less those hidden by
   ``CUDA_VISIBLE_DEVICES``.
2. A machine without a GPU, or without its driver, has 0.
3. Whether a study fits is decided on figures that are arguments.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import GroupFailed
from pipeline.members.mpiexec import find_mpiexec
from pipeline.study.config import StudyConfig
from pipeline.study.problems import counted
from solvers.program.command import find_command
from solvers.program.leashed import clean_environment
from trainers.libraries import missing_libraries

SHARED_MEMORY = Path("/dev/shm")
DEVICES = Path("/dev")
_ASK_SECONDS = 20.0  # nvidia-smi takes up to 10 s when it has to load the driver


def problems_of(study: StudyConfig) -> list[str]:
    """Why this machine cannot run a study."""
    found = problems(
        ranks=study.trainer.ranks,
        device=study.trainer.device,
        # Asked only when it matters: the driver may take seconds to answer.
        gpus=gpus() if study.trainer.device == "cuda" else 0,
        capacity=study.reservoir.capacity,
        slots_bytes=study.slots_bytes,
        shared_memory_free=shared_memory_free(),
    )
    return found + program_problems(study) + missing_libraries(study.trainer.loggers)


def program_problems(study: StudyConfig) -> list[str]:
    """Which program that simulates a member is not here."""
    path = clean_environment(os.environ)["PATH"]
    try:
        if study.simulates and study.solver.kind == "program":
            find_command(study.solver, path)
        if study.simulates and study.ensemble.mpi_ranks > 1:
            find_mpiexec(path)
    except (ValueError, GroupFailed) as error:
        return [str(error)]
    return []


def problems(
    *,
    ranks: int,
    device: str,
    gpus: int,
    capacity: int,
    slots_bytes: int,
    shared_memory_free: int,
) -> list[str]:
    """Why this machine cannot run a study.

    Args:
        ranks: Trainer ranks.
        device: ``trainer.device``.
        gpus: GPUs of this machine.
        capacity: ``reservoir.capacity``.
        slots_bytes: Shared memory that the slots need.
        shared_memory_free: Bytes free in /dev/shm.
    """
    found = []
    if device == "cuda" and ranks > gpus:
        found.append(
            f"trainer.ranks={ranks}: with trainer.device=cuda every rank needs a GPU, and this "
            f"machine has {gpus}. Lower trainer.ranks, or set trainer.device to cpu"
        )
    if slots_bytes > shared_memory_free:
        needed, free = slots_bytes / 2**20, shared_memory_free / 2**20
        found.append(
            f"reservoir.capacity={capacity}: the slots of {counted(ranks, 'rank')} need "
            f"{needed:,.0f} MiB of shared memory, but /dev/shm has {free:,.0f} MiB free. "
            "Lower reservoir.capacity, remove stale files with `headrace clean`, or "
            "enlarge /dev/shm (in a container: --shm-size)"
        )
    return found


def gpus(environment: Mapping[str, str] = os.environ, devices: Path = DEVICES) -> int:
    """GPUs that a process with this environment can use."""
    present = sum(1 for file in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name))
    if present == 0:
        present = _listed_gpus()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, _count_visible(visible))


def shared_memory_free(folder: Path = SHARED_MEMORY) -> int:
    """Bytes that can still be taken in ``/dev/shm``; 0 where there is none."""
    if not folder.is_dir():
        return 0
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def record_problems(record_bytes: int, folder: Path) -> list[str]:
    """Why the disk of ``folder`` cannot hold a record.

    Args:
        record_bytes: Most that it takes; 0 without a record.
        folder: Of the run; it need not exist yet.
    """
    present = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(present).free
    if record_bytes <= free:
        return []
    line = (
        f"record.fraction: the record takes up to {record_bytes / 2**30:,.1f} GiB, but {present} "
        f"has {free / 2**30:,.1f} GiB free. Lower record.fraction, raise record.every, or choose "
        "another folder with --out"
    )
    return [line]


def _count_visible(value: str) -> int:
    """Entries before the first one that names no device, as CUDA reads them."""
    count = 0
    for entry in value.split(","):
        if not entry.strip() or entry.strip().startswith("-"):
            break
        count += 1
    return count


def _listed_gpus() -> int:
    """Where devices have no file of their own (WSL), the driver's tool knows them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        done = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(1 for line in done.stdout.splitlines() if line.startswith("GPU "))
