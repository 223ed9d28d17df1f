"""deploy/cluster/slurm.py: the sbatch script, against a golden file and against bash itself."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster.slurm import MAX_TEMP_DIR, SlurmOptions, cpus_per_node, render
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.fake_study import STUDY

STUDY_PATH = "/home/ada/my studies/plate.yaml"


def options(**changes: Any) -> SlurmOptions:
    given: dict[str, Any] = {
        "name": "plate",
        "command": ("headrace", "run", STUDY_PATH, "--set", "name=plate-2"),
        "nodes": 2,
        "cpus_per_node": 8,
        "gpus_per_node": 1,
        "memory": "32G",
        "time": "1-12:00:00",
        "partition": "gpu",
        "account": "phys-101",
        "qos": "long",
        "bin_dir": Path("/opt/headrace/.venv/bin"),
        "setup": ("module load openblas",),
    }
    return SlurmOptions(**(given | changes))


def study() -> StudyConfig:
    return parse(yaml.safe_load(STUDY))


def test_the_script_is_the_golden_one(project: Path) -> None:
    golden = project / "tests" / "golden" / "slurm.sh"
    assert render(options()) == golden.read_text(), f"look at the difference, then renew {golden}"


def test_bash_accepts_the_script() -> None:
    subprocess.run(["bash", "-n"], input=render(options()), text=True, check=True)


def test_words_reach_the_command_as_they_were_given() -> None:
    script = render(options())
    assert f"headrace run '{STUDY_PATH}' --set name=plate-2 &" in script
    assert "export PATH='/opt/my tools/bin':" in render(options(bin_dir=Path("/opt/my tools/bin")))


def test_what_is_not_chosen_is_left_to_the_cluster() -> None:
    bare = render(
        options(memory=None, partition=None, account=None, qos=None, gpus_per_node=0, setup=())
    )
    headers = re.findall(r"^#SBATCH --([\w-]+)", bare, re.MULTILINE)
    assert not {"mem", "partition", "account", "qos", "gres"} & set(headers)
    assert "--num-gpus=0" in bare


def test_the_token_stands_in_no_file_and_on_no_command_line() -> None:
    script = render(options())
    assert script.count("RAY_AUTH_TOKEN") == 2
    assert "RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')" in script
    assert "export RAY_AUTH_MODE=token" in script


def test_only_what_was_started_is_ended() -> None:
    script = render(options())
    assert not re.search(r"ray stop|pkill|killall|kill -9 -1", script)
    for line in re.findall(r"^.*\bkill\b.*$", script, re.MULTILINE):
        assert '"$1"' in line or '"$driver"' in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "nodes=0: must be at least 1"),
        ({"cpus_per_node": 0}, "cpus_per_node=0: must be at least 1"),
        ({"gpus_per_node": -1}, "gpus_per_node=-1: must be at least 0"),
        ({"grace_seconds": 0}, "grace_seconds=0: must be at least 1"),
        ({"name": "a b"}, "name='a b': only letters"),
        ({"partition": "x\n#SBATCH --uid=0"}, "partition=.*only letters"),
        ({"account": "$(id)"}, "account=.*only letters"),
        ({"qos": ""}, "qos='': only letters"),
        ({"time": "an hour"}, "time='an hour': write minutes"),
        ({"memory": "32 GB"}, "memory='32 GB': write a number"),
        ({"command": ()}, "command is empty"),
        ({"temp_dir": "scratch"}, "temp_dir='scratch': must be an absolute path"),
        ({"temp_dir": "/" + "x" * MAX_TEMP_DIR}, "choose a shorter one|Choose a shorter one"),
    ],
)
def test_what_slurm_would_misread_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


@pytest.mark.parametrize("time", ["90", "45:00", "01:30:00", "2-00", "2-12:30", "2-00:00:00"])
def test_every_way_to_write_a_time_is_accepted(time: str) -> None:
    assert f"#SBATCH --time={time}\n" in render(options(time=time))


def test_the_study_says_how_many_cpus_it_needs() -> None:
    assert study().cpus == 4  # two solvers at once and two ranks
    assert [cpus_per_node(study(), nodes) for nodes in (1, 2, 3, 8)] == [4, 2, 2, 1]


def test_the_mpi_ranks_of_a_member_share_a_node() -> None:
    # Two solvers of three mpi_ranks and two ranks.
    large = parse(yaml.safe_load(STUDY.replace("concurrent: 2", "concurrent: 2, mpi_ranks: 3")))
    assert large.cpus == 8
    assert [cpus_per_node(large, nodes) for nodes in (1, 2, 3, 8)] == [8, 4, 4, 3]
