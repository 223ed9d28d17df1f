"""What the README and the page on Python tell a newcomer to type works as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

BIN = Path(sys.executable).parent


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def execute(folder: Path, *command: str | Path) -> None:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.studies
def test_the_readme_takes_a_newcomer_from_nothing_to_a_surrogate(
    project: Path, tmp_path: Path
) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    (shell,) = [block for block in blocks(readme, "bash") if "headrace init" in block]
    # The environment of this test run stands in for the one that `make` makes.
    shell = shell.replace("source .venv/bin/activate\n", "")
    execute(tmp_path, "bash", "-euo", "pipefail", "-c", shell)
    latest = tmp_path / "runs" / "latest"
    summary = json.loads((latest / "summary.json").read_text(encoding="utf-8"))
    assert summary["samples_unique"] == summary["samples_inserted"] == 60 * 50
    assert (latest / "report.html").stat().st_size > 50_000
    # The README's Python, and the page that goes on from there, on the surrogate of that run.
    python = (project / "docs" / "python.md").read_text(encoding="utf-8")
    (calls,) = [block for block in blocks(python, "python") if "import numpy" in block]
    execute(
        tmp_path,
        BIN / "python",
        "-c",
        "from trainers.surrogate.export import load_surrogate\n"
        "surrogate = load_surrogate('runs/latest/model')\n"
        f"{calls}\nassert many.shape[0] == 5",
    )


@pytest.mark.slow
def test_the_readme_s_python_runs(project: Path, tmp_path: Path) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    (script,) = blocks(readme, "python")
    execute(tmp_path, BIN / "headrace", "init")
    execute(tmp_path, BIN / "python", "-c", script)
    assert (tmp_path / "runs" / "first" / "summary.json").exists()
