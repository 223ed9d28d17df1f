"""A study that records, and a record of it that no solver has written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.actors.parts import record_attributes, record_layout
from pipeline.record.choice import select
from pipeline.record.layout import FOLDER, rank_group
from pipeline.record.writer import Record
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from tests.small_study import small_study

DT = 0.01  # s, of the small study


def first_study(record: dict[str, Any] | None = None, **sections: dict[str, Any]) -> StudyConfig:
    """The study that makes the record."""
    return small_study(record=record or {}, **sections)


def snapshot_of(study: StudyConfig, member: int, step: int) -> Float32[np.ndarray, " channel y x"]:
    """What stands in for the solver: different for each member and step."""
    rng = np.random.default_rng([member, step])
    return rng.random(study.spec.sample_shape, np.float32)


def write_record(
    folder: Path,
    study: StudyConfig,
    lost: Callable[[int, int], bool] = lambda member, number: False,
) -> Path:
    """The record that a study would leave behind, without the samples that were lost."""
    assert study.record is not None
    ranks, design, layout = study.trainer.ranks, design_of(study), record_layout(study)
    for rank in range(ranks):
        record = Record(
            folder / FOLDER / rank_group(rank),
            layout=layout,
            attributes=record_attributes(study, rank),
            compression=study.record.compression,
        )
        first = study.ensemble.validation
        for member in range(first, first + study.ensemble.members):
            parameters = list(design.values(member).values())
            for number in range(study.samples_per_member):
                pair = np.array([member]), np.array([number])
                wanted = select(
                    *pair, seed=study.seed, every=study.record.every, fraction=study.record.fraction
                )
                here = (member + number) % ranks == rank
                if here and wanted[0] and not lost(member, number):
                    _add(record, study, member, number, parameters)
        record.close(complete=True)
    return folder


def _add(
    record: Record, study: StudyConfig, member: int, number: int, parameters: list[float]
) -> None:
    every = study.stream.every
    start = 0 if study.stream.initial_state else every
    first = start + number * every * study.trainer.task.stride
    steps = [first + every * place for place in range(study.window)]
    fields = np.stack([snapshot_of(study, member, step) for step in steps])
    held: Any = SimpleNamespace(
        fields=fields[None],
        members=np.array([member]),
        samples=np.array([number]),
        steps=np.array([first]),
        inputs=np.array([[*parameters, *(DT * step for step in steps)]]),
    )
    assert record.add(held, slice(0, 1), 1) == 1


def second_tree(folder: Path, **sections: Any) -> dict[str, Any]:
    """A study that takes members from the record in ``folder``, and says nothing of its solver."""
    tree: dict[str, Any] = {
        "name": "second",
        "seed": 3,
        "source": {"record": str(folder)},
        "ensemble": {"members": 7, "validation": 2, "concurrent": 2},
        "reservoir": {"policy": "reservoir", "capacity": 60, "watermark": 20, "max_reuse": 4},
        "trainer": {
            "ranks": 2, "batch": 4, "log_every": 5, "model": {"kind": "mlp", "hidden": [32]},
        },
    }  # fmt: skip
    for name, changes in sections.items():
        tree[name] = tree.get(name, {}) | changes if isinstance(changes, dict) else changes
    return tree
