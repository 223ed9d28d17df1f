"""A network of the user's own: ``check`` tries it in a process of its own, a rank tells of it."""

from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from typer.testing import CliRunner

from deploy.cli import app
from pipeline.control.journal import read
from pipeline.errors import StudyFailed
from pipeline.run import run
from tests.small_study import small_study

NETWORK = dedent(
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, *, num_inputs, field_shape, given_channels, width=8):
            super().__init__()
            self.field_shape, self.calls = field_shape, 0
            self.layer = nn.Linear(num_inputs, torch.Size(field_shape).numel())

        def forward(self, numbers, given):
            self.calls += 1
            return self.layer(numbers).view(-1, *self.field_shape)
    """
)


def written(folder: Path, old: str, new: str) -> Path:
    assert NETWORK.count(old) == 1
    path = folder / "net.py"
    path.write_text(NETWORK.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "setting", "words"),
    [
        ("self.calls += 1", "pass", "width", []),
        ("self.calls += 1", "{}['oops']", "width", ["KeyError: 'oops'", "net.py:12, in forward"]),
        ("self.calls += 1", "pass", "widht", ["net.py:5 ", "argument 'widht'"]),
        ("*self.field_shape", "70, 2", "width", ["net.py:5 ", "must predict (2, 1, 10, 14)"]),
        ("self.calls += 1", "import os; os.abort()", "width", ["ended with status -6"]),
    ],
    ids=["right", "raises", "misspelt", "shape", "aborts"],
)
def test_check_tries_the_network(
    old: str, new: str, setting: str, words: list[str], tmp_path: Path
) -> None:
    written(tmp_path, old, new)
    tree = small_study().as_json()
    study = {key: tree[key] for key in ("name", "solver", "parameters", "ensemble", "reservoir")}
    study["trainer"] = {"batch": 4, "model": {"path": "net.py", "class": "Net", setting: 3}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    result = CliRunner().invoke(app, ["check", str(path), "--elsewhere"])
    assert result.exit_code == (2 if words else 0), result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.cluster
@pytest.mark.studies
def test_what_a_rank_raises_has_its_line_in_the_run_directory(tmp_run: Path) -> None:
    tmp_run.parent.mkdir(exist_ok=True)
    path = written(
        tmp_run.parent, "self.calls += 1", "self.calls += 1; [0] * 9 and [0][self.calls > 9]"
    )
    study = small_study(trainer={"model": {"path": str(path), "class": "Net"}})
    with pytest.raises(StudyFailed, match=r"trainer: rank [01]: IndexError: .*net\.py:12, in forw"):
        run(study, out=tmp_run)
    (told,) = [
        each for each in read(tmp_run / "journal.jsonl") if each["event"] == "trainer failed"
    ]
    assert f'File "{path}", line 12, in forward' in str(told["details"])
