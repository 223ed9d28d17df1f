"""What a drill is asked for, checked before anything starts."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from deploy import launch
from deploy.drill.plan import built_in, kinds_of, plan, settings
from deploy.drill.run import Drill
from pipeline.control import rundir
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.load import load, parse
from pipeline.study.yaml_values import parse_yaml, set_values

DRILLS: Final = Path("drills")


def asked_for(
    path: Path | None,
    overrides: Sequence[str],
    faults: int,
    seed: int,
    kinds: str | None,
    references: int,
    nodes: int,
    out: Path | None,
    now: datetime,
) -> Drill:
    """The drill, when nothing speaks against it.

    Args:
        path: The study; None: the built-in one, which is written into ``out``.
        overrides: Its changed keys.
        faults: How many.
        seed: Of the plan.
        kinds: Of faults; None: all that there are.
        references: How many undisturbed runs.
        nodes: To be made of this machine.
        out: A new folder; None: one in ``DRILLS``.
        now: For its name.

    Raises:
        ConfigError: With everything that does.
    """
    text = built_in(faults)
    first = _loaded(path, text, overrides)
    changed = (*overrides, *settings(first, faults))
    study = _loaded(path, text, changed)
    chosen = kinds_of(study, kinds, nodes)
    folder = launch.new_folder(DRILLS, study.name, now) if out is None else out
    if nodes > 1 and "RAY_ADDRESS" in os.environ:
        line = f"--nodes={nodes}: makes nodes of this machine, but RAY_ADDRESS names a cluster"
        raise ConfigError([f"{line}. Unset it, or leave out --nodes"])
    found = launch.problems_here(study, os.environ) + rundir.problems(folder)
    if found:
        raise ConfigError(found)
    return Drill(
        path=(folder / "study.yaml" if path is None else path).resolve(),
        text=text if path is None else None,
        overrides=changed,
        study=study,
        kinds=chosen,
        plan=plan(chosen, faults, seed),
        references=tuple(range(study.seed, study.seed + references)),
        nodes=nodes,
        out=folder.resolve(),
    )


def _loaded(path: Path | None, text: str, overrides: Sequence[str]) -> StudyConfig:
    if path is not None:
        return load(path, overrides)
    tree = parse_yaml(text)
    assert isinstance(tree, dict)
    set_values(tree, overrides)
    return parse(tree)
