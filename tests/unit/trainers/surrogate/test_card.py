"""trainers/surrogate/card.py: what a person and a program read of a surrogate."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainers.surrogate import card

SPREAD = {
    "members": 20, "diverged": 0, "mean": 0.02, "median": 0.015, "p95": 0.05, "p99": None,
    "max": 0.08, "std": 0.011,
}  # fmt: skip
LOST = {"diverged": 1, "mean": None, "p95": None, "max": None, "std": None}
FIELD = {"name": "temperature", "unit": "K", "mse": 42.25, "relative_l2": 0.02, "nrmse": 0.0737}
CARD: dict[str, Any] = {
    "format": card.FORMAT,
    "trainer": {
        "ranks": 2, "batch": 10, "loss": "mse",
        "task": {"kind": "next", "history": 2}, "model": {"kind": "mlp"},
        "optimizer": {"kind": "adam", "lr": 3e-3},
    },
    "network": {"parameters": 123_456},
    "problem": {
        "field_names": ["temperature", "rate"], "field_units": ["K", "K/s"],
        "shape": [24, 40], "input_fields": ["rate"],
        "parameters": [
            {"name": "west", "unit": "K", "low": 100.0, "high": 500.0, "learnt": True},
            {"name": "seed", "unit": "1", "low": 0.0, "high": 1e6, "learnt": False},
        ],
        "time": {"name": "time", "unit": "s", "low": 0.0, "high": 0.5, "learnt": True},
    },
    "normalization": {
        "input_offset": [300.0, 5e5, 0.25], "input_scale": [200.0, 5e5, 0.25],
        "field_offset": [312.5, 0.0], "field_scale": [88.25, 1.5], "step_scale": [3.0, 1.0],
    },
    "weights_seed": 3_920_099_773,
    "train_steps": 1180,
    "validation": {
        "samples": 205,
        "one_step": {"fields": [FIELD], "spread": SPREAD},
        "rollout": {
            "fields": [FIELD | {"mse": None, "relative_l2": None, "nrmse": None}],
            "spread": SPREAD | LOST,
        },
    },
    "query": {
        "device": "cpu", "snapshots": 41, "alone_seconds": 0.00125, "batch": 64,
        "batched_seconds": 0.0000123,
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "heat-24x40", "hash": "5f" * 32, "seed": 7, "solver": "heat", "solver_hash": "a0" * 32,
    "members": 35, "samples": 1435, "samples_drawn": 11_020, "wall_seconds": 36.25,
    "errors_by_region": [
        {
            "name": "west", "unit": "K", "effect": 0.4,
            "ranges": [
                {"low": 100.0, "high": 300.0, "members": 2, "diverged": 1, "mean": 0.03,
                 "max": 0.08, "fields": {"temperature": 0.03}},
                {"low": 300.0, "high": 500.0, "members": 0, "diverged": 0, "mean": None,
                 "max": None, "fields": {}},
            ],
        }
    ],
    "breakeven": {
        "cost_seconds": 110.5, "member_seconds": 0.5, "query_seconds": 0.6, "queries": None,
        "batched_query_seconds": 0.0000123, "batched_queries": 222_111,
    },
    "versions": {"headrace": "0.1.0"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card.write(tmp_path, CARD)
    return tmp_path


def test_the_readable_card_is_as_it_was_agreed(folder: Path, project: Path) -> None:
    card.complete(folder, STUDY)
    golden = (project / "tests" / "golden" / "card.md").read_text(encoding="utf-8")
    assert (folder / "card.md").read_text(encoding="utf-8") == golden


def test_the_study_is_added_and_nothing_else_changed(folder: Path) -> None:
    card.complete(folder, STUDY)
    assert card.read(folder) == CARD | {"study": STUDY}
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "card.md"]


@pytest.mark.parametrize(
    ("without", "heading"),
    [("validation", "## Errors"), ("query", "## Cost"), ("versions", "## Versions")],
)
def test_an_unknown_part_is_left_out_or_said_to_be_unknown(without: str, heading: str) -> None:
    text = card.render(CARD | {without: None})
    if without == "validation":
        assert "nobody knows how wrong it is" in text
    else:
        assert heading not in text
        assert heading in card.render(CARD)


def test_without_a_study_the_card_is_of_the_network_alone() -> None:
    text = card.render(CARD)
    assert text.startswith("# Surrogate\n")
    for heading in ("## Study", "## Errors by region"):
        assert heading not in text


def test_a_run_directory_and_its_model_are_the_same_surrogate(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    card.write(tmp_path / "model", CARD)
    assert card.find(tmp_path) == card.find(tmp_path / "model") == tmp_path / "model"


def test_a_card_is_json_that_other_programs_read(folder: Path) -> None:
    assert json.loads((folder / "card.json").read_text(encoding="utf-8")) == CARD
