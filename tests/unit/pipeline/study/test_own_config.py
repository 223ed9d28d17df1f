"""A solver of the user's own is checked, and known, before anything starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.load import load, parse
from solvers.configs.own import OwnConfig
from solvers.own import announce, apart
from solvers.own.announce import ask, with_announcement
from solvers.own.load import Unusable
from tests.own_files import study_tree, written


def problems(folder: Path, **changed: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(study_tree({"path": "./decay.py", "class": "Decay"} | changed), folder=folder)
    return caught.value.problems


def refusal(folder: Path, old: str = "", new: str = "", **settings: object) -> str:
    """The only line that a class is refused with, asked in this process: that is quicker."""
    with pytest.raises(Unusable) as caught:
        ask(written(folder, old, new), "Decay", settings)
    (line,) = caught.value.problems
    return line


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file adds to it is taken away again."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_class_is_known_before_it_runs(tmp_path: Path) -> None:
    written(tmp_path)
    solver = {"path": "decay.py", "class": "Decay", "grid": [5, 3], "dt": 1}
    study = parse(study_tree(solver), folder=tmp_path)
    assert isinstance(study.solver, OwnConfig)
    assert study.solver.file == tmp_path / "decay.py"
    assert study.parameter_names == ("rate",)
    assert study.solver.spec().sample_shape == (1, 5, 3)
    assert study.solver.spec().spacing == (0.5, 0.25)
    assert (study.solver.max_snapshots, study.solver.end_time) == (8, 7.0)
    assert study.solver.announced.about == "A profile that decays: u_t = -rate u."
    assert study.solver.announced.settings == {"grid": "[5, 3]", "steps": "7", "dt": "1"}


@pytest.mark.parametrize(
    "solver",
    ["./decay.py:Decay", {"path": "decay.py:Decay"}, {"kind": "own", "path": "decay.py",
                                                      "class": "Decay"}],
)  # fmt: skip
def test_there_are_shorter_and_longer_ways_to_write_it(tmp_path: Path, solver: object) -> None:
    written(tmp_path)
    assert parse(study_tree(solver), folder=tmp_path).solver.kind == "own"


def test_what_is_resolved_needs_the_file_no_more(tmp_path: Path) -> None:
    path = written(tmp_path)
    study = parse(study_tree({"path": "decay.py", "class": "Decay", "steps": 3}), folder=tmp_path)
    path.unlink()
    again = StudyConfig.model_validate(json.loads(json.dumps(study.as_json())))
    assert again == study
    assert again.as_json()["solver"]["class"] == "Decay"
    assert again.as_json()["solver"]["steps"] == 3


def test_max_snapshots_and_end_time_may_stand_in_for_steps(tmp_path: Path) -> None:
    written(tmp_path, "self.steps, self.dt = ", "self.max_snapshots, self.end_time = ")
    study = parse(study_tree("./decay.py:Decay"), folder=tmp_path)
    assert (study.solver.max_snapshots, study.solver.end_time) == (7, 0.1)


def test_siblings_are_found_and_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "material.py").write_text("LOW = 0.5\n")
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the sibling hides NumPy')\n")
    written(tmp_path, "low=1", "low=__import__('material').LOW")
    solver = parse(study_tree("./decay.py:Decay"), folder=tmp_path).solver
    assert solver.parameters()[0].low == 0.5


def test_a_folder_with_packages_of_our_names_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers" / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert parse(study_tree("decay.py:Decay"), folder=tmp_path).solver.kind == "own"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"class": "Decoy"}, ("solver.class=Decoy: ", "has no such class. It has Decay.")),
        ({"path": "no.py"}, ("no.py: cannot be read (No such file or directory). Correct",)),
        ({"path": "."}, ("cannot be read (Is a directory)",)),
        ({"path": 3}, ("solver.path=3: required. Write 'path: ./FILE.py'",)),
        ({"class": None}, ("solver.class=nothing: required, but missing. Add 'class: NAME'",)),
    ],
)
def test_a_study_that_names_no_class_is_refused(
    tmp_path: Path, changed: dict[str, object], words: tuple[str, ...]
) -> None:
    written(tmp_path)
    (line,) = problems(tmp_path, **changed)
    for word in words:
        assert word in line


def test_a_solver_that_is_refused_hides_no_other_error(tmp_path: Path) -> None:
    study = study_tree({"path": "./no.py", "class": "Decay"})
    study["reservoir"]["watermark"] = 5000
    study["trainer"]["model"] = {"path": "net.py", "class": "Net"}
    with pytest.raises(ConfigError) as caught:
        parse(study, folder=tmp_path)
    solver, reservoir, network = caught.value.problems
    assert "no.py: cannot be read" in solver
    assert reservoir.startswith("reservoir.capacity=")
    assert network.startswith(f"trainer.model.path={tmp_path / 'net.py'}: cannot be read")


def test_a_file_that_ends_the_process_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "import numpy as np", "import numpy as np, os; print('oh'); os._exit(4)")
    (line,) = problems(tmp_path)
    assert "the process that tried it ended with status 4: " in line
    assert line.endswith("Run the file by itself")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"pionts": 3},
            ("solver.pionts=3: unknown key.", "Known keys of solver: path, class, grid, steps, dt"),
        ),
        ({"step": 3}, ("solver.step=3: unknown key. Did you mean 'steps'?",)),
        (
            {"steps": "many"},
            ('solver.steps="many": wrong type for Decay.__init__(steps: int = 7)', "valid integer"),
        ),
        ({"steps": 7.5}, ("solver.steps=7.5: wrong type", "int")),
        ({"grid": [4, 6, 8]}, ("solver.grid=[4, 6, 8]: wrong type", "tuple[int, int]")),
        ({"steps": 0}, (":5: Decay.steps=0: must be a whole number of at least 1",)),
        ({"dt": -1.0}, (":5: Decay.dt=-1.0: must be a number of seconds above 0",)),
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, changed: dict[str, object], words: tuple[str, ...]
) -> None:
    line = refusal(tmp_path, "", "", **changed)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def run(self", "def run self", ("decay.py:14: SyntaxError",)),
        (
            "import numpy as np",
            "import nympy",
            ("decay.py: cannot be loaded: ModuleNotFoundError", "decay.py:1, in <module>"),
        ),
        (
            "import numpy as np",
            "import numpy as np; raise SystemExit(3)",
            ("cannot be loaded: SystemExit: 3",),
        ),
        (
            "parameters = [",
            "parametres = [",
            (":5: class Decay has no 'parameters', a list of solvers.base.Parameter. Write",),
        ),
        ("self.spec =", "self.speck =", (":5: class Decay has no 'spec'", "FieldSpec(names=")),
        (
            "def run(",
            "def rum(",
            (":5: Decay.run=None: must be a method that takes (parameters, comm)",),
        ),
        (
            "def run(self, parameters, comm)",
            "def run(self, parameters)",
            ("Decay.run=<bound method", "takes (parameters, comm)"),
        ),
        (
            "self.steps, self.dt = steps, dt",
            "self.dt = dt",
            ("class Decay has no 'steps', a whole number",),
        ),
        (
            "self.steps, self.dt = steps, dt",
            "self.steps, self.dt = steps, '0.1'",
            ("Decay.dt='0.1': must be a number of seconds",),
        ),
        (
            "self.steps, self.dt = steps, dt",
            "self.steps, self.dt = 1.0 / 0, dt",
            (
                "Decay() cannot be made: ZeroDivisionError: float division",
                "decay.py:11, in __init__",
            ),
        ),
        ("low=1,", "low=3,", ("must be made with low <= high",)),
        (
            "= [Parameter(",
            "= [dict(",
            ("Decay.parameters={'name': 'rate'", "must be a list of solvers.base.Parameter"),
        ),
        ("(0.5, 0.25)", "(0.5, 0.0)", ("Decay.spec=(0.5, 0.0): must be of positive spacings",)),
        ("shape=grid", "shape=(0, 6)", ("Decay.spec=(0, 6): must be of 1 to 3 axes",)),
        (
            "(0.5, 0.25)",
            "(0.5,)",
            (
                "Decay() cannot be made: ValueError: one spacing per grid axis",
                "decay.py:12, in __init__",
            ),
        ),
        (
            "dt: float = 0.1",
            "*, dt: float",
            ("solver.dt=nothing: required by Decay.__init__, but missing",),
        ),
        (
            "dt: float = 0.1",
            "kind: str = '', dt: float = 0.1",
            ("solver.kind: Decay.__init__ cannot have a setting of that name",),
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    line = refusal(tmp_path, old, new)
    for word in words:
        assert word in line


def test_a_missing_petsc_is_told_with_a_way_out(tmp_path: Path) -> None:
    line = refusal(
        tmp_path, "import numpy as np", "raise ModuleNotFoundError('no', name='petsc4py')"
    )
    assert "It is not installed here: import it inside run(), or check the study where" in line


def test_a_name_must_be_given_once(tmp_path: Path) -> None:
    line = refusal(tmp_path, "= [Parameter(", "= 2 * [Parameter(")
    assert "must be a list in which no name stands twice" in line


@pytest.mark.parametrize("body", ["stream = []", "self.last = 1\n            return"])
def test_a_run_without_yield_is_refused_with_what_to_write(tmp_path: Path, body: str) -> None:
    line = refusal(tmp_path, "yield Snapshot(step, time, ", f"{body}  # (")
    assert line.startswith(f"{tmp_path / 'decay.py'}:5: Decay.run has no 'yield', so no snapshot")


def test_a_run_may_return_what_yields(tmp_path: Path) -> None:
    path = written(tmp_path, "for step in range", "return iter([])\n        for step in range")
    text = path.read_text(encoding="utf-8").replace("yield Snapshot", "Snapshot")
    path.write_text(text, encoding="utf-8")
    assert ask(path, "Decay", {}).max_snapshots == 8


def test_a_file_that_takes_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announce, "LIMIT_SECONDS", 0.6)
    monkeypatch.setattr(apart, "PROGRESS_SECONDS", 0.2)
    written(tmp_path, "import numpy as np", "import time; time.sleep(60)")
    (line,) = problems(tmp_path)
    assert "Decay: took longer than 0.6 s. Leave long work to run()" in line
    assert "Decay: no answer after 0.2 s; given up at 0.6 s" in caplog.text


def test_what_else_is_wrong_is_said_at_the_same_time(tmp_path: Path) -> None:
    written(tmp_path)
    tree = study_tree({"path": "decay.py", "class": "Decay", "pionts": 3}, seed=-1)
    with pytest.raises(ConfigError) as caught:
        parse(tree | {"trainer": {"ranks": 0, "batch": 4}}, folder=tmp_path)
    starts = [line.partition(":")[0] for line in caught.value.problems]
    assert starts == ["solver.pionts=3", "seed=-1", "trainer.ranks=0"]


def test_a_missing_parameter_is_told_with_its_range(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ConfigError, match=r"parameters\.rate=nothing.*of decay, 1/s, meant for 1"):
        parse(study_tree("decay.py:Decay", parameters={}), folder=tmp_path)


def test_settings_need_no_annotation(tmp_path: Path) -> None:
    written(tmp_path, "dt: float = 0.1", "dt = 0.1, names: 'Unknown' = ()")
    section = {"path": "decay.py", "class": "Decay", "names": [1, 2]}
    with_names = with_announcement(section, tmp_path)
    assert with_names["announced"]["settings"]["names"] == "[1, 2]"


def test_a_class_may_have_no_init(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from solvers.base import FieldSpec\n"
        "class Plain:\n"
        "    parameters, steps, dt = (), 3, 1.0\n"
        "    spec = FieldSpec(names=('u',), units=('1',), shape=(3,), spacing=(1.0,))\n"
        "    def run(self, parameters, comm):\n"
        "        yield from ()\n"
    )
    said = with_announcement({"path": "plain.py:Plain"}, tmp_path)["announced"]
    assert (said["about"], said["settings"]) == ("Plain has no docstring.", {})
    with pytest.raises(
        Unusable, match=r"solver\.dt=2: unknown key\. Known keys of solver: path, cl"
    ):
        with_announcement({"path": "plain.py:Plain", "dt": 2}, tmp_path)


# --- who imports what -----------------------------------------------------------------------------


def test_checking_runs_the_file_in_another_process(tmp_path: Path, project: Path) -> None:
    written(tmp_path, "import numpy as np", "import numpy as np, sqlite3; print('hello')")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study_tree("./decay.py:Decay")))
    program = (
        "import sys; from pipeline.study.load import load; "
        f"load({str(tmp_path / 'study.yaml')!r}); print('sqlite3' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(project)},
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["False"], "")


def test_a_study_file_is_read_with_changes(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study_tree("./decay.py:Decay")))
    study = load(tmp_path / "study.yaml", ["solver={path: ./decay.py, class: Decay, steps: 9}"])
    assert study.solver.max_snapshots == 10
