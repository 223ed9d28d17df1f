"""What a study was made of may change under it: it goes on with what it began with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint import inputs
from pipeline.checkpoint.inputs import as_begun, keep
from pipeline.control.rundir import RunPaths
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from pipeline.study.load import parse
from tests.own_files import study_tree, written
from tests.small_study import small_study

OTHER = "import rates\n\n\ndef spread():\n    import deeper\n"


def rows(*rates: float) -> str:
    return "\n".join(["rate", *map(str, rates)])


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    """A study of one's own solver, network and CSV; the solver needs files beside it."""
    folder = tmp_path / "study"
    (folder / "deeper").mkdir(parents=True)
    written(folder, "import numpy as np\n", "import numpy as np\nimport other\n")
    (folder / "other.py").write_text(OTHER, encoding="utf-8")
    (folder / "rates.py").write_text("FAST = 2\n", encoding="utf-8")
    (folder / "deeper" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "unused.py").write_text("", encoding="utf-8")
    (folder / "net.py").write_text("import torch\n\n\nclass Net(torch.nn.Module): ...\n")
    (folder / "rates.csv").write_text(rows(1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7))
    tree = study_tree("./decay.py:Decay")
    tree["ensemble"]["design"] = {"csv": "rates.csv"}
    tree["trainer"] |= {"model": {"kind": "own", "path": "net.py", "class": "Net"}}
    return parse(tree, folder=folder)


def begin(out: Path, study: StudyConfig) -> Path:
    out.mkdir()
    keep(out, study)
    return RunPaths(out).inputs


def test_unchanged_files_are_used_where_they_are(tmp_path: Path, study: StudyConfig) -> None:
    begin(tmp_path / "run", study)
    assert as_begun(tmp_path / "run", study) == (study, [])


def test_modules_beside_a_file_are_kept_with_it(tmp_path: Path, study: StudyConfig) -> None:
    kept = begin(tmp_path / "run", study)
    files = {str(path.relative_to(kept / "solver")) for path in (kept / "solver").rglob("*.py")}
    assert files == {"decay.py", "other.py", "rates.py", "deeper/__init__.py"}


def test_an_edited_csv_gives_the_members_of_the_beginning(
    tmp_path: Path, study: StudyConfig
) -> None:
    before = design_of(study)
    begin(tmp_path / "run", study)
    (tmp_path / "study" / "rates.csv").write_text(rows(2, 2, 2, 2, 2, 2, 2, 2))
    begun, (line,) = as_begun(tmp_path / "run", study)
    assert np.array_equal(design_of(begun).rows, before.rows)
    assert line.startswith(f"rates.csv in {tmp_path / 'study'}: not what the study began with")


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize(
    ("file", "key"), [("decay.py", "solver"), ("rates.py", "solver"), ("net.py", "model")]
)
def test_an_edited_or_removed_file_is_replaced_by_its_copy(
    tmp_path: Path, study: StudyConfig, file: str, key: str, gone: bool
) -> None:
    kept = begin(tmp_path / "run", study)
    path = tmp_path / "study" / file
    path.unlink() if gone else path.write_text("raise SystemExit")
    tree = as_begun(tmp_path / "run", study)[0].as_json()
    used = {"solver": tree["solver"]["path"], "model": tree["trainer"]["model"]["path"]}
    assert Path(used[key]).is_relative_to(kept)
    other = "model" if key == "solver" else "solver"
    assert Path(used[other]).parent == tmp_path / "study"


def program(folder: Path, **solver: Any) -> StudyConfig:
    (folder / "flow").write_text("#!/bin/sh\necho one\n")
    (folder / "flow").chmod(0o755)
    (folder / "mesh.dat").write_text("1 2 3\n")
    return parse(
        {
            "name": "flow",
            "solver": {
                "kind": "program", "command": "./flow -f './mesh.dat' -o ./out.dat -name 'a b'",
                "components": {"u": "m/s"}, "grid": [6, 10], "steps": 5,
                "options": {"nu": "-nu {value}"},
            } | solver,
            "parameters": {"nu": {"uniform": [0.1, 0.4]}},
            "ensemble": {"members": 3, "validation": 1},
            "reservoir": {"capacity": 60, "watermark": 3},
            "trainer": {"ranks": 1, "batch": 4},
        },
        folder=folder,
    )  # fmt: skip


def test_a_program_that_was_built_anew_is_not_used(tmp_path: Path) -> None:
    study = program(tmp_path)
    kept = begin(tmp_path / "run", study)
    (tmp_path / "flow").write_text("#!/bin/sh\necho two\n")
    begun, lines = as_begun(tmp_path / "run", study)
    assert len(lines) == 1
    assert begun.solver.kind == "program"
    words = begun.solver.command_words()
    assert words[0] == str(kept / "program-0" / "flow")
    assert Path(words[0]).stat().st_mode & 0o100
    assert words[1:] == [
        "-f", str(tmp_path / "mesh.dat"), "-o", str(tmp_path / "out.dat"), "-name", "a b",
    ]  # fmt: skip


def test_a_file_that_is_too_large_to_keep_must_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGEST", 10)
    study = program(tmp_path)
    begin(tmp_path / "run", study)
    assert as_begun(tmp_path / "run", study) == (study, [])
    (tmp_path / "flow").unlink()
    with pytest.raises(ConfigError, match=r"flow in .* holds no whole copy\. Restore it"):
        as_begun(tmp_path / "run", study)


def test_a_damaged_copy_is_not_used(tmp_path: Path, study: StudyConfig) -> None:
    kept = begin(tmp_path / "run", study)
    (kept / "design" / "rates.csv").write_text(rows(2))
    assert as_begun(tmp_path / "run", study) == (study, [])  # nobody needs it
    (tmp_path / "study" / "rates.csv").unlink()
    with pytest.raises(ConfigError, match="holds no whole copy"):
        as_begun(tmp_path / "run", study)


def test_a_study_without_such_files_keeps_none(tmp_path: Path) -> None:
    assert not begin(tmp_path / "run", small_study()).exists()
    assert as_begun(tmp_path / "run", small_study()) == (small_study(), [])
