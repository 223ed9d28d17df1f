"""Writes the sbatch script of a study: Ray on the job's nodes, the study on top, both taken down.

1. ``render`` is pure: the same options give the same text, and submitting is the user's own step.
2. The job's token is made when the job runs, and stands in no file and on no command line.
3. What the script started it ends by process id; another Ray on the same node is never touched.
4. Every wait in the script has an end.
"""

import math
import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template

from pipeline.study.config import StudyConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,-]*")
_TIME = re.compile(r"\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d{1,2}(:\d{2}){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?")
# A Unix socket's path holds 107 bytes, and Ray adds 70:
# /session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1234
MAX_TEMP_DIR = 107 - 70 - len("/headrace-1234567890")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """One job.

    Attributes:
        name: Job name; the log is ``NAME-JOBID.log``.
        command: What runs once Ray is up, e.g. ``("headrace", "run", "/home/me/study.yaml")``.
        nodes: Whole or shared nodes, at least 1.
        cpus_per_node: CPUs that Ray may hand out on each node.
        gpus_per_node: GPUs that Ray may hand out on each node.
        memory: Per node, as Slurm writes it (``"16G"``); None: the partition's default.
        time: Limit, as Slurm writes it, e.g. ``"01:30:00"`` or ``"2-00:00:00"``.
        partition: None: the default one.
        account: None: the default one.
        qos: None: the default one.
        grace_seconds: SIGTERM reaches the study this long before the limit.
        bin_dir: Folder of the ``headrace``, ``ray`` and ``python`` to use, first on the path.
        temp_dir: A folder on each node's own disk, for Ray's sockets and logs.
        setup: Shell lines to run first, e.g. ``("module load cuda",)``.
        requeue: Whether Slurm may start the job again: the command goes on where it was.
    """

    name: str
    command: tuple[str, ...]
    nodes: int = 1
    cpus_per_node: int = 4
    gpus_per_node: int = 0
    memory: str | None = None
    time: str = "01:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    grace_seconds: int = 60
    bin_dir: Path = field(default_factory=lambda: Path(sys.executable).parent)
    temp_dir: str = "/tmp"
    setup: tuple[str, ...] = ()
    requeue: bool = False

    def __post_init__(self) -> None:
        for name, value, low in (
            ("nodes", self.nodes, 1),
            ("cpus_per_node", self.cpus_per_node, 1),
            ("gpus_per_node", self.gpus_per_node, 0),
            ("grace_seconds", self.grace_seconds, 1),
        ):
            if value < low:
                raise ValueError(f"{name}={value}: must be at least {low}. Raise it.")
        for name, text in (
            ("name", self.name),
            ("partition", self.partition),
            ("account", self.account),
            ("qos", self.qos),
        ):
            if text is not None and not _NAME.fullmatch(text):
                raise ValueError(
                    f"{name}={text!r}: only letters, digits, '.', '_', ',' and '-' are allowed."
                )
        if not _TIME.fullmatch(self.time):
            raise ValueError(f"time={self.time!r}: write minutes, HH:MM:SS or DAYS-HH:MM:SS.")
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise ValueError(f"memory={self.memory!r}: write a number and K, M, G or T, as in 16G.")
        if not self.command:
            raise ValueError("command is empty: name what the job is to run.")
        if not self.temp_dir.startswith("/") or len(self.temp_dir) > MAX_TEMP_DIR:
            raise ValueError(
                f"temp_dir={self.temp_dir!r}: must be an absolute path of at most {MAX_TEMP_DIR} "
                "characters (a Unix socket's path is limited). Choose a shorter one."
            )


def cpus_per_node(study: StudyConfig, nodes: int) -> int:
    """Fewest CPUs of each of ``nodes`` nodes with which the whole study runs at once.

    The mpi_ranks of a member share a node.
    """
    ensemble, ranks = study.ensemble, study.trainer.ranks
    ranks_on = [len(range(node, ranks, nodes)) for node in range(nodes)]
    cpus = math.ceil(study.cpus / nodes)
    while sum((cpus - held) // ensemble.mpi_ranks for held in ranks_on) < ensemble.concurrent:
        cpus += 1
    return cpus


def render(options: SlurmOptions) -> str:
    """The sbatch script."""
    template = (files("deploy") / "templates" / "slurm.sh").read_text(encoding="utf-8")
    return Template(template).substitute(
        headers="\n".join(f"#SBATCH --{line}" for line in _headers(options)),
        setup="\n".join(options.setup) or ":",
        bin_dir=shlex.quote(str(options.bin_dir)),
        temp_dir=shlex.quote(options.temp_dir),
        gpus=options.gpus_per_node,
        command=shlex.join(options.command),
    )


def _headers(options: SlurmOptions) -> list[str]:
    lines = [
        f"job-name={options.name}",
        f"output={options.name}-%j.log",
        f"nodes={options.nodes}",
        "ntasks-per-node=1",
        f"cpus-per-task={options.cpus_per_node}",
        f"time={options.time}",
        # To the script alone (B:), which passes it on to the study and then takes Ray down.
        f"signal=B:TERM@{options.grace_seconds}",
        # A second start in a run directory is refused, unless the study goes on from a checkpoint.
        "requeue" if options.requeue else "no-requeue",
    ]
    if options.gpus_per_node:
        lines.append(f"gres=gpu:{options.gpus_per_node}")
    chosen = {
        "mem": options.memory,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
    }
    return lines + [f"{name}={value}" for name, value in chosen.items() if value is not None]
