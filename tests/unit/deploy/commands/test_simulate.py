"""One member alone: the parameters it has in a run, its figures, its pictures, its cost."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from deploy import cli
from deploy.commands import strips
from deploy.commands.describe import description, listing
from pipeline.errors import ConfigError
from pipeline.members.one_member import cost_of, parameters_of, typical_parameters
from pipeline.study.design import design_of
from pipeline.study.load import parse
from solvers.base import FieldSpec, Snapshot
from solvers.configs.heat import HeatConfig
from solvers.registry import SOLVERS
from tests.own_files import study_tree, written
from tests.small_study import small_study

pytestmark = pytest.mark.petsc


def headrace(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a user's own class, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_tree("./decay.py:Decay")), encoding="utf-8")
    return path


# --- one member -----------------------------------------------------------------------------------


def test_a_member_has_the_parameters_that_it_has_in_a_run() -> None:
    study = small_study()
    design = design_of(study)
    for member in range(study.ensemble.validation + study.ensemble.members):
        assert parameters_of(study, member) == design.values(member)
    with pytest.raises(
        ConfigError, match=r"--member 11: the study has members 0 to 10, the first 2"
    ):
        parameters_of(study, 11)


def test_simulate_shows_parameters_and_figures(study: Path) -> None:
    result = headrace("simulate", str(study), "--member", "3")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    rate = parameters_of(parse(study_tree("./decay.py:Decay")), 3)["rate"]
    assert lines[0] == ["decay,", "member", "3", "(training),", "solver", "own"]
    assert lines[3] == ["rate", f"{rate:.6g}", "1/s", "of", "decay"]
    assert lines[5] == ["step", "time", "/", "s", "seconds", "u", "min", "mean", "max", "/", "K"]
    table = lines[6:14]
    assert [line[0] for line in table] == [str(step) for step in range(8)]
    for line in table:
        expected = f"{np.float32(np.exp(-rate * float(line[1]))):.5g}"
        assert line[3] == line[5] == expected
    assert lines[-1][:3] == ["8", "snapshots", "in"]
    assert list(study.parent.glob("*.png")) == []


def test_a_long_table_is_thinned_and_its_efforts_summed(study: Path) -> None:
    written(study.parent, "sample_shape, value))", "sample_shape, value), 3, step == 9)")
    result = headrace("simulate", str(study), "--set", "solver={path: 'decay.py:Decay', steps: 50}")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    header, *rows = [row for row in rows if row and (row[0].isdigit() or row[0] == "step")][:-1]
    assert header[4:7] == ["seconds", "iterations", "refused"]
    assert len(rows) == 21
    assert (rows[0][0], rows[-1][0]) == ("0", "50")
    assert sum(int(row[3]) for row in rows) == 51 * 3
    assert sum(int(row[4]) for row in rows) == 1
    assert "figures of the steps between two lines are summed" in result.stdout


KINDS = ("png", "gif")


def test_simulate_leaves_pictures_and_overwrites_none(study: Path) -> None:
    arguments = ("simulate", str(study), "--plot", "--animate", "--out", "a/b")
    result = headrace(*arguments)
    assert result.exit_code == 0, result.stderr
    folder = study.parent / "a" / "b"
    assert "wrote a/b/decay-member-0.png" in result.stdout
    assert matplotlib.image.imread(folder / "decay-member-0.png").std() > 0.05
    with Image.open(folder / "decay-member-0.gif") as film:
        assert film.n_frames == 8  # type: ignore[attr-defined]
    result = headrace(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "wrote a/b/decay-member-0-2.png" in result.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {f"decay-member-0{again}.{kind}" for again in ("", "-2") for kind in KINDS}


def test_a_member_that_fails_leaves_what_there_was(study: Path) -> None:
    written(study.parent, "value = np.exp(", "value = 1 / (step - 3) + np.exp(")
    result = headrace("simulate", str(study), "--member", "1", "--plot")
    assert result.exit_code == 1
    assert "3 snapshots in" in result.stdout
    assert (study.parent / "decay-member-1.png").exists()
    assert 'decay.py", line 17, in run' in result.stderr
    assert "failed: member 1: Decay raised at snapshot 3: ZeroDivisionError" in result.stderr


def test_a_single_point_has_no_film(study: Path) -> None:
    result = headrace("simulate", str(study), "--set", "solver={path: decay.py, class: Decay, "
                      "grid: [1, 1]}", "--animate")  # fmt: skip
    assert result.exit_code == 2
    assert "--animate: own has a single point, and no field. Take --plot" in result.stderr


def test_without_petsc_the_way_out_is_told(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "solvers.petsc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("solvers.petsc", raising=False)
    monkeypatch.setitem(sys.modules, "petsc4py", None)
    result = headrace("simulate", str(study))
    assert result.exit_code == 2
    assert "PETSc is needed to simulate, and petsc4py is not installed here" in result.stderr


# --- pictures -------------------------------------------------------------------------------------


def member(spec: FieldSpec, times: Sequence[float]) -> strips.Member:
    made = strips.Member(spec, len(times), "a study, member 3\nspeed = 1 m/s, " * 9)
    rng = np.random.default_rng(3)
    for step, time in enumerate(times):
        made.add(Snapshot(step, time, rng.normal(size=spec.sample_shape).astype(np.float32)))
    return made


@pytest.mark.parametrize("shape", [(1,), (30,), (9, 14), (5, 9, 14)])
def test_every_dimension_has_its_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    spec = FieldSpec(
        names=("u", "k"),
        units=("m/s", "1"),
        shape=shape,
        spacing=(0.5,) * len(shape),
        inputs=("k",),
    )
    made = member(spec, [0.0, 0.1, 0.2, 0.4])
    strips.write_strip(made, tmp_path / "strip.png")
    strips.write_film(made, tmp_path / "film.gif")
    assert matplotlib.image.imread(tmp_path / "strip.png").std() > 0.05
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]


def test_a_member_of_one_snapshot_can_be_drawn(tmp_path: Path) -> None:
    spec = FieldSpec(names=("u",), units=("K",), shape=(6, 8), spacing=(1.0, 1.0))
    strips.write_strip(member(spec, [0.0]), tmp_path / "strip.png")
    line = FieldSpec(names=("u",), units=("K",), shape=(6,), spacing=(1.0,))
    strips.write_strip(member(line, [0.0]), tmp_path / "line.png")


def test_what_is_kept_is_bounded_and_has_both_ends() -> None:
    spec = FieldSpec(names=("u",), units=("K",), shape=(3, 1100, 4), spacing=(1.0, 1.0, 1.0))
    made = strips.Member(spec, 1000, "")
    for step in range(900):  # it ends early
        made.add(Snapshot(step, float(step), np.full(spec.sample_shape, step, np.float32)))
    kept = made.snapshots
    assert len(kept) <= strips.FRAMES + strips.FILM_FRAMES
    assert (kept[0].step, kept[-1].step) == (0, 899)
    assert kept[0].fields.shape == (1, 367, 4)  # the middle plane, thinned
    assert [one.step for one in made.some(3)][::2] == [0, 899]


def test_the_scale_of_a_channel_is_around_zero_when_it_has_both_signs() -> None:
    def scale(low: float, high: float) -> tuple[float, float, str]:
        fields = np.array([[[low, high]]], np.float32)
        made, colours = strips._scale([Snapshot(0, 0.0, fields)], 0)
        assert made.vmin is not None
        assert made.vmax is not None
        return made.vmin, made.vmax, colours

    assert scale(-1.0, 3.0) == (-3.0, 3.0, strips.SIGNED_COLOURS)
    assert scale(-0.01, 3.0)[2] == strips.FIELD_COLOURS
    assert scale(2.0, 3.0) == (2.0, 3.0, strips.FIELD_COLOURS)
    assert scale(2.0, 2.0) == (2.0, 3.0, strips.FIELD_COLOURS)


# --- cost -----------------------------------------------------------------------------------------


def test_a_cost_is_of_the_whole_member() -> None:
    config = HeatConfig(grid=(8, 9), steps=10)
    cost = cost_of(config, typical_parameters(config))
    assert (cost.snapshots, cost.measured, cost.snapshot_bytes) == (11, 11, 4 * 8 * 9)
    assert cost.seconds > 0.0


def test_a_cost_that_is_cut_short_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("pipeline.members.one_member.time.perf_counter", lambda: float(next(ticks)))
    config = HeatConfig(grid=(8, 9), steps=2000)
    cost = cost_of(config, typical_parameters(config))
    # A second for each snapshot: the second one is beyond the limit.
    assert (cost.snapshots, cost.measured, cost.seconds) == (2001, 2, 2001.0)
    assert cost.first_seconds == 0.0


def test_describe_says_what_a_member_costs() -> None:
    result = headrace("describe", "heat")
    assert result.exit_code == 0
    assert "one member" in result.stdout.splitlines()[-1]
    assert "for 101 snapshots (1.65 MB)" in result.stdout
    assert "one member" not in headrace("describe", "heat", "--no-cost").stdout
    assert "one member" not in headrace("describe", "program").stdout


def test_the_list_has_costs_when_asked_for() -> None:
    lines = list(listing(measured=True))
    assert [line.split()[0] for line in lines[: len(SOLVERS)]] == list(SOLVERS)
    for line in lines[: len(SOLVERS)]:
        kind, value, unit = line.split()[:3]
        assert kind in ("program", "own") or (float(value) > 0 and unit in ("ms", "s")), line
    assert "–" in next(line for line in lines if line.startswith("program"))  # noqa: RUF001


def test_describe_of_a_study_says_what_all_members_cost(study: Path) -> None:
    result = headrace("describe", str(study))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("A profile that decays: u_t = -rate u.\n")
    assert "  steps  7 " in result.stdout
    assert "Cost (member 2 of the study" in result.stdout
    assert "= 8 members x" in result.stdout


def test_describe_of_a_file_of_one_s_own(study: Path) -> None:
    text = "\n".join(description("decay.py:Decay", measured=True))
    assert "  rate  1/s   [1, 2]  of decay" in text
    assert "for 8 snapshots (768 B)" in text
    assert study.exists()
    with pytest.raises(ConfigError, match=r"has no such class\. It has Decay"):
        list(description("decay.py:Decoy", measured=False))


def test_a_cost_that_cannot_be_measured_is_said(study: Path) -> None:
    written(study.parent, "value = np.exp(", "value = np.nan * (")
    text = "\n".join(description("decay.py:Decay", measured=True))
    assert "cannot be measured here: field is not finite at solver step 0" in text
    text = "\n".join(description(str(study), measured=True))
    assert "cannot be measured here: field is not finite" in text


def test_what_can_be_described_is_told() -> None:
    result = headrace("describe", "haet")
    assert result.exit_code == 2
    assert "SOLVER=haet: there is no such solver. Choose one of heat, " in result.stderr
    assert "FILE.py:CLASS" in result.stderr
