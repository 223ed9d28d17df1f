import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

import pipeline
from deploy import cli, launch
from deploy.speaking import Terminated
from deploy.watch import tables as overview
from pipeline.control.stopping import StopRequest
from pipeline.errors import ConfigError, StudyFailed, StudyStopped
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.regions import ErrorRange, ErrorsOf
from pipeline.stats.stats import Summary
from pipeline.study.config import StudyConfig
from pipeline.study.load import load
from pipeline.study.sections import RecordConfig
from solvers.registry import SOLVERS
from tests import decay_study
from tests.errors import made_errors
from trainers.models.registry import MODELS

pytestmark = pytest.mark.xdist_group("stale files in /dev/shm")


SUMMARY = Summary(
    name="heat-2d", members_completed=60, members_failed=1, samples_inserted=2950,
    samples_unique=2950, samples_drawn=23_600, reuse_mean=8.0,
    one_step=made_errors(mse=41.5), train_steps=1180, wall_seconds=75.2, first_step_seconds=9.04,
    trainer_wait_seconds=3.5, solver_wait_seconds=0.25, bytes_streamed=48_332_800,
)  # fmt: skip


def headrace(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture
def study(here: Path) -> Path:
    assert headrace("init").exit_code == 0
    return here / "study.yaml"


class FakeRun:
    """In place of ``pipeline.run``, so that a command runs without Ray."""

    def __init__(self) -> None:
        self.study: StudyConfig | None = None
        self.out: Path | None = None
        self.source: str | None = None
        self.observers: Sequence[object] = ()
        self.ends_with: BaseException | None = None
        self.reported: list[Path] = []

    def run(
        self,
        study: StudyConfig,
        *,
        out: Path,
        source_text: str,
        observers: Sequence[object],
        stop: StopRequest,
    ) -> object:
        self.stop = stop
        self.study, self.out, self.source, self.observers = study, out, source_text, observers
        out.mkdir(parents=True)
        if self.ends_with is not None:
            raise self.ends_with
        return types.SimpleNamespace(summary=SUMMARY)

    def resume(
        self, out: Path, *, study: StudyConfig, observers: Sequence[object], stop: StopRequest
    ) -> object:
        self.study, self.out, self.source, self.stop = study, out, None, stop
        if self.ends_with is not None:
            raise self.ends_with
        return types.SimpleNamespace(summary=SUMMARY)

    def write_report(self, out: Path) -> Path:
        self.reported.append(out)
        return out / "report.html"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    runner, reporter = types.ModuleType("pipeline.run"), types.ModuleType("deploy.report.report")
    runner.run = fake.run  # type: ignore[attr-defined]
    runner.resume = fake.resume  # type: ignore[attr-defined]
    reporter.write_report = fake.write_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.run", runner)
    monkeypatch.setattr(pipeline, "run", runner, raising=False)
    monkeypatch.setitem(sys.modules, "deploy.report.report", reporter)
    return fake


# --- help, version, describe, init, clean ---------------------------------------------------------


def test_help_says_how_to_start() -> None:
    text = headrace("--help").output
    for words in ("headrace init", "headrace check study.yaml", "headrace run study.yaml"):
        assert words in text


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "resume",
        "check",
        "describe",
        "simulate",
        "compare",
        "drill",
        "init",
        "clean",
        "slurm",
        "export",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = headrace(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"headrace {command}" in result.output


def test_version_is_the_one_of_the_distribution() -> None:
    result = headrace("--version")
    assert (result.exit_code, result.output) == (0, "headrace 0.1.0\n")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["run"], ["check", "--sett", "a=1"]])
def test_a_wrong_command_line_is_bad_input(arguments: list[str]) -> None:
    assert headrace(*arguments).exit_code == 2


def test_describe_lists_the_solvers() -> None:
    result = headrace("describe")
    assert result.exit_code == 0
    assert re.match(r"heat +heat conduction", result.output)
    assert len(result.output.splitlines()) == len(SOLVERS)


def test_describe_gives_equation_parameters_and_units() -> None:
    text = headrace("describe", "heat").output
    for words in ("initial", "north", "[100, 500]", "m^2/s"):
        assert words in text


def test_describe_gives_the_networks_their_options_and_sizes() -> None:
    text = headrace("describe", "--models").output
    for kind, entry in MODELS.items():
        assert f"\n{kind}: {entry.summary}\n" in text
    hidden = 6 * 256 + 256 + 256 * 256 + 256 + 256 * 8192 + 8192
    assert f"  {hidden:,} weights\n  hidden      [256, 256]  width of each hidden layer" in text
    assert "from 5 parameters and time to 2 fields of 64 x 64 points" in text
    assert re.search(r"own: .*\n  your weights\n  path +required  Python file\n", text)


def test_describe_of_an_unknown_solver_names_those_there_are() -> None:
    result = headrace("describe", "waves")
    assert result.exit_code == 2
    assert "SOLVER=waves: there is no such solver. Choose one of heat" in result.stderr


def test_init_writes_a_study_that_check_accepts(study: Path) -> None:
    result = headrace("check", str(study))
    assert (result.exit_code, result.stderr) == (0, "")
    assert load(study).warnings() == []


def test_the_commented_keys_of_init_are_right_too(study: Path) -> None:
    lines = study.read_text().splitlines()
    sections = {"# stream:", "# record:"}
    commented = sections | {line for line in lines if line.startswith("#   ") and ": " in line}
    commented -= {line for line in commented if "headrace" in line or "{" in line}
    live = [line[2:] if line in commented else line for line in lines]
    live = [line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in live]
    study.write_text("\n".join(live))
    tree = yaml.safe_load(study.read_text())
    assert set(tree["stream"]) == set(load(study).as_json()["stream"])
    assert tree["ensemble"]["member_timeout"] == 600
    assert tree["trainer"]["device"] == "auto"
    resolved = load(study).as_json()["stream"]
    assert resolved == StudyConfig.model_fields["stream"].default.model_dump(mode="json")
    assert tree["record"] == RecordConfig().model_dump()


def test_init_overwrites_nothing(study: Path) -> None:
    study.write_text("mine")
    result = headrace("init")
    assert result.exit_code == 2
    assert "study.yaml: exists, and is not overwritten. Choose another name" in result.stderr
    assert study.read_text() == "mine"


def test_init_makes_the_folder(here: Path) -> None:
    assert headrace("init", "a/b.yaml").exit_code == 0
    assert load(here / "a" / "b.yaml").name == "heat-2d"


def test_init_says_where_it_cannot_write(study: Path) -> None:
    result = headrace("init", f"{study}/b.yaml")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_clean_removes_what_nobody_owns() -> None:
    stale = Path("/dev/shm/headrace-test-cli-r0-train")
    stale.touch()
    result = headrace("clean")
    assert result.exit_code == 0
    assert f"removed {stale.name}" in result.stdout
    assert not stale.exists()


# --- check ----------------------------------------------------------------------------------------


def test_check_says_what_the_study_will_do_and_need(study: Path) -> None:
    text = headrace("check", str(study), "--set", "ensemble.members=70").stdout
    for words in (
        "heat, 32 x 32 points, temperature", "70 to train on + 6 to validate, 2 at a time",
        "halton", "3,500 = 70 members x 50, 4.00 KiB each", "1 x 1,500 slots", "7.15 MiB",
        "1 rank x batch 20, mlp, at most 1,400",
    ):  # fmt: skip
        assert words in text


def test_check_says_when_nothing_limits_the_train_steps(study: Path) -> None:
    no_limits = ("--set", "reservoir.max_reuse=null", "--set", "reservoir.max_surplus=null")
    assert "as many train steps" in headrace("check", str(study), *no_limits).stdout


def test_check_names_the_csv_of_the_design(study: Path) -> None:
    (study.parent / "p.csv").write_text(
        "initial,west,east,south,north\n" + "200,2e2,200,200,2e2\n" * 66
    )
    text = headrace("check", str(study), "--set", "ensemble.design={csv: p.csv}").stdout
    assert "design         CSV" in text


def test_check_lists_all_errors_and_starts_nothing(study: Path) -> None:
    result = headrace("check", str(study), "--set", "trainer.ranks=0", "--set", "sead=1")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["trainer.ranks=0", "sead=1"]


def test_check_holds_the_study_against_this_machine(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cluster.machine.gpus", lambda: 0)
    monkeypatch.setattr("deploy.cluster.machine.shared_memory_free", lambda: 1 << 20)
    arguments = ("check", str(study), "--set", "trainer.device=cuda")
    result = headrace(*arguments)
    assert result.exit_code == 2
    assert "error: trainer.ranks=1: with trainer.device=cuda" in result.stderr
    assert "error: reservoir.capacity=1500: the slots of 1 rank need 7 MiB" in result.stderr
    assert headrace(*arguments, "--elsewhere").exit_code == 0


def test_check_warns(study: Path) -> None:
    result = headrace("check", str(study), "--set", "ensemble.validation=0")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ensemble.validation=0: nothing will say")


def test_check_runs_where_nothing_heavy_is_installed(study: Path, project: Path) -> None:
    block = (
        "import sys\nfor m in ('torch', 'ray', 'zmq', 'petsc4py', 'mpi4py'): sys.modules[m] = None"
    )
    program = (
        f"{block}\nfrom deploy.cli import main\nsys.argv = ['headrace', 'check', {str(study)!r}]"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nmain()"],
        cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "study heat-2d" in done.stdout


# --- run ------------------------------------------------------------------------------------------


def test_run_hands_over_the_study_and_shows_the_result(study: Path, fake: FakeRun) -> None:
    result = headrace("run", str(study), "--out", "out", "--set", "seed=9", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert fake.study is not None
    assert fake.study.seed == 9
    assert fake.out == study.parent / "out"
    assert fake.source == study.read_text()
    assert list(fake.observers) == []
    assert fake.reported == [fake.out]
    for words in (
        "6.44 K (20 % of its std)", "n = 2", "60 completed, 1 failed",
        "2,950 stored, 2,950 of them drawn",
        "23,600, 8.00 for each sample", "1,180", "1 min 15 s", "46.1 MiB",
        f"report  {fake.out / 'report.html'}", f"model   {fake.out / 'model'}",
    ):  # fmt: skip
        assert words in result.stdout
    assert not (study.parent / "runs").exists()


def test_a_report_that_cannot_be_written_costs_no_result(
    study: Path, fake: FakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(out: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["deploy.report.report"], "write_report", full)
    result = headrace("run", str(study), "--out", "out", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert f"model   {fake.out / 'model'}" in result.stdout  # type: ignore[operator]
    assert "there is no report" in caplog.text
    assert "No space left on device" in caplog.text


def test_results_go_to_a_new_folder_with_a_link(study: Path, fake: FakeRun) -> None:
    for _ in range(2):
        assert headrace("run", str(study), "-q").exit_code == 0
        assert fake.out is not None
        assert fake.out.parent == study.parent / "runs"
        assert fake.out.name.startswith("heat-2d-20")
        assert (study.parent / "runs" / "latest").resolve() != fake.out
        (linking,) = fake.observers
        assert callable(linking)
        linking(None)
        linking(None)
        assert (study.parent / "runs" / "latest").resolve() == fake.out
    assert len(list((study.parent / "runs").glob("heat-2d-*"))) == 2


def test_two_studies_in_one_second_get_two_folders(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, 14, 5, 9)
    names = []
    for _ in range(3):
        folder = launch.new_folder(tmp_path, "a", now)
        folder.mkdir()
        names.append(folder.name)
    assert names == ["a-20260301-140509", "a-20260301-140509-2", "a-20260301-140509-3"]


def test_a_folder_named_latest_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latest").mkdir()
    launch.link_latest(tmp_path / "a")
    assert (tmp_path / "latest").is_dir()
    assert not (tmp_path / "latest").is_symlink()
    assert "is no link and stays" in capsys.readouterr().err


def test_the_progress_display_watches_unless_quiet(study: Path, fake: FakeRun) -> None:
    assert headrace("run", str(study), "--out", "out").exit_code == 0
    assert [type(each).__name__ for each in fake.observers] == ["ProgressDisplay"]


def test_metrics_are_served_when_a_port_is_given(study: Path, fake: FakeRun) -> None:
    result = headrace("run", str(study), "--out", "out", "-q", "--metrics-port", "0")
    assert result.exit_code == 0
    assert [type(each).__name__ for each in fake.observers] == ["MetricsServer"]
    assert "metrics: http://127.0.0.1:" in result.stderr


def test_a_port_that_is_taken_is_bad_input(study: Path, fake: FakeRun) -> None:
    result = headrace(
        "run", str(study), "--out", "out", "--metrics-port", "1", "--metrics-host", "203.0.113.7"
    )
    assert result.exit_code == 2
    assert "--metrics-port=1: 203.0.113.7:1 cannot be listened on" in result.stderr
    assert "Choose another port" in result.stderr
    assert fake.study is None


def test_all_that_is_wrong_is_said_before_anything_starts(study: Path, fake: FakeRun) -> None:
    (study.parent / "old").mkdir()
    (study.parent / "old" / "resolved.json").write_text("{}")
    result = headrace("run", str(study), "--out", "old", "--set", "trainer.batch=x")
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith('error: trainer.batch="x": wrong type')
    assert second.startswith("error: --out old: the folder already holds another study, which has")
    assert "Go on with that one (--resume)" in second
    assert headrace("run", str(study), "--out", "old").exit_code == 2
    assert fake.study is None
    assert not (study.parent / "runs").exists()


@pytest.mark.parametrize(
    ("answer", "says"),
    [("n", "has not ended. Go on with that one"), ("y", "is not what this version writes")],
)
def test_at_a_terminal_it_is_asked_whether_to_go_on(study: Path, answer: str, says: str) -> None:
    (study.parent / "old").mkdir()
    (study.parent / "old" / "resolved.json").write_text("{}")
    ours, theirs = os.openpty()
    command = [str(Path(sys.executable).with_name("headrace")), "run", str(study), "--out", "old"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=study.parent,
    ) as program:  # fmt: skip
        os.write(ours, f"{answer}\n".encode())
        output, _ = program.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert program.returncode == 2
    assert "old holds a study that has not ended. Go on with it? [y/N]" in output
    assert says in " ".join(output.split())


def test_in_a_cluster_this_machine_does_not_matter(
    study: Path, fake: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cluster.machine.shared_memory_free", lambda: 0)
    assert headrace("run", str(study), "-q", "--out", "a").exit_code == 2
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert headrace("run", str(study), "-q", "--out", "a").exit_code == 0


def test_a_failed_study_exits_1_with_a_report(study: Path, fake: FakeRun) -> None:
    fake.ends_with = StudyFailed("31 of 60 members failed")
    result = headrace("run", str(study), "-q", "--out", "out")
    assert result.exit_code == 1
    assert "failed: 31 of 60 members failed" in result.stderr
    assert fake.reported == [study.parent / "out"]
    assert result.stdout == ""


def test_a_cluster_that_is_too_small_exits_2(study: Path, fake: FakeRun) -> None:
    fake.ends_with = ConfigError(["trainer.ranks=4: the cluster has 2 GPUs"])
    result = headrace("run", str(study), "-q", "--out", "out")
    assert result.exit_code == 2
    assert "error: trainer.ranks=4: the cluster has 2 GPUs" in result.stderr
    assert fake.reported == []


def test_ctrl_c_exits_130(study: Path, fake: FakeRun) -> None:
    fake.ends_with = KeyboardInterrupt()
    result = headrace("run", str(study), "-q", "--out", "out")
    assert result.exit_code == 130
    assert "stopped by Ctrl-C" in result.stderr


@pytest.mark.parametrize("ends_with", [StudyFailed("31 of 60"), KeyboardInterrupt(), Terminated()])
@pytest.mark.parametrize(
    ("steps", "said"), [((), "no checkpoint was taken"), ((7, 40), "40; go on")]
)
def test_whatever_ends_a_study_says_what_was_kept_and_how_to_go_on(
    study: Path, fake: FakeRun, ends_with: BaseException, steps: tuple[int, ...], said: str
) -> None:
    fake.ends_with = ends_with
    for step in steps:
        (study.parent / "out" / "checkpoints" / str(step)).mkdir(parents=True)
    (study.parent / "out").mkdir(exist_ok=True)
    (study.parent / "out" / "resolved.json").write_text(json.dumps(load(study).as_json()))
    told = headrace("resume", "out", "-q").stderr
    assert said in told
    assert f"headrace resume {study.parent / 'out'}" in told


def test_sigterm_exits_143(study: Path, fake: FakeRun) -> None:
    fake.ends_with = Terminated()
    result = headrace("run", str(study), "-q", "--out", "out")
    assert result.exit_code == 143
    assert "stopped by SIGTERM" in result.stderr


def test_a_signal_asks_and_what_was_kept_is_said(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "a b"
    (folder / "checkpoints" / "40").mkdir(parents=True)
    (folder / "resolved.json").touch()

    def study(number: int, train_step: int | None) -> None:
        with launch.stopped_by_signals() as stop:
            stop.listen()
            signal.raise_signal(number)
            assert stop.asked
            raise StudyStopped(train_step)

    with pytest.raises(launch.StoppedBySignal) as stopped:
        study(signal.SIGTERM, 40)
    stopped.value.say_and_end(folder)
    kept = f"checkpoint of train step 40; go on: headrace resume '{folder}'"
    assert kept in capfd.readouterr().err
    with pytest.raises(launch.StoppedBySignal) as stopped:
        study(signal.SIGTERM, None)
    with pytest.raises(Terminated):
        stopped.value.say_and_end(folder)
    with pytest.raises(launch.StoppedBySignal) as stopped:
        study(signal.SIGINT, 40)
    with pytest.raises(KeyboardInterrupt):
        stopped.value.say_and_end(folder)


def test_a_second_signal_ends_at_once() -> None:
    def study() -> None:
        with launch.stopped_by_signals() as stop:
            stop.listen()
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        study()


def test_sigterm_with_a_checkpoint_exits_0(study: Path, fake: FakeRun) -> None:
    fake.ends_with = launch.StoppedBySignal(signal.SIGTERM, 40)
    result = headrace("run", str(study), "-q", "--out", "out")
    assert result.exit_code == 0
    assert fake.reported == [study.parent / "out"]


def test_resume_hands_over_the_study_of_the_folder_with_its_changes(
    study: Path, fake: FakeRun
) -> None:
    out = study.parent / "out"
    out.mkdir()
    (out / "resolved.json").write_text(json.dumps(load(study).as_json()))
    result = headrace("resume", "out", "-q", "--set", "checkpoint.keep_last=5")
    assert result.exit_code == 0, result.stderr
    assert (fake.out, fake.source) == (out, None)
    assert fake.study is not None
    assert fake.study.checkpoint.keep_last == 5


def test_run_with_resume_begins_where_there_is_nothing_to_go_on_with(
    study: Path, fake: FakeRun
) -> None:
    assert headrace("run", str(study), "-q", "--resume").exit_code == 2
    result = headrace("run", str(study), "-q", "--out", "out", "--resume")
    assert result.exit_code == 0, result.stderr
    assert fake.source == study.read_text()
    (study.parent / "out" / "resolved.json").write_text("{}")
    assert headrace("run", str(study), "-q", "--out", "out", "--resume").exit_code == 0
    assert fake.source is None


def test_resume_of_nothing_is_bad_input(here: Path) -> None:
    result = headrace("resume", "nowhere")
    assert result.exit_code == 2
    assert "holds no study" in result.stderr


def test_sigterm_unwinds_the_study() -> None:
    before = signal.getsignal(signal.SIGTERM)
    unwound = []

    def study() -> None:
        with launch.stopped_by_signals():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                unwound.append(True)

    with pytest.raises(Terminated):
        study()
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_packages_of_another_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ConfigError(["package 'solvers' comes from elsewhere"])

    monkeypatch.setattr(cli, "check_packages", refuse)
    result = headrace("describe")
    assert result.exit_code == 2
    assert "package 'solvers' comes from elsewhere" in result.stderr


# --- slurm ----------------------------------------------------------------------------------------


def test_slurm_writes_a_script_that_runs_the_study(study: Path) -> None:
    result = headrace(
        "slurm", str(study), "--set", "seed=9", "--out", "results", "--nodes", "2",
        "--time", "00:20:00", "--partition", "short", "--setup", "module load cuda",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    script = (study.parent / "heat-2d.sbatch").read_text()
    out = study.parent / "results"
    for words in (
        f"headrace run {study} --set seed=9 --out {out} --resume", "#SBATCH --nodes=2",
        "#SBATCH --time=00:20:00", "#SBATCH --partition=short", "#SBATCH --requeue",
        "module load cuda",
    ):  # fmt: skip
        assert words in script
    assert "next: sbatch heat-2d.sbatch" in result.stderr


def test_slurm_can_print_the_script(study: Path) -> None:
    result = headrace("slurm", str(study), "--script", "-")
    assert result.exit_code == 0
    assert result.stdout.startswith("#!")
    assert "#SBATCH --no-requeue" in result.stdout  # without --out there is nothing to go on from
    assert list(study.parent.glob("*.sbatch")) == []


def test_slurm_refuses_a_bad_study_and_a_bad_option(study: Path) -> None:
    assert headrace("slurm", str(study), "--set", "trainer.ranks=0").exit_code == 2
    result = headrace("slurm", str(study), "--time", "soon")
    assert result.exit_code == 2
    assert "error: --time='soon': write minutes" in result.stderr


# --- the result, and the surrogate that is handed on ----------------------------------------------


def result_table(result: Summary) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(overview.summary(result))
    return text.getvalue()


def test_the_result_has_the_tail_of_the_errors_and_when_the_study_has_paid() -> None:
    assert "paid back" not in result_table(SUMMARY)
    ranges = (
        ErrorRange(low=100.0, high=300.0, members=3, mean=0.02, max=0.04),
        ErrorRange(low=300.0, high=500.0, members=2, mean=0.06, max=0.08),
        ErrorRange(low=500.0, high=700.0, members=0, mean=None, max=None),
    )
    paid = Breakeven(
        cost_seconds=100.0, member_seconds=0.5, query_seconds=0.004, queries=202,
        batched_query_seconds=0.001, batched_queries=201,
    )  # fmt: skip
    text = result_table(
        replace(
            SUMMARY,
            one_step=made_errors([0.01, 0.02, 0.05] * 7),
            rollout=made_errors([0.1, 0.2, math.inf], fields=[("depth", "m"), ("flow", "m^2/s")]),
            errors_by_region=(ErrorsOf(name="west", unit="K", effect=0.4, ranges=ranges),),
            breakeven=paid,
        )
    )
    assert "median 2 %, 95 % 5 %, worst 5 % (n = 21)" in text
    assert "median 20 %, worst infinite, 1 diverged (n = 3)" in text
    text = " ".join(text.split())
    assert "temperature 2.00 K (20 % of its std)" in text
    assert "flow 2.00 m^2/s (20 % of its std)" in text
    assert "west: 6 % on average from 300 to 500 K" in text
    assert "after 202 queries (4.00 ms instead of 500 ms each)" in text
    batched = replace(paid, queries=None)
    assert "after 201 queries, many at once; alone never" in result_table(
        replace(SUMMARY, breakeven=batched)
    )
    never = replace(batched, batched_queries=None)
    assert "never: the solver is not slower" in result_table(replace(SUMMARY, breakeven=never))


@pytest.fixture
def finished(here: Path) -> Path:
    """A run directory with a surrogate."""
    decay_study.study(here / "run", {"kind": "direct"}, steps=2)
    return here / "run"


def test_export_writes_a_program_beside_the_weights_or_a_folder_to_hand_on(finished: Path) -> None:
    result = headrace("export", str(finished))
    assert result.exit_code == 0, result.output
    assert "surrogate.pt2" in result.output
    assert (finished / "model" / "surrogate.pt2").exists()
    assert headrace("export", str(finished)).exit_code == 0  # it can be made again
    assert headrace("export", str(finished / "model"), "--out", "handed").exit_code == 0
    names = {path.name for path in Path("handed").iterdir()}
    assert names == {"model.safetensors", "card.json", "card.md", "surrogate.pt2"}
    full = headrace("export", str(finished), "--out", "handed")
    assert full.exit_code == 2
    assert "exists and is not empty" in full.output


def test_export_without_onnx_says_what_to_install_before_it_writes(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.surrogate.program.ONNX_PACKAGES", ("no_such_package",))
    result = headrace("export", str(finished), "--onnx", "--out", "handed")
    assert result.exit_code == 2
    assert "pip install" in result.output
    assert not Path("handed").exists()


def test_export_of_what_is_no_run_is_bad_input(here: Path) -> None:
    result = headrace("export", str(here))
    assert result.exit_code == 2
    assert "no card.json" in result.output


def test_a_network_is_no_argument_of_the_list_of_networks() -> None:
    result = headrace("describe", "net.py:Net", "--models")
    assert result.exit_code == 2
    assert "net.py:Net: --models lists the networks" in result.stderr


def test_a_shell_can_complete_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever shell the tests were started from.
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash")
    result = headrace("--show-completion")
    assert result.exit_code == 0, result.stderr
    assert "_HEADRACE_COMPLETE" in result.stdout


def test_a_shell_offers_kinds_of_solvers_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heat.yaml").touch()
    (tmp_path / "heaters").mkdir()
    monkeypatch.setenv("_HEADRACE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "headrace describe hea")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert headrace().stdout.split() == ["heat", "heat.yaml", "heaters/"]
