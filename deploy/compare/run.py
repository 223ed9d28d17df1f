"""Trains the same network online and offline, and says what each way came to.

1. With a time limit each offline method gets the seconds that the online ones took, all of them
   counted from the start of its first process; writing the data set is not counted, but shown.
2. The data set is removed at the end, however it ends, unless it is to be kept.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deploy.compare import outcome as compared
from deploy.compare.methods import offline, online
from deploy.compare.outcome import Outcome
from deploy.compare.plan import READERS, Method, Plan
from deploy.launch import stopped_by_signals
from deploy.speaking import say
from pipeline.control import rundir
from pipeline.errors import ConfigError
from pipeline.study.problems import counted
from trainers.durable import json_text, write_atomically
from trainers.offline.stored import Store

if TYPE_CHECKING:
    from pipeline.members.dataset import Dataset


def compare(made: Plan, out: Path) -> None:
    """Run all methods, and leave ``compare.json`` and ``compare.html`` in a new folder.

    Raises:
        ConfigError: The folder is in use.
        StudyFailed: A method could not be brought to its end.
    """
    from deploy.compare.page import page, table, writing

    if found := rundir.problems(out):
        raise ConfigError(found)
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    written: list[dict[str, Any]] = []
    try:
        for seed in made.seeds:
            _one_seed(made, seed, out, outcomes, written)
    finally:
        if not made.keep_data:
            shutil.rmtree(out / "data", ignore_errors=True)
    sentences = list(compared.verdict(outcomes))
    result = {
        "study": made.study.as_json(),
        "seconds": made.seconds,
        "workers": made.workers,
        "cpus": os.cpu_count(),
        "data_sets": written,
        "outcomes": [one.as_json() for one in outcomes],
        "verdict": sentences,
    }
    write_atomically(out / "compare.json", json_text(result, indent=1) + "\n")
    text = page(made.study, outcomes, written, sentences, seconds=made.seconds)
    write_atomically(out / "compare.html", text)
    console = Console()
    console.print(table(outcomes))
    for one in written:
        sys.stdout.write(f"data set of seed {one['seed']}, not counted above: {writing(one)}\n")
    for sentence in sentences:
        sys.stdout.write(f"* {sentence}\n")
    sys.stdout.write(f"report  {out / 'compare.html'}\n")


def _one_seed(
    made: Plan, seed: int, out: Path, outcomes: list[Outcome], written: list[dict[str, Any]]
) -> None:
    took = made.seconds
    for method in made.methods:
        if method.online:
            say(f"seed {seed}: {method.label}")
            with stopped_by_signals():  # for each anew: Ray leaves a handler of its own behind
                outcomes.append(online(made, method, seed, out / f"{method.name}-{seed}"))
            if took is not None:
                took = max(took, outcomes[-1].wall_seconds)
    from_files = [method for method in made.methods if not method.online]
    if from_files:
        with stopped_by_signals():
            _from_files(made, from_files, seed, took, out, outcomes, written)


def _from_files(
    made: Plan,
    methods: Sequence[Method],
    seed: int,
    seconds: float | None,
    out: Path,
    outcomes: list[Outcome],
    written: list[dict[str, Any]],
) -> None:
    stores = sorted({READERS[method.name].store for method in methods})
    training, validation = _write(made, seed, out / "data" / str(seed), stores)
    written.append(_told(training, seed))
    for method in methods:
        say(f"seed {seed}: {method.label}")
        outcomes.append(offline(made, method, seed, (training, validation), seconds, out))
    if not made.keep_data:
        shutil.rmtree(out / "data" / str(seed))


def _write(made: Plan, seed: int, folder: Path, stores: list[Store]) -> "tuple[Dataset, Dataset]":
    """The members to train on in every store, and the validation members."""
    from pipeline.members.dataset import write_dataset

    study = made.of_seed(seed)
    held_out, total = study.ensemble.validation, study.ensemble.validation + study.ensemble.members
    say(f"seed {seed}: writing {counted(study.ensemble.members, 'member')} as {', '.join(stores)}")
    validation = write_dataset(
        study, folder / "validation", members=range(held_out), stores=["npy"]
    )
    training = write_dataset(
        study, folder / "training", members=range(held_out, total), stores=stores
    )
    return training, validation


def _told(data: "Dataset", seed: int) -> dict[str, Any]:
    told = {name: value for name, value in asdict(data).items() if name != "moments"}
    return told | {"seed": seed, "folder": str(data.folder), "members": len(data.members)}
