"""Somebody's own class in PETSc's place: held to its announcement, and its failures told."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from deploy.report.report import failures
from pipeline.control.journal import read
from pipeline.errors import StudyFailed
from pipeline.run import run
from pipeline.study.load import parse
from solvers.base import Snapshot, Solver, SolverBug, SolverFailed
from solvers.configs.own import OwnConfig
from solvers.own.announce import with_announcement
from solvers.petsc import self_communicator
from solvers.registry import build
from tests.integration.test_readme import blocks
from tests.own_files import study_tree, written

pytestmark = pytest.mark.petsc


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file adds to it is taken away again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@contextmanager
def solver(folder: Path, old: str = "", new: str = "", **settings: object) -> Iterator[Solver]:
    section = {"path": str(written(folder, old, new)), "class": "Decay"} | settings
    made = build(OwnConfig.model_validate(with_announcement(section, folder)))
    yield made
    made.close()


def failure(folder: Path, old: str, new: str) -> tuple[list[Snapshot], SolverFailed]:
    """What came before the failure, and the failure."""
    with solver(folder, old, new) as made:
        came: list[Snapshot] = []
        with pytest.raises(SolverFailed) as caught:
            came.extend(made.run({"rate": 1.5}, self_communicator()))
        return came, caught.value


def test_a_member_is_what_the_class_yields_in_float32(tmp_path: Path) -> None:
    with solver(tmp_path, grid=[3, 5], steps=4) as made:
        assert made.max_snapshots == 5
        came = list(made.run({"rate": 1.5}, self_communicator()))
    assert [snapshot.step for snapshot in came] == [0, 1, 2, 3, 4]
    for snapshot in came:
        assert snapshot.fields.dtype == np.float32
        assert snapshot.fields.shape == made.spec.sample_shape == (1, 3, 5)
        np.testing.assert_allclose(snapshot.fields, np.exp(-1.5 * snapshot.time), rtol=1e-6)


def test_the_receiver_owns_the_array(tmp_path: Path) -> None:
    reused = "self.__dict__.setdefault('array', np.zeros((1, 4, 6), np.float32))"
    with solver(tmp_path, "np.full(self.spec.sample_shape, value)", reused) as made:
        first = next(made.run({"rate": 1.0}, self_communicator()))
        made._made.array[:] = 7.0  # type: ignore[attr-defined]
    assert (first.fields == 0.0).all()


@pytest.mark.parametrize(
    ("old", "new", "before", "words"),
    [
        ("self.spec.sample_shape, value", "(1, 6, 4), value", 0, "fields of shape (1, 6, 4) in"),
        ("yield Snapshot(step,", "yield Snapshot(2 * step,", 1, "step 2 and time 0.1 s after"),
        ("(step, time,", "(step, 0.05,", 1, "time 0.05 s after time 0.05 s"),
        ("self.steps + 1):", "self.steps + 2):", 8, "more than the 8 snapshots that it announced"),
        ("step * self.dt", "step * 2 * self.dt", 4, "time 0.8 s in snapshot 4, but announced 0.7"),
        ("in range(self.steps + 1)", "in ()", 0, "Decay.run yielded only 0 of the 8 snapshots"),
        ("range(self.steps + 1)", "range(4)", 4, "yielded only 4 of the 8 snapshots that it ann"),
        ("for step in", "return None\n        for step in", 0, "Decay.run yielded only 0 of"),
        ("yield Snapshot(", "yield (", 0, "yielded a tuple, not a solvers.base.Snapshot"),
        ("value = np.exp(", "value = np.nan * (", 0, "field is not finite at solver step 0"),
    ],
)
def test_what_differs_from_the_announcement_ends_the_member(
    tmp_path: Path, old: str, new: str, before: int, words: str
) -> None:
    came, error = failure(tmp_path, old, new)
    assert len(came) == before
    assert words in str(error)
    assert getattr(error, "story", "") == ""


def test_an_exception_is_told_with_the_line_of_the_file(tmp_path: Path) -> None:
    came, error = failure(tmp_path, "value = np.exp(", "value = 1 / (step - 3) + np.exp(")
    assert len(came) == 3
    assert isinstance(error, SolverBug)
    assert "Decay raised at snapshot 3: ZeroDivisionError: division by zero" in str(error)
    assert f"{tmp_path / 'decay.py'}:17, in run)" in str(error)
    assert error.story.splitlines()[0] == f'  File "{tmp_path / "decay.py"}", line 17, in run'
    assert "solvers/own/solver.py" not in error.story
    assert not error.passing
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.story, again.passing) == (str(error), error.story, error.passing)


def test_an_exception_of_their_own_class_needs_no_file_of_theirs(tmp_path: Path) -> None:
    own = "class Odd(Exception): pass\n\n\nclass Decay:"
    (tmp_path / "a").mkdir()
    text = written(tmp_path / "a", "class Decay:", own).read_text()
    path = tmp_path / "decay.py"
    path.write_text(text.replace("value = np.exp(", "raise Odd('seven'); value = np.exp("))
    made = build(OwnConfig.model_validate(with_announcement({"path": f"{path}:Decay"}, tmp_path)))
    with pytest.raises(SolverBug) as caught:
        list(made.run({"rate": 1.0}, self_communicator()))
    data = pickle.dumps(caught.value)
    assert b"Odd: seven" in data
    assert b"headrace_own" not in data  # the module that only this process has loaded


@pytest.mark.parametrize(
    ("raised", "passing"), [("OSError(28, 'No space left')", True), ("SystemExit(1)", False)]
)
def test_only_what_may_pass_is_worth_another_attempt(
    tmp_path: Path, raised: str, passing: bool
) -> None:
    _, error = failure(
        tmp_path, "value = np.exp(", f"if step == 2: raise {raised}\n            value = np.exp("
    )
    assert isinstance(error, SolverBug)
    assert error.passing is passing


CALLBACK = """
from petsc4py import PETSc
from solvers.base import FieldSpec
from solvers.stepping import stream


class Stepped:
    parameters, steps, dt = (), 5, 0.1
    spec = FieldSpec(names=("u",), units=("1",), shape=(3,), spacing=(1.0,))

    def run(self, parameters, comm):
        def rates(ts, time, u, out):
            if time > 0.25:
                raise KeyError("missing")
            out.array = -u.array_r

        da = PETSc.DMDA().create([3], comm=comm, setup=True)
        u = da.createGlobalVec()
        ts = PETSc.TS().create(comm)
        ts.setDM(da)
        ts.setType("euler")
        ts.setRHSFunction(rates, u.duplicate())
        ts.setSolution(u)
        ts.setTimeStep(0.1)
        ts.setMaxSteps(5)
        SOLVE
"""


@pytest.mark.parametrize("how", ["yield from stream(ts)", "yield from (ts.solve(),)"])
def test_an_exception_in_a_petsc_callback_is_told_the_same_way(tmp_path: Path, how: str) -> None:
    path = tmp_path / "stepped.py"
    path.write_text(CALLBACK.replace("SOLVE", how))
    made = build(OwnConfig.model_validate(with_announcement({"path": f"{path}:Stepped"}, tmp_path)))
    with pytest.raises(SolverBug, match=r"KeyError: 'missing' \(.*stepped.py:14, in rates\)"):
        list(made.run({}, self_communicator()))
    made.close()


def test_what_petsc_refuses_is_told_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "stepped.py"
    path.write_text(CALLBACK.replace("SOLVE", "ts.setType('no_such_type'); yield"))
    made = build(OwnConfig.model_validate(with_announcement({"path": f"{path}:Stepped"}, tmp_path)))
    with pytest.raises(SolverFailed, match=r"PETSc failed at snapshot 0: .*no_such_type.*:26, in"):
        list(made.run({}, self_communicator()))
    made.close()


def test_a_file_that_changed_since_the_check_is_refused(tmp_path: Path) -> None:
    section = with_announcement({"path": str(written(tmp_path)), "class": "Decay"}, tmp_path)
    written(tmp_path, 'unit="1/s"', 'unit="1/h"')
    with pytest.raises(ValueError, match="announces something else than when the study was check"):
        build(OwnConfig.model_validate(section))


def test_close_is_called_once_and_ends_the_solver(tmp_path: Path) -> None:
    with solver(
        tmp_path, "    def run", "    def close(self): self.dt -= 1\n\n    def run"
    ) as made:
        theirs = made._made  # type: ignore[attr-defined]
        made.close()
        made.close()
        assert theirs.dt == pytest.approx(-0.9)
        with pytest.raises(RuntimeError, match="this solver was closed"):
            next(made.run({"rate": 1.0}, self_communicator()))


@pytest.mark.cluster
def test_a_bug_costs_one_attempt_and_is_shown_with_its_traceback(tmp_path: Path) -> None:
    written(tmp_path, "value = np.exp(", "value = 1 / (step - 3) + np.exp(")
    study = parse(study_tree("./decay.py:Decay"), folder=tmp_path)
    out = tmp_path / "run"
    with pytest.raises(StudyFailed, match=r"ZeroDivisionError: division by zero \(.*decay.py:17"):
        run(study, out=out)
    failed = [event for event in read(out / "journal.jsonl") if event["event"] == "failed"]
    assert {event["attempt"] for event in failed} == {1}
    assert failed[0]["details"].endswith("ZeroDivisionError: division by zero")
    assert any("value = 1 / (step - 3)" in details for _, details in failures(out))


# --- the page that takes a script to a study ------------------------------------------------------


def files_of(page: Path, folder: Path) -> str:
    """Write the files that a page shows, and return the commands that it gives."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "python") + blocks(text, "yaml"):
        name = block.partition("\n")[0].removeprefix("# ")
        (folder / name).write_text(block, encoding="utf-8")
    (shell,) = blocks(text, "bash")
    return shell


def execute(folder: Path, project: Path, shell: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"export PYTHONPATH={project}\n{shell}"],
        cwd=folder, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.studies
@pytest.mark.cluster
def test_the_page_on_own_solvers_takes_a_script_to_a_surrogate(
    project: Path, tmp_path: Path
) -> None:
    shell = files_of(project / "docs" / "own_solver.md", tmp_path)
    said = execute(tmp_path, project, shell)
    assert "largest value after 0.5 s: 0." in said
    assert "one member" in said
    lines = (tmp_path / "solver.py").read_text().splitlines()
    assert sum(1 for line in lines if line and not line.startswith("#")) <= 20
    assert (tmp_path / "transport-member-3.png").exists()
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["samples_unique"] == 20 * 50
    assert summary["members_failed"] == 0


def test_the_class_of_the_page_leaves_no_petsc_object(project: Path, tmp_path: Path) -> None:
    files_of(project / "docs" / "own_solver.md", tmp_path)
    section = with_announcement({"path": "solver.py:Transport", "points": 8}, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.count_petsc_objects", "own", json.dumps(section)],
        cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[0])
    assert counts["after 100"] == counts["after 2"]
    assert counts["closed"] == counts["before"]


def test_the_page_on_programs_works_as_written(project: Path, tmp_path: Path) -> None:
    shell = files_of(project / "docs" / "program.md", tmp_path)
    (tmp_path / "program").mkdir()
    script = project / "examples" / "program" / "diffusion.py"
    (tmp_path / "program" / "diffusion.py").write_text(script.read_text())
    assert "21 snapshots in" in execute(tmp_path, project, shell)
    assert (tmp_path / "program-2d-member-2.png").exists()
