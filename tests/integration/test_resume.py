"""A study that is killed or stopped goes on to the end it would have had; with real kills."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import run
from pipeline.control.journal import read
from pipeline.control.stopping import StopRequest
from pipeline.errors import StudyStopped
from pipeline.record.reader import open_record
from pipeline.slots.shared_files import remove_stale
from pipeline.stats.stats import StudyStats
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.own_files import study_tree, written
from tests.small_study import small_study
from trainers.checkpoints.files import newest_valid, steps_in

pytestmark = pytest.mark.cluster

PROGRAM = Path(sys.executable).with_name("headrace")
WAIT_SECONDS = 240.0
VALIDATION, STEPS = 2, 40
PREFIX = f"headrace-resumed-{os.getpid()}-"


def study_of(members: int, **trainer: object) -> StudyConfig:
    return small_study(
        solver={"steps": STEPS},
        ensemble={"members": members, "validation": VALIDATION},
        trainer={"validate_every": 40, **trainer},
        checkpoint={"every_seconds": 0.3},
        record={},
    )


class Killed:
    """A study on the command line, in a process group of its own."""

    def __init__(self, folder: Path, study: StudyConfig) -> None:
        folder.mkdir(exist_ok=True)
        self.out = folder / "run"
        self._path = folder / "study.yaml"
        tree = study.as_json() | {"name": f"resumed-{os.getpid()}"}
        self._path.write_text(yaml.safe_dump(tree))
        self._process: subprocess.Popen[str] | None = None
        self._begun_again = False
        self._earlier: dict[float, int] = {}
        self.output = ""

    def _resumed(self) -> dict[float, int]:
        """When it has gone on, and from which train step."""
        path = self.out / "journal.jsonl"
        events = read(path) if path.exists() else ()
        return {e["at"]: e["train_step"] for e in events if e["event"] == "resumed"}

    def _has_own_checkpoint(self) -> bool:
        """Whether this part of it has completed one; ranks of a killed one may do that, too."""
        steps = steps_in(self.out / "checkpoints")
        if not self._begun_again:
            return bool(steps)
        new = [step for at, step in self._resumed().items() if at not in self._earlier]
        return bool(new) and steps[-1] > new[-1]

    def start(self, *options: str) -> None:
        self._begun_again = bool(steps_in(self.out / "checkpoints"))
        self._earlier = self._resumed()
        self._process = subprocess.Popen(
            [PROGRAM, "run", self._path, "--out", self.out, "--resume", *options, "-q"],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_new_checkpoint(self) -> bool:
        """Whether one was completed before the study had ended."""
        assert self._process is not None
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._has_own_checkpoint():
            if self._process.poll() is not None:
                assert self._process.returncode == 0, self._process.communicate()[0]
                return False
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.02)
        return True

    def signal(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        assert self._process is not None
        self.output, _ = self._process.communicate(timeout=WAIT_SECONDS)
        return self._process.returncode

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    remove_stale(prefix=PREFIX)


def check_the_end(out: Path, members: int) -> None:
    """Every member was completed, every sample counted once, and nothing is left behind."""
    summary = json.loads((out / "summary.json").read_text())
    assert summary["members_completed"] == members + VALIDATION
    assert summary["members_failed"] == 0
    assert summary["samples_inserted"] == members * STEPS
    assert summary["samples_unique"] == members * STEPS
    assert math.isfinite(summary["validation_error"])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    elapsed = [line["elapsed_seconds"] for line in lines]
    assert elapsed == sorted(elapsed)
    steps = [rank["train_step"] for line in lines[-1:] for rank in line["ranks"]]
    assert set(steps) == {summary["train_steps"]}
    found, broken = newest_valid(out / "checkpoints")
    assert found is not None
    assert broken == {}
    assert not list((out / "checkpoints").glob(".*"))
    assert not list(Path("/dev/shm").glob(f"{PREFIX}*"))
    if (out / "record.zarr").exists():
        check_the_record(out, members, summary["samples_drawn"])


def check_the_record(out: Path, members: int, drawn: int) -> None:
    """Every sample is there once, and every draw was counted once."""
    data = open_record(out)
    assert data.attrs["complete"]
    found = list(zip(data["member"].values.tolist(), data["number"].values.tolist(), strict=True))
    training = range(VALIDATION, VALIDATION + members)
    assert found == [(member, sample) for member in training for sample in range(STEPS)]
    assert int(data["draws"].sum()) == drawn


def killed_often(folder: Path, times: int, members: int) -> int:
    rng, study = random.Random(times), Killed(folder, study_of(members))
    kills = 0
    try:
        study.start()
        while kills < times and study.wait_for_new_checkpoint():
            time.sleep(rng.uniform(0.0, 1.0))
            study.signal(signal.SIGKILL)
            kills += 1
            if (study.out / "summary.json").exists():
                break
            study.start()
        if not (study.out / "summary.json").exists():
            assert study.finish() == 0, study.output
    finally:
        study.end()
    check_the_end(study.out, members)
    assert (study.out / "record.zarr").exists()
    resumed = [e for e in read(study.out / "journal.jsonl") if e["event"] == "resumed"]
    assert all(event["train_step"] > 0 for event in resumed)
    steps = [event["train_step"] for event in resumed]
    assert steps == sorted(steps)
    return len(resumed)


@pytest.mark.studies
def test_a_study_whose_driver_is_killed_goes_on_from_its_checkpoint(folder: Path) -> None:
    assert killed_often(folder, 1, 120) == 1


@pytest.mark.studies
def test_a_deterministic_study_that_was_killed_learns_the_same_to_the_last_bit(
    folder: Path,
) -> None:
    settings = {"device": "cpu", "log_every": 1, "validate_every": 40}
    tree = study_of(40, **settings).as_json() | {"deterministic": True}
    whole, parts = (
        Killed(folder / name, StudyConfig.model_validate(tree)) for name in ("whole", "parts")
    )
    try:
        whole.start()
        assert whole.finish() == 0, whole.output
        parts.start("--set", "ensemble.concurrent=1")
        for concurrent in (2, 3):
            assert parts.wait_for_new_checkpoint(), "it had ended before it could be killed"
            parts.signal(signal.SIGKILL)
            parts.start("--set", f"ensemble.concurrent={concurrent}")
        assert parts.finish() == 0, parts.output
    finally:
        whole.end()
        parts.end()
    check_the_end(parts.out, 40)
    assert outcome(parts.out) == outcome(whole.out)
    losses = [losses_of(study.out) for study in (whole, parts)]
    both = losses[0].keys() & losses[1].keys()  # they are looked at twice a second
    assert both
    assert [losses[0][step] for step in both] == [losses[1][step] for step in both]


def outcome(out: Path) -> tuple[bytes, list[bytes], float]:
    """All that the losses have led to: every weight, and every prediction."""
    with np.load(out / "validation" / "rank0.npz") as kept:
        arrays = [kept[name].tobytes() for name in sorted(kept.files)]
    weights = (out / "model" / "model.safetensors").read_bytes()
    return weights, arrays, json.loads((out / "summary.json").read_text())["validation_error"]


def losses_of(out: Path) -> dict[tuple[int, int], float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        (rank["rank"], rank["train_step"]): rank["loss"] for line in lines for rank in line["ranks"]
    }


@pytest.mark.slow
@pytest.mark.parametrize(("times", "members"), [(3, 200), (20, 600)])
def test_a_study_whose_driver_is_killed_again_and_again_reaches_its_end(
    folder: Path, times: int, members: int
) -> None:
    assert killed_often(folder, times, members) > times // 2


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_sigterm_leaves_a_checkpoint_that_another_number_of_ranks_goes_on_from(
    folder: Path, before: int, after: int
) -> None:
    # A study with a record keeps its ranks.
    study = Killed(folder, parse(study_of(120, ranks=before).as_json() | {"record": None}))
    try:
        study.start()
        assert study.wait_for_new_checkpoint()
        assert study.signal(signal.SIGTERM) == 0, study.output
        (stopped,) = [e for e in read(study.out / "journal.jsonl") if e["event"] == "stopped"]
        found, _ = newest_valid(study.out / "checkpoints")
        assert found is not None
        assert found.train_step == stopped["checkpoint"]
        assert f"headrace resume {study.out}" in study.output
        assert not list((study.out / "checkpoints").glob(".*"))
        assert not list(Path("/dev/shm").glob(f"{PREFIX}*"))
        study.start("--set", f"trainer.ranks={after}", "--set", "reservoir.capacity=130")
        assert study.finish() == 0, study.output
    finally:
        study.end()
    check_the_end(study.out, 120)
    (resumed,) = [e for e in read(study.out / "journal.jsonl") if e["event"] == "resumed"]
    assert resumed["train_step"] == found.train_step


@pytest.mark.studies
def test_a_resumed_study_computes_with_the_files_that_it_began_with(folder: Path) -> None:
    written(folder, "time = step", "import time; time.sleep(0.02); time = step")
    rates = [1 + 0.01 * member for member in range(60)]
    table = folder / "rates.csv"
    table.write_text("\n".join(["rate", *map(str, rates)]), encoding="utf-8")
    tree = study_tree("./decay.py:Decay", name=f"resumed-{os.getpid()}")
    tree["ensemble"] = {"members": 58, "validation": 2, "design": {"csv": "rates.csv"}}
    del tree["parameters"]
    stop, trained = StopRequest(), list[int]()

    def ask(stats: StudyStats) -> None:
        trained.extend(rank.train_step for rank in stats.ranks if rank.train_step)
        if len(trained) == 2:  # the driver has seen the first
            assert stop.ask()

    with pytest.raises(StudyStopped):
        run.run(parse(tree, folder=folder), out=folder / "run", observers=[ask], stop=stop)
    table.write_text("\n".join(["rate", *["2"] * 60]), encoding="utf-8")
    (folder / "decay.py").unlink()
    assert run.resume(folder / "run").summary.members_completed == 60
    started = [e for e in read(folder / "run" / "journal.jsonl") if e["event"] == "start"]
    in_order = [*rates[58:], *rates[:58]]  # validation members are the last rows
    assert {e["member"]: e["parameters"]["rate"] for e in started} == dict(enumerate(in_order))
    assert all(e["parameters"]["rate"] == in_order[e["member"]] for e in started)
