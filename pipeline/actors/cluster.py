"""The Ray instance a study runs on: joined or started, its nodes, and where the ranks go.

1. A private instance needs a token that exists only in the environment of its processes, which
   their user alone can read; nothing is written to the home directory. Its sockets and logs lie in
   a folder that is open to its user alone.
2. ``place_ranks`` never gives a node more ranks than it has devices.
3. The working directory is the project's root while Ray runs, because Ray puts it first on every
   worker's ``sys.path``, where a study's own ``solvers/`` folder would hide ours.
"""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError, StudyFailed
from pipeline.stream.sockets import make_private, socket_folder
from pipeline.study.config import StudyConfig

NODE_ID_LABEL = "ray.io/node-id"

# Ray gives no type to the handles of actors that were made with options, nor to what they return.
Actor = Any
Answer = Any

# Ray reads these when it starts; an operator's own values win.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # workers would run at nice 15: the solvers are the work here
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
CONNECT_SECONDS = 20.0
# A part that does not answer within this time when it is told to close is killed with Ray itself.
CLOSE_SECONDS = 10.0
# The longest path that Ray makes of its folder.
_RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.9"
# Field data never goes through the object store; this is for configs and statistics.
OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One machine of the cluster.

    Attributes:
        id: Ray's node id.
        address: Its IP address.
        cpus: Logical CPUs it offers.
        gpus: GPUs it offers.
    """

    id: str
    address: str
    cpus: int
    gpus: int


def place_ranks(nodes: Sequence[Node], ranks: int, *, use_gpu: bool) -> list[Node]:
    """Choose a node for each rank, evenly over the devices; element ``i`` is one rank's node.

    Raises:
        ConfigError: There are fewer devices than ranks.
    """
    free = {node.id: node.gpus if use_gpu else node.cpus for node in nodes}
    by_id = {node.id: node for node in nodes}
    device = "GPU" if use_gpu else "CPU"
    if sum(free.values()) < ranks:
        raise ConfigError(
            [
                (
                    f"trainer.ranks={ranks}: the cluster has {sum(free.values())} {device}s on "
                    f"{len(nodes)} node(s), and every rank needs one. Lower trainer.ranks, or "
                    "start the study where there are more."
                )
            ]
        )
    chosen = []
    for _ in range(ranks):
        best = max(free, key=lambda node: free[node])
        free[best] -= 1
        chosen.append(best)
    # Ranks of one node stand next to each other, as torch.distributed numbers them.
    chosen.sort(key=[node.id for node in nodes].index)
    return [by_id[node] for node in chosen]


def uses_gpu(study: StudyConfig, nodes: Sequence[Node]) -> bool:
    """Whether the ranks train on GPUs: when asked for, or when every rank can have one."""
    if study.trainer.device == "auto":
        return sum(node.gpus for node in nodes) >= study.trainer.ranks
    return study.trainer.device == "cuda"


def require_cpus(nodes: Sequence[Node], mpi_ranks: int) -> None:
    """Refuse members that no node could hold; their solvers would wait for one for ever.

    Raises:
        ConfigError: Every node has fewer CPUs.
    """
    most = max((node.cpus for node in nodes), default=0)
    if most < mpi_ranks:
        raise ConfigError(
            [
                (
                    f"ensemble.mpi_ranks={mpi_ranks}: the mpi_ranks of a simulation share a node, "
                    f"and no node of the cluster has more than {most} CPUs. Lower "
                    "ensemble.mpi_ranks, or start the study where nodes are larger."
                )
            ]
        )


@contextmanager
def cluster(*, cpus: int, project_root: Path) -> Iterator[list[Node]]:
    """Join the Ray cluster named by ``RAY_ADDRESS``, or start one on this machine; yield its nodes.

    Args:
        cpus: What the study will claim. A private instance offers at least that many logical CPUs:
            on a laptop, solvers and trainer share the cores.
        project_root: The folder that holds headrace's packages.
    """
    if ray.is_initialized():
        line = (
            "Ray is running in this process already. Call ray.shutdown() first, or name its "
            "cluster in RAY_ADDRESS and run the study from another process."
        )
        raise ConfigError([line])
    before, terminate = Path.cwd(), signal.getsignal(signal.SIGTERM)
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.chdir(project_root)
    try:
        if "RAY_ADDRESS" in os.environ:
            _join(os.environ["RAY_ADDRESS"])
        else:
            _start_private(cpus)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray's own would abort this process
        yield _nodes()
    finally:
        ray.shutdown()
        os.chdir(before)


def on_node(node: Node) -> dict[str, Any]:
    """Actor options that pin an actor to a node, beside the CPUs and GPUs claimed there."""
    return {"label_selector": {NODE_ID_LABEL: node.id}}


def answers(futures: Sequence[Answer], failed: str, *, within: float | None = None) -> list[Any]:
    """What the calls return.

    Args:
        futures: The calls.
        failed: What to say when one fails.
        within: Seconds; None: an actor may take its time.

    Raises:
        StudyFailed: An actor could not be made, or its call failed or took too long.
    """
    try:
        return ray.get(list(futures), timeout=within)
    except RayError as error:
        raise StudyFailed(f"{failed}: {last_line(error)}") from error


def close_all(actors: Sequence[Actor], *, within: float) -> None:
    """Let actors free what they own, then end them; one that does not answer in time is killed."""
    with suppress(RayError):
        ray.wait(
            [actor.close.remote() for actor in actors], num_returns=len(actors), timeout=within
        )
    for actor in actors:
        ray.kill(actor)


def last_line(error: BaseException) -> str:
    """The last line of an error, which in Ray's wrappings is the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _join(address: str) -> None:
    try:
        if not address.startswith(("auto", "ray://")):
            # Ray itself would try for minutes before it says that nobody is there.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        line = (
            f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({last_line(error)}). "
            "Start one, correct the address, or unset RAY_ADDRESS to run on this machine alone."
        )
        raise ConfigError([line]) from error


def _start_private(cpus: int) -> None:
    # Ray listens on all interfaces, and whoever gets in can run code: nobody does without a token.
    # A private instance asks for one by itself (the test of this file proves it; RAY_AUTH_MODE
    # would have to be there before Ray is imported). Given one here, Ray writes none to the home
    # directory. It stays for the life of this process, because Ray caches it.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        address="local",
        _temp_dir=str(ray_folder()),
        num_cpus=max(cpus, os.cpu_count() or 1),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def ray_folder() -> Path:
    """Where Ray's sockets and logs lie: in ``RAY_TMPDIR``, else in a folder of ours.

    Ray lets everybody write into the folders that it makes itself, so there is one around them.

    Raises:
        ConfigError: Paths of sockets would be too long, or somebody else has made our folder.
    """
    if named := os.environ.get("RAY_TMPDIR"):
        return socket_folder(len(_RAY_SOCKET), within=Path(named))
    private = f"headrace-ray-{os.geteuid()}"
    folder = socket_folder(len(f"/{private}/ray{_RAY_SOCKET}")) / private
    make_private(folder)
    return folder / "ray"


def _nodes() -> list[Node]:
    return [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
