"""Several Ray nodes on this machine: a program that a drill starts, and tells to lose one.

    python -m pipeline.actors.local_nodes CPUS CPUS...

It writes the cluster's address, and then a line for each line that it was told: ``last`` asks for
the process to which the workers of the last node belong, ``lose`` kills that node, ``add`` starts
it again.

1. When its standard input ends, which the death of who started it does too, all nodes end.
2. Who has no token cannot join: it is in the environment of whoever may (``RAY_AUTH_TOKEN``).
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.actors.cluster import OBJECT_STORE_BYTES, RAY_ENVIRONMENT, ray_folder


def main(cpus: Sequence[int]) -> None:
    """Start a node with each number of CPUs, then do what is asked for on standard input."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.cluster_utils import Cluster  # reads the environment

    def node(number: int) -> dict[str, Any]:
        return {"num_cpus": number, "object_store_memory": OBJECT_STORE_BYTES}

    folder = str(ray_folder())
    head = node(cpus[0]) | {"include_dashboard": False, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        more = [cluster.add_node(**node(number)) for number in cpus[1:]]
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            answer = "done"
            if line.strip() == "last":
                answer = str(more[-1].all_processes["raylet"][0].process.pid)
            elif line.strip() == "lose":
                cluster.remove_node(more.pop(), allow_graceful=False)
            else:
                more.append(cluster.add_node(**node(cpus[-1])))
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
