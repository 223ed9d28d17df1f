"""Runs one method of a comparison and takes its figures.

1. Figures of both ways are taken at the same places: the reports of the training loop, and what
   lies in a method's folder, to which its data set is added.
2. Online the driver hears of a report within half a second; offline at once.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import figures
from deploy.compare.outcome import Data, Load, Outcome, Point, tail_of
from deploy.compare.plan import READERS, Method, Plan
from pipeline.errors import StudyFailed
from pipeline.stats.stats import StudyStats
from pipeline.study.config import StudyConfig
from trainers.offline.stored import Sizes, sizes
from trainers.results import TrainStats, ValidationResult

if TYPE_CHECKING:
    from pipeline.members.dataset import Dataset
    from trainers.offline.ranks import OfflineJob


def online(made: Plan, method: Method, seed: int, folder: Path) -> Outcome:
    """Run the study with a policy, in a run directory of its own."""
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
        data=Data(
            members=summary.members_completed - study.ensemble.validation,
            samples=summary.samples_unique,
            draws=summary.samples_drawn,
        ),
        files=sizes(folder),
        load=Load(before, _load()),
    )


def offline(
    made: Plan,
    method: Method,
    seed: int,
    data: "tuple[Dataset, Dataset]",
    seconds: float | None,
    out: Path,
) -> Outcome:
    """Train on files, for so many passes or seconds.

    Args:
        made: What is compared.
        method: Which files, and how they are read.
        seed: Seed of the study.
        data: Members to train on, members to validate with.
        seconds: Time limit; None: none.
        out: Folder of the comparison.
    """
    from trainers.offline.ranks import train_offline

    training, study, store = data[0], made.of_seed(seed), READERS[method.name].store
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
        data=Data(members=members, samples=min(samples, draws), draws=draws),
        files=Sizes(
            written=own.written + round(share * training.bytes_written[store]),
            disk=own.disk + round(share * training.disk_bytes[store]),
        ),
        load=Load(before, _load()),
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
    from pipeline.study.for_trainer import problem_of, weights_seed
    from trainers.offline.ranks import OfflineJob

    (training, validation), reader = data, READERS[method.name]
    moments = training.moments[:count]
    draws = sum(each.count for each in moments) * (method.passes or 0)
    return OfflineJob(
        folder=training.folder / reader.store,
        store=reader.store,
        read=reader.read,
        in_memory=reader.in_memory,
        members=training.members[:count],
        validation_folder=validation.folder / "npy",
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
    return Point(
        seconds=seconds,
        train_step=train_step,
        members=members,
        error=None if result is None else result.error,
        tail=None if result is None else tail_of(result.shown.spread),
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
    data: Data,
    files: Sizes,
    load: Load,
) -> Outcome:
    result, ranks = last.validation, study.trainer.ranks
    if result is None:
        raise StudyFailed(f"{method.label}: the training ended before anything was validated")
    rate = ranks * steps_per_second(course, first)
    return Outcome(
        method=method.label,
        online=method.online,
        seed=study.seed,
        members=data.members,
        samples=data.samples,
        draws=data.draws,
        train_steps=last.train_step,
        wall_seconds=wall,
        first_step_seconds=first,
        wait_seconds=waited,
        batches_per_second=rate,
        samples_per_second=rate * study.trainer.batch,
        bytes_written=files.written,
        disk_bytes=files.disk,
        error=result.error,
        fields=result.one_step.fields,
        spread=result.shown.spread,
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
