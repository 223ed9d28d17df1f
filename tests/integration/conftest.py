"""One Ray instance for studies that may share it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One Ray instance for all: starting one for each would take longer than the studies."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 12,  # a study may want 3 x 2 for its solvers, and 2 for its ranks
            "object_store_memory": 100 << 20,
            "include_dashboard": False,
        },
    )
    yield nodes.address
    nodes.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def run_here(cluster: str, monkeypatch: pytest.MonkeyPatch, tmp_run: Path) -> Iterator[Path]:
    """A run directory for a study that joins the shared instance."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    yield tmp_run
    assert not ray.is_initialized()
