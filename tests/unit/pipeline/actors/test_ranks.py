"""A rank's process, without Ray: where it listens for the others."""

import psutil

from pipeline.actors.trainer import LOOPBACK, listen


def test_ranks_of_one_node_meet_where_nobody_outside_can_reach_them() -> None:
    store, port = listen(LOOPBACK, 2)
    listening = [
        each.laddr.ip for each in psutil.Process().net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    ]  # fmt: skip
    assert listening == [LOOPBACK]
    del store
