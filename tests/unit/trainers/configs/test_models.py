import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from trainers.config import TrainerConfig
from trainers.configs.models import AnyModelConfig, MlpConfig, OwnModelConfig
from trainers.models.registry import MODELS

KINDS = [kind for kind in MODELS if kind != "own"]


def read(model: object) -> AnyModelConfig:
    return TrainerConfig.model_validate({"model": model}).model


def test_every_kind_of_the_registry_can_stand_in_a_study() -> None:
    assert set(get_args(AnyModelConfig)) == {entry.config for entry in MODELS.values()}
    for kind in KINDS:
        assert read({"kind": kind}) == MODELS[kind].config.model_validate({})


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keys_are_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="hiden"):
        read({"kind": kind, "hiden": 3})


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ({"kind": "unet", "depth": 0}, "greater than or equal to 1"),
        ({"kind": "unet", "norm": "batch"}, "'group'"),
        ({"kind": "unet", "conditioning": "concat"}, "'film'"),
        ({"kind": "fno", "n_modes": 0}, "greater than or equal to 1"),
        ({"kind": "fno", "n_modes": [4, 0]}, "greater than or equal to 1"),
        ({"kind": "fno", "domain_padding": -0.1}, "greater than or equal to 0"),
        ({"kind": "tfno", "rank": 0.0}, "greater than 0"),
        ({"kind": "tfno", "rank": 1.1}, "less than or equal to 1"),
        ({"kind": "uno", "depth": 13}, "less than or equal to 12"),
        ({"kind": "deeponet", "branch": [0]}, "greater than or equal to 1"),
        ({"kind": "deeponet", "stride": 0}, "greater than or equal to 1"),
        ({"kind": "message_passing", "neighbours": 17}, "less than or equal to 16"),
        ({"path": "net.py"}, "class"),
        ({"path": "net.py", "class": "a.b"}, "match pattern"),
        ({"path": "", "class": "Net"}, "at least 1 character"),
        ({"hidden": [3]}, "kind"),
        ({"kind": "unetz"}, "'unet'"),
    ],
)
def test_a_value_beyond_its_limit_is_refused(model: object, limit: str) -> None:
    with pytest.raises(ValidationError, match=limit):
        read(model)


def test_a_path_makes_it_a_network_of_ones_own() -> None:
    config = read({"path": "net.py", "class": "Net", "widths": [3, [4]], "deep": {"a": [1]}})
    assert isinstance(config, OwnModelConfig)
    assert (config.path, config.class_name) == ("net.py", "Net")
    assert config.settings == {"widths": (3, (4,)), "deep": {"a": (1,)}}


@pytest.mark.parametrize(
    "model", [*({"kind": kind} for kind in KINDS), {"path": "net.py", "class": "Net", "w": [1, 2]}]
)
def test_what_is_resolved_reads_back_unchanged(model: object) -> None:
    config = TrainerConfig.model_validate({"model": model})
    tree = config.model_dump(mode="json")
    assert TrainerConfig.model_validate(json.loads(json.dumps(tree))) == config
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


def test_the_default_is_a_fully_connected_network() -> None:
    assert TrainerConfig().model == MlpConfig()


def test_every_option_and_default_is_in_the_reference(project: Path) -> None:
    reference = (project / "docs" / "study.md").read_text()
    for kind, entry in MODELS.items():
        assert f"| `{kind}` |" in reference
        for name, default, _ in entry.options:
            shown = "required" if default is None else json.dumps(default).strip('"')
            assert f"| `{kind}` | `{name}` | {shown} |" in reference, (kind, name, shown)


@pytest.mark.parametrize(
    ("kind", "libraries"),
    [("mlp", set()), ("unet", set()), ("deeponet", set()), ("fno", {"neuralop"})],
)
def test_a_network_brings_only_its_own_library(
    kind: str, libraries: set[str], project: Path
) -> None:
    program = (
        "import sys, warnings; before = list(warnings.filters)\n"
        "from trainers.models.registry import MODELS, build_model\n"
        f"config = MODELS[{kind!r}].config.model_validate({{}})\n"
        "build_model(config, num_inputs=2, field_shape=(1, 8, 8))\n"
        "print(*[m for m in ('neuralop', 'torch_geometric') if m in sys.modules])\n"
        "assert all(each in before for each in warnings.filters if each[2] is UserWarning)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == libraries


def test_a_message_passing_network_leaves_no_file_behind(project: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from trainers.models.registry import MODELS, build_model\n"
        "config = MODELS['message_passing'].config(channels=2)\n"
        "build_model(config, num_inputs=2, field_shape=(1, 4, 4))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project, env={"TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*.py")) == []
