"""Runs a study: builds every part, connects them, and takes them down again.

Read it beside the picture in the README: design -> solvers -> reservoirs -> ranks.

1. Nothing is started for a study that cannot run.
2. Solvers start while the trainer starts; they fill the reservoirs meanwhile.
3. However a study ends, its processes end and its shared memory is removed; one that could not be
   started leaves no run directory either.
4. A study that is resumed goes on from its newest valid checkpoint, in the same run directory.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from pipeline.actors.cluster import Node, cluster, place_ranks, require_cpus, uses_gpu
from pipeline.actors.driver import Driver, Observer
from pipeline.actors.reservoir import reservoirs_of, with_records
from pipeline.actors.solver import solvers_of
from pipeline.actors.trainer import Ranks
from pipeline.checkpoint.inputs import as_begun, keep
from pipeline.checkpoint.resuming import (
    Progress,
    check_changes,
    read_study,
    take_over,
    what_was_kept,
)
from pipeline.control.controller import Controller
from pipeline.control.journal import Journal, read
from pipeline.control.observing import Harmless
from pipeline.control.rundir import RunDirectory, RunPaths, drop_empty
from pipeline.control.stopping import StopRequest
from pipeline.errors import ConfigError, carry_on
from pipeline.guards import check_packages, project_root
from pipeline.slots.shared_files import PREFIX, remove_stale
from pipeline.stats.members import MemberTable
from pipeline.stats.regions import ErrorsOf, errors_by_region, parameters_of
from pipeline.stats.stats import StudyStats, Summary
from pipeline.stats.summary import study_facts, summarise
from pipeline.stats.watch import Watch
from pipeline.stream.endpoint import StudyKeys
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from pipeline.study.own_network import network_problems
from trainers.libraries import missing_libraries
from trainers.results import QueryTime
from trainers.surrogate import card

if TYPE_CHECKING:
    from trainers.surrogate.surrogate import Surrogate

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What a study leaves behind.

    Attributes:
        out: The run directory.
        summary: The figures of ``summary.json``.
        stats: The last statistics of every part.
    """

    out: Path
    summary: Summary
    stats: StudyStats

    def surrogate(self) -> "Surrogate":
        """The trained network as a callable in physical units."""
        from trainers.surrogate.export import load_surrogate

        return load_surrogate(RunPaths(self.out).model)


def run(
    study: StudyConfig,
    *,
    out: Path | str,
    source_text: str | None = None,
    observers: Sequence[Observer] = (),
    stop: StopRequest | None = None,
    production_seconds: float | None = None,
) -> StudyResult:
    """Run a study to its end.

    Args:
        study: From ``pipeline.study.load.load`` or ``parse``.
        out: Run directory; it must be new or empty.
        source_text: The study as it was written, kept as ``study.yaml``.
        observers: Called in this process about twice a second; what one raises is logged once.
        stop: By which somebody may ask the study to stop after a checkpoint.
        production_seconds: From the start of the study; then no further member is started, and the
            reservoirs drain. None: all members are run.

    Raises:
        ConfigError: The study or its surroundings are wrong; nothing was started.
        StudyFailed: The study ended without a result; the run directory says how far it came.
        StudyStopped: It was asked to stop, and has.
    """
    check_packages()
    _check_surroundings(study)
    if not observers:  # who watches has shown them
        for line in study.warnings():
            _log.warning(line)
    directory = RunDirectory(Path(out).resolve())
    directory.write_study(source=source_text, resolved=study.as_json())
    keep(directory.paths.folder, study)
    return _run_in(directory, study, None, observers, stop, production_seconds)


def resume(
    out: Path | str,
    *,
    study: StudyConfig | None = None,
    observers: Sequence[Observer] = (),
    stop: StopRequest | None = None,
) -> StudyResult:
    """Go on with a study that was stopped, or killed, from its newest valid checkpoint.

    Args:
        out: Its run directory.
        study: With what may change (``pipeline.checkpoint.resuming.CHANGEABLE``); None: as it was.
        observers: As in ``run``.
        stop: As in ``run``.

    Raises:
        ConfigError: There is no such study, it has ended, or a setting must not change.
        StudyFailed: As in ``run``.
        StudyStopped: As in ``run``.
    """
    check_packages()
    path = Path(out).resolve()
    before = read_study(path)
    if study is None:
        study = before
    check_changes(before, study)
    begun, changed = as_begun(path, study)
    for line in changed:
        _log.warning(line)
    _check_surroundings(begun)
    directory = RunDirectory(path, again=True)
    progress = take_over(path, study)
    directory.write_study(source=None, resolved=study.as_json())
    return _run_in(directory, begun, progress, observers, stop)


def _check_surroundings(study: StudyConfig) -> None:
    if found := missing_libraries(study.trainer.loggers) + network_problems(study):
        raise ConfigError(found)


def _run_in(
    directory: RunDirectory,
    study: StudyConfig,
    progress: Progress | None,
    observers: Sequence[Observer],
    stop: StopRequest | None,
    production_seconds: float | None = None,
) -> StudyResult:
    started = time.monotonic() - (0.0 if progress is None else progress.elapsed)

    def clock() -> float:
        return time.monotonic() - started

    journal = Journal(directory.paths.journal)
    try:
        if progress is not None:
            checkpoint = progress.checkpoint
            journal.write(
                "resumed",
                at=clock(),
                train_step=None if checkpoint is None else checkpoint.train_step,
                completed=len(progress.completed),
                failed=len(progress.failed),
            )
        with cluster(cpus=study.cpus, project_root=project_root()) as nodes:
            parts = _Parts(
                study=study,
                directory=directory,
                journal=journal,
                progress=progress,
                observers=observers,
                stop=StopRequest() if stop is None else stop,
                clock=clock,
                production_seconds=production_seconds,
            )
            stats = _run_on(nodes, parts)
        summary = _conclude(study, directory, stats)
        return StudyResult(out=directory.paths.folder, summary=summary, stats=stats)
    except BaseException as error:
        with suppress(OSError):  # somebody may have removed the folder
            if directory.paths.journal.stat().st_size == 0:  # not a single member was given out
                directory.empty()
        error.add_note(what_was_kept(directory.paths.folder))
        raise
    finally:
        journal.close()
        directory.close()
        remove_stale(f"{PREFIX}{study.name}-")  # what a killed reservoir could not remove itself


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """What there is of a study before its processes are."""

    study: StudyConfig
    directory: RunDirectory
    journal: Journal
    progress: Progress | None
    observers: Sequence[Observer]
    stop: StopRequest
    clock: Callable[[], float]
    production_seconds: float | None

    @property
    def resume(self) -> tuple[str, int] | None:
        """The checkpoint to go on from, and how many ranks took it."""
        checkpoint = None if self.progress is None else self.progress.checkpoint
        if checkpoint is None:
            return None
        return str(checkpoint.folder), int(checkpoint.facts["ranks"])


def _conclude(study: StudyConfig, directory: RunDirectory, stats: StudyStats) -> Summary:
    """Write down what the study came to: ``summary.json``, and its part of the model's card."""
    query: QueryTime | None = None
    regions: tuple[ErrorsOf, ...] = ()
    # On a cluster whose nodes share no folder it lies where rank 0 was.
    here = directory.paths.card.exists()
    with carry_on("time of a query in the summary"):
        query = QueryTime(**card.read(directory.paths.model)["query"]) if here else None
    with carry_on("error by parameter in the summary"):
        errors = MemberTable.newest(directory.paths.members).shown
        regions = errors_by_region(study, parameters_of(read(directory.paths.journal)), errors)
    summary = summarise(study.name, stats, query=query, regions=regions)
    directory.write_summary(summary)
    with carry_on("part of the study in the model's card"):
        if here:
            card.complete(directory.paths.model, study_facts(study, summary))
    with carry_on("tidy run directory"):
        drop_empty(directory.paths.checkpoints)
    return summary


def _run_on(nodes: Sequence[Node], parts: _Parts) -> StudyStats:
    study, progress, clock = parts.study, parts.progress, parts.clock
    use_gpu = uses_gpu(study, nodes)
    require_cpus(nodes, study.ensemble.mpi_ranks)
    places = place_ranks(nodes, study.trainer.ranks, use_gpu=use_gpu)
    design, keys = design_of(study), StudyKeys.generate()
    record = None if study.record is None else parts.directory.paths.record
    spans_nodes, from_checkpoint = len(nodes) > 1, parts.resume
    with (
        closing(Ranks(places, use_gpu=use_gpu, spans_nodes=spans_nodes)) as ranks,
        reservoirs_of(study, places, keys, from_checkpoint, record, spans_nodes=spans_nodes) as (
            reservoirs,
            endpoints,
        ),
        solvers_of(study, endpoints, keys) as solvers,
    ):
        driver = Driver(
            controller=Controller(
                validation=study.ensemble.validation,
                members=study.ensemble.members,
                max_attempts=study.ensemble.max_attempts,
                max_failed_fraction=study.ensemble.max_failed_fraction,
                member_timeout=study.ensemble.member_timeout,
                completed=frozenset() if progress is None else progress.completed,
                failures=[] if progress is None else list(progress.failed),
                may_end_early=study.trainer.early_stop is not None,
                on_failure=study.ensemble.on_failure,
                ordered=study.deterministic,
                first=study.first_members,
                production_seconds=parts.production_seconds,
            ),
            solvers=solvers,
            reservoirs=reservoirs,
            training=ranks.train(
                study,
                reservoirs,
                out=parts.directory.paths.folder,
                started_at=time.time() - clock(),
                resume=None if from_checkpoint is None else Path(from_checkpoint[0]),
            ),
            parameters=lambda assignment: (
                design.values(assignment.member)
                if assignment.instead_of is None
                else design.redraw(assignment.member, 1)
            ),
            journal=parts.journal,
            run_directory=parts.directory,
            watch=Watch(samples_expected=study.expected_samples, simulates=study.source is None),
            observers=[Harmless(each) for each in parts.observers],
            clock=clock,
            stop=parts.stop,
            grace_seconds=study.checkpoint.grace_seconds,
        )
        return with_records(driver.run(), reservoirs, record)
