"""The sbatch script on a real Slurm with two simulated hosts: a study runs and leaves nothing."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.cluster.slurm import SlurmOptions, render
from tests.fake_study import SAMPLES_PER_MEMBER, STUDY

pytestmark = pytest.mark.slurm

JOB_SECONDS = 150.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Two hosts with Slurm on them; its files lie under ``home``."""

    ops: Path
    home: Path

    def on(self, host: str, *command: str) -> str:
        """Run a command in a host, return what it wrote."""
        done = subprocess.run(
            ["bash", str(self.ops / "simhosts.sh"), str(self.home), "exec", host, *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30.0,
            check=False,
        )
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """A home directory of its own, so that nothing of the user's is read or written."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        kept["PATH"] += ":/usr/sbin:/sbin"
        return kept | {
            "HOME": str(self.home),
            "SLURM_CONF": str(self.home / "slurm" / "slurm.conf"),
        }

    def submit(self, options: SlurmOptions) -> str:
        """Submit the script of ``options``; the job's number."""
        path = self.home / f"{options.name}.sh"
        path.write_text(render(options))
        said = self.on("ctl", "sbatch", f"--chdir={self.home}", str(path))
        assert said.startswith("Submitted batch job"), said
        return said.split()[-1]

    def end_of(self, job: str) -> dict[str, str]:
        """Wait for a job's end; the fields of ``scontrol show job``."""
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            text = self.on("ctl", "scontrol", "-o", "show", "job", job)
            fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
            if fields["JobState"] in ENDED:
                return fields
            assert time.monotonic() < deadline, self.log(fields)
            time.sleep(0.2)

    def log(self, fields: dict[str, str]) -> str:
        """What the job wrote."""
        path = Path(fields["StdOut"])
        return path.read_text() if path.exists() else f"no log: {fields}"

    def processes(self) -> list[str]:
        """Processes in the two hosts that are neither the host's own nor Slurm's."""
        own = ("bash", "sleep", "slurmd", "slurmstepd", "ps", "COMMAND")
        found = []
        for host in ("h1", "h2"):
            lines = self.on(host, "ps", "-e", "-o", "comm").split()
            found += [f"{host}: {line}" for line in lines if line not in own]
        return found


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    project: Path,
    require_tool: Callable[..., None],
    unavailable: Callable[[str], NoReturn],
) -> Iterator[Cluster]:
    require_tool("sbatch", "slurmctld", "slurmd", "munged", "ip", "nsenter", "unshare")
    if os.geteuid() != 0:
        unavailable("simulated hosts need root")
    # The last part names the network namespaces, and is the cluster's name.
    home = tmp_path_factory.mktemp("s") / f"hr{os.getpid()}"
    started = Cluster(ops=project / "tests" / "ops", home=home)
    log = home.parent / "start.log"
    try:
        with log.open("w") as file:  # not a pipe: the daemons keep it open
            done = subprocess.run(
                ["bash", str(started.ops / "slurm_cluster.sh"), str(home), "2"],
                env=started.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=60.0,
                check=False,
            )
        if done.returncode != 0:
            unavailable(f"no Slurm on simulated hosts here: {log.read_text()[-500:]}")
        yield started
    finally:
        hosts = ["bash", str(started.ops / "simhosts.sh"), str(home), "down"]
        subprocess.run(hosts, env=started.environment, timeout=30.0, check=True)
    left = [path.name for path in Path("/run/netns").glob(f"{home.name}-*")]
    assert left == []


def _token_of(cluster: Cluster, host: str) -> str:
    """The token that Ray has on a host, or nothing while it is not up."""
    pid = cluster.on(host, "pgrep", "-o", "-x", "raylet").strip()
    environment = cluster.on(host, "cat", f"/proc/{pid}/environ") if pid else ""
    given = dict(word.split("=", 1) for word in environment.split("\0") if "=" in word)
    assert given.get("RAY_AUTH_MODE", "token") == "token"
    return given.get("RAY_AUTH_TOKEN", "")


@pytest.mark.studies
def test_a_study_runs_on_two_nodes_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    study, out = tmp_path / "plate.yaml", tmp_path / "a run"
    study.write_text(STUDY)
    smaller = ("--set", "ensemble.members=12", "--set", "ensemble.validation=2")
    options = SlurmOptions(
        name="plate",
        command=("headrace", "run", str(study), *smaller, "--out", str(out)),
        nodes=2,
        cpus_per_node=2,  # two ranks and two solvers: a job of one node could not hold them
        time="00:05:00",
        temp_dir="/tmp/ray",
    )
    job = cluster.submit(options)
    deadline = time.monotonic() + JOB_SECONDS
    while not all(tokens := [_token_of(cluster, host) for host in ("h1", "h2")]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    lines = [cluster.on(host, "ps", "-e", "-ww", "-o", "args") for host in ("h1", "h2")]
    fields = cluster.end_of(job)
    log = cluster.log(fields)
    assert fields["JobState"] == "COMPLETED", log
    assert "Ray runs on 2 node(s), head on h1" in log
    summary = json.loads((out / "summary.json").read_text())
    assert summary["members_completed"] == 14
    assert summary["samples_unique"] == summary["samples_inserted"] == 12 * SAMPLES_PER_MEMBER
    assert (out / "report.html").exists()

    assert len(tokens[0]) == 64
    assert tokens[0] == tokens[1]
    assert all("raylet" in text and tokens[0] not in text for text in (*lines, "raylet" + log))
    assert cluster.processes() == []
    for host in ("h1", "h2"):
        assert list((cluster.home / host / "ray").iterdir()) == []
        assert "headrace" not in cluster.on(host, "ls", "/dev/shm")


def test_a_signal_reaches_the_command_and_its_exit_code_is_the_job_s(
    cluster: Cluster, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    waits = f"trap 'exit 3' TERM; touch {ready}; while :; do sleep 0.1; done"
    options = SlurmOptions(
        name="patient", command=("bash", "-c", waits), cpus_per_node=1, temp_dir="/tmp/ray"
    )
    job = cluster.submit(options)
    deadline = time.monotonic() + JOB_SECONDS
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cluster.on("ctl", "scancel", "--batch", "--signal=TERM", job) == ""
    fields = cluster.end_of(job)
    assert (fields["JobState"], fields["ExitCode"]) == ("FAILED", "3:0"), cluster.log(fields)
    assert cluster.processes() == []
    for host in ("h1", "h2"):
        assert list((cluster.home / host / "ray").iterdir()) == []
