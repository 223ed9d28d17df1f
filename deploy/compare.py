"""Trains the same network online and offline, and says what each way came to.

1. With a time limit each offline method gets the seconds that the online ones took, all of them
   counted from the start of its first process; writing the data set is not counted, but shown.
2. The data set is removed at the end, however it ends, unless it is to be kept.
3. Figures of both ways are taken at the same places: the reports of the training loop, and what
   lies in a method's folder, to which its data set is added.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deploy import compared, figures
from deploy.compare_plan import READERS, Method, Plan
from deploy.compared import Outcome, Point
from deploy.launch import sigterm_unwinds
from deploy.speaking import say
from pipeline import rundir
from pipeline.config import StudyConfig
from pipeline.errors import ConfigError, StudyFailed
from pipeline.stats import StudyStats
from trainers.base import TrainStats, ValidationResult
from trainers.stored import Store, sizes

if TYPE_CHECKING:
    from pipeline.dataset import Dataset
    from trainers.offline_ranks import OfflineJob


def compare(made: Plan, out: Path) -> None:
    """Run all methods, and leave ``compare.json`` and ``compare.html`` in a new folder.

    Raises:
        ConfigError: The folder is in use.
        StudyFailed: A method could not be brought to its end.
    """
    from deploy.compare_page import page, table, writing

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
    unit = made.study.spec.units[0]
    sentences = list(compared.verdict(outcomes, unit))
    result = {
        "study": made.study.as_json(),
        "seconds": made.seconds,
        "workers": made.workers,
        "cpus": os.cpu_count(),
        "data_sets": written,
        "outcomes": [one.as_json() for one in outcomes],
        "verdict": sentences,
    }
    (out / "compare.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = page(made.study, outcomes, written, sentences, seconds=made.seconds)
    (out / "compare.html").write_text(text, encoding="utf-8")
    console = Console()
    console.print(table(outcomes, unit))
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
            with sigterm_unwinds():  # for each anew: Ray leaves a handler of its own behind
                outcomes.append(_online(made, method, seed, out / f"{method.name}-{seed}"))
            if took is not None:
                took = max(took, outcomes[-1].wall_seconds)
    offline = [method for method in made.methods if not method.online]
    if offline:
        with sigterm_unwinds():
            _from_files(made, offline, seed, took, out, outcomes, written)


def _from_files(
    made: Plan,
    offline: Sequence[Method],
    seed: int,
    seconds: float | None,
    out: Path,
    outcomes: list[Outcome],
    written: list[dict[str, Any]],
) -> None:
    stores = sorted({READERS[method.name][0] for method in offline})
    training, validation = _write(made, seed, out / "data" / str(seed), stores)
    written.append(_told(training, seed))
    for method in offline:
        say(f"seed {seed}: {method.label}")
        outcomes.append(_offline(made, method, seed, (training, validation), seconds, out))
    if not made.keep_data:
        shutil.rmtree(out / "data" / str(seed))


def _write(made: Plan, seed: int, folder: Path, stores: list[Store]) -> "tuple[Dataset, Dataset]":
    """The members to train on in every store, and the validation members."""
    from pipeline.dataset import write_dataset

    study = made.of_seed(seed)
    held_out, total = study.ensemble.validation, study.ensemble.validation + study.ensemble.members
    say(f"seed {seed}: writing {study.ensemble.members} members as {', '.join(stores)}")
    validation = write_dataset(
        study, folder / "validation", members=range(held_out), stores=["npz"]
    )
    training = write_dataset(
        study, folder / "training", members=range(held_out, total), stores=stores
    )
    return training, validation


def _told(data: "Dataset", seed: int) -> dict[str, Any]:
    told = {name: value for name, value in asdict(data).items() if name != "moments"}
    return told | {"seed": seed, "folder": str(data.folder), "members": len(data.members)}


def _online(made: Plan, method: Method, seed: int, folder: Path) -> Outcome:
    from pipeline.run import run

    study = made.online(seed, method.name)
    course: list[Point] = []

    def note(stats: StudyStats) -> None:
        unique = sum(one.unique for one in stats.reservoirs)
        course.append(
            _point(
                stats.elapsed_seconds,
                figures.train_step(stats),
                unique / study.samples_per_member,
                figures.validation(stats),
            )
        )

    before = _load()
    result = run(study, out=folder, observers=[note], production_seconds=made.seconds)
    summary = result.summary
    return _outcome(
        method,
        study,
        course,
        result.stats.ranks[0],
        wall=summary.wall_seconds,
        first=summary.first_step_seconds or 0.0,
        waited=summary.trainer_wait_seconds,
        data=(
            summary.members_completed - study.ensemble.validation,
            summary.samples_unique,
            summary.samples_drawn,
        ),
        disk=sizes(folder),
        load=(before, _load()),
    )


def _offline(
    made: Plan,
    method: Method,
    seed: int,
    data: "tuple[Dataset, Dataset]",
    seconds: float | None,
    out: Path,
) -> Outcome:
    from trainers.offline_ranks import train_offline

    training, study, store = data[0], made.of_seed(seed), READERS[method.name][0]
    count = made.members_on_disk if method.small else len(training.members)
    job = _job(made, method, study, data, count, seconds, out)
    before, began = _load(), time.monotonic()
    said = train_offline(job)
    wall = time.monotonic() - began
    last, members = said[-1].stats, len(job.members)
    each_step = study.trainer.ranks * study.trainer.batch
    samples, draws = sum(each.count for each in job.moments), last.train_step * each_step
    course = [
        _point(
            one.at,
            one.stats.train_step,
            min(members, one.stats.train_step * each_step / study.samples_per_member),
            one.stats.validation,
        )
        for one in said
    ]
    share, own = members / len(training.members), sizes(job.out)
    return _outcome(
        method,
        study,
        course,
        last,
        wall=wall,
        first=last.first_step_seconds or 0.0,
        waited=last.wait_seconds,
        data=(members, min(samples, draws), draws),
        disk=(
            own[0] + round(share * training.bytes_written[store]),
            own[1] + round(share * training.disk_bytes[store]),
        ),
        load=(before, _load()),
    )


def _job(
    made: Plan,
    method: Method,
    study: StudyConfig,
    data: "tuple[Dataset, Dataset]",
    count: int | None,
    seconds: float | None,
    out: Path,
) -> "OfflineJob":
    from pipeline.actors.trainer import problem_of, weights_seed
    from trainers.offline_ranks import OfflineJob

    (training, validation), (store, read) = data, READERS[method.name]
    moments = training.moments[:count]
    draws = sum(each.count for each in moments) * (method.passes or 0)
    return OfflineJob(
        folder=training.folder / store,
        store=store,
        read=read,
        members=training.members[:count],
        validation_folder=validation.folder / "npz",
        validation=validation.members,
        config=study.trainer,
        problem=problem_of(study),
        moments=moments,
        passes=method.passes,
        seconds=seconds,
        workers=made.workers,
        weights_seed=weights_seed(study),
        order_seed=study.seed,
        expected_steps=-(-draws // (study.trainer.ranks * study.trainer.batch)) or None,
        use_gpu=made.use_gpu,
        out=out / f"{method.label.replace(':', '-')}-{study.seed}",
    )


def _point(
    seconds: float, train_step: int, members: float, result: ValidationResult | None
) -> Point:
    spread = None if result is None else result.spread
    return Point(
        seconds=seconds,
        train_step=train_step,
        members=members,
        mse=None if result is None else result.mse,
        relative_l2=None if result is None else result.relative_l2,
        tail=None if spread is None else spread.p95,
    )


def _outcome(
    method: Method,
    study: StudyConfig,
    course: list[Point],
    last: TrainStats,
    *,
    wall: float,
    first: float,
    waited: float,
    data: tuple[int, int, int],
    disk: tuple[int, int],
    load: tuple[float, float],
) -> Outcome:
    result, ranks = last.validation, study.trainer.ranks
    if result is None:
        raise StudyFailed(f"{method.label}: the training ended before anything was validated")
    rate = ranks * steps_per_second(course, first)
    return Outcome(
        method=method.label,
        online=method.online,
        seed=study.seed,
        members=data[0],
        samples=data[1],
        draws=data[2],
        train_steps=last.train_step,
        wall_seconds=wall,
        first_step_seconds=first,
        wait_seconds=waited,
        batches_per_second=rate,
        samples_per_second=rate * study.trainer.batch,
        bytes_written=disk[0],
        disk_bytes=disk[1],
        mse=result.mse,
        relative_l2=result.relative_l2,
        spread={} if result.spread is None else asdict(result.spread),
        load=load,
        course=tuple(course),
    )


def steps_per_second(course: Sequence[Point], first: float) -> float:
    """Train steps of a rank per second, from the first one to the report of the last one."""
    steps = max(point.train_step for point in course)
    end = min(point.seconds for point in course if point.train_step == steps)
    return steps / max(end - first, 1e-9)


def _load() -> float:
    return os.getloadavg()[0]
