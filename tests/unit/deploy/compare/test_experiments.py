"""The studies and commands of docs/experiments.md are right."""

import re
import shlex
from pathlib import Path

import pytest

from deploy.compare.plan import plan
from pipeline.study.load import load

PROJECT = Path(__file__).resolve().parents[4]
# What is planned does not depend on the network.
ANY_MODEL = ["trainer.model={kind: mlp}"]
STUDIES = sorted(PROJECT.glob("examples/experiments/*.yaml"))


def commands() -> list[str]:
    texts = [(PROJECT / "docs" / "experiments.md").read_text(encoding="utf-8")]
    blocks = re.findall(r"```bash\n(.*?)```", texts[0], re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    from_studies = [
        line.removeprefix("#").strip()
        for path in STUDIES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("#   headrace")
    ]
    return [line.strip() for line in joined.splitlines() if line.startswith("headrace")] + (
        from_studies
    )


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_an_experiment_is_a_study(path: Path) -> None:
    assert f"headrace compare examples/experiments/{path.name}" in path.read_text(encoding="utf-8")
    study = load(path, ANY_MODEL)
    assert study.ensemble.validation >= 10
    assert study.reservoir.policy == "reservoir"


@pytest.mark.parametrize("command", commands())
def test_a_command_can_be_planned(command: str) -> None:
    _, compare, path, *options = shlex.split(command)
    assert compare == "compare"
    asked = {"--set": [], "--seeds": ["1"]} | {name: [] for name in options[::2]}
    for name, value in zip(options[::2], options[1::2], strict=True):
        asked[name].append(value)
    seconds = asked.get("--seconds")
    made = plan(
        load(PROJECT / path, [*asked["--set"], *ANY_MODEL]),
        methods=asked["--methods"][0] if "--methods" in asked else None,
        seconds=float(seconds[0]) if seconds else None,
        members=None,
        seeds=int(asked["--seeds"][-1]),
        disk=asked["--disk"][0] if "--disk" in asked else None,
        workers=None,
        keep_data=False,
    )
    assert made.methods


def test_every_study_has_a_command_in_the_page() -> None:
    page = (PROJECT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert len(STUDIES) == 3
    for path in STUDIES:
        assert f"examples/experiments/{path.name}" in page
