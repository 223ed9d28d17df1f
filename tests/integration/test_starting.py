"""A study that cannot be started says why, and leaves nothing behind."""

import tempfile
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.actors.cluster import cluster
from pipeline.errors import ConfigError, StudyFailed
from pipeline.guards import project_root
from pipeline.run import run
from pipeline.slots.shared_files import SHARED_MEMORY
from tests.small_study import MEMBERS, NAME, VALIDATION, small_study

pytestmark = pytest.mark.cluster


def test_ray_s_absence_is_said_with_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_run: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=127.0.0.1:1: no Ray cluster"):
        run(small_study(), out=tmp_run)
    assert not tmp_run.exists()


def test_a_start_that_fails_leaves_nothing(tmp_run: Path) -> None:
    study = small_study(
        solver={"grid": [1000, 1000]}, reservoir={"capacity": 20_000}, ensemble={"validation": 0}
    )
    with pytest.raises(StudyFailed, match=r"GB of shared memory needed.*reservoir.capacity"):
        run(study, out=tmp_run)
    assert list(SHARED_MEMORY.glob(f"headrace-{NAME}-*")) == []
    assert not tmp_run.exists()
    assert not ray.is_initialized()


def test_solvers_take_no_cpu_that_a_rank_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_run: Path
) -> None:
    others = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False}
    )
    monkeypatch.setenv("RAY_ADDRESS", others.address)
    try:
        summary = run(small_study(ensemble={"concurrent": 3}), out=tmp_run).summary
    finally:
        others.shutdown()  # type: ignore[no-untyped-call]
    assert summary.members_completed == MEMBERS + VALIDATION


def test_ray_of_the_caller_is_left_alone(tmp_run: Path) -> None:
    with (
        cluster(cpus=1, project_root=project_root()),
        pytest.raises(ConfigError, match="Ray is running in this process already"),
    ):
        run(small_study(), out=tmp_run)


def test_a_long_folder_for_temporary_files_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 62)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with cluster(cpus=1, project_root=project_root()) as nodes:
        assert len(nodes) == 1
    assert list(long.glob("headrace-ray-*")) == []
