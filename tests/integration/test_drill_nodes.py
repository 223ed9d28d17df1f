"""Ray nodes of a drill: several on this machine, open to who has their token, gone with it."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.drill.nodes import Nodes

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

JOIN = (
    "import sys, time, ray\n"
    "ray.init(address=sys.argv[1], log_to_driver=False)\n"
    "until = time.monotonic() + 60\n"  # Ray may be slow to notice
    "while sum(node['Alive'] for node in ray.nodes()) != int(sys.argv[2]):\n"
    "    assert time.monotonic() < until\n"
    "    time.sleep(0.1)\n"
)


def joined(nodes: Nodes, environment: dict[str, str], *, alive: int) -> bool:
    """Whether a program with this environment joins, and finds so many nodes alive."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN, nodes.environment["RAY_ADDRESS"], str(alive)],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    return done.returncode == 0


def test_only_who_has_the_token_joins_and_a_lost_node_is_lost(tmp_path: Path) -> None:
    nodes = Nodes([2, 2], tmp_path / "nodes.txt")
    try:
        assert joined(nodes, nodes.environment, alive=2)
        stranger = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
        assert not joined(nodes, stranger | wrong, alive=2)
        there = {each.pid for each in nodes.on_the_last()}
        assert there
        assert there < {each.pid for each in nodes.processes()}
        nodes.lose()
        assert not there & {each.pid for each in nodes.processes()}
        assert joined(nodes, nodes.environment, alive=1)
        nodes.add()
        assert joined(nodes, nodes.environment, alive=2)
        processes = nodes.processes()
        assert len(processes) > 2
    finally:
        nodes.end()
    _, alive = psutil.wait_procs(processes, timeout=90.0)
    assert alive == []
