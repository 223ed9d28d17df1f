"""A Prometheus endpoint with the figures of the progress display.

1. What only grows is a counter (``_total``), everything else a gauge; base units, in the name.
2. A scrape reads the newest ``StudyStats`` and computes nothing else.
3. The endpoint listens on loopback unless another address is asked for.
4. ``docs/metrics.md`` lists exactly what is exported.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, final, get_args

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deploy import figures
from pipeline.stats.stats import MemberCounts, Phase, ReservoirStats, StudyStats, Waiting
from trainers.results import Errors, TrainStats
from trainers.surrogate.card import STATISTICS

LOOPBACK = "127.0.0.1"

Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One exported metric.

    Attributes:
        name: Without ``_total``, which Prometheus adds to counters.
        kind: Whether it only grows.
        help: One line, with the unit.
        labels: Names of its labels.
        read: Label values and value of each of its samples.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]
    read: Callable[[StudyStats], Iterable[Sample]]

    @property
    def exported_name(self) -> str:
        """As it is written in a query."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _study(
    name: str,
    kind: Literal["counter", "gauge"],
    text: str,
    read: Callable[[StudyStats], float | None],
) -> Figure:
    def samples(stats: StudyStats) -> Iterator[Sample]:
        value = read(stats)
        if value is not None:
            yield (), value

    return Figure(name=f"headrace_{name}", kind=kind, help=text, labels=(), read=samples)


def _reservoir(
    name: str,
    kind: Literal["counter", "gauge"],
    text: str,
    read: Callable[[ReservoirStats], float | None],
) -> Figure:
    def samples(stats: StudyStats) -> Iterator[Sample]:
        for one in stats.reservoirs:
            value = read(one)
            if value is not None:
                yield (str(one.rank),), value

    return Figure(
        name=f"headrace_reservoir_{name}", kind=kind, help=text, labels=("rank",), read=samples
    )


def _trainer(
    name: str,
    kind: Literal["counter", "gauge"],
    text: str,
    read: Callable[[TrainStats], float | None],
) -> Figure:
    def samples(stats: StudyStats) -> Iterator[Sample]:
        for one in stats.ranks:
            value = read(one)
            if value is not None:
                yield (str(one.rank),), value

    return Figure(
        name=f"headrace_trainer_{name}", kind=kind, help=text, labels=("rank",), read=samples
    )


def _members(stats: StudyStats) -> Iterator[Sample]:
    counts: MemberCounts = stats.members
    for state in ("waiting", "running", "completed", "failed"):
        yield (state,), float(getattr(counts, state))


def _kinds(stats: StudyStats) -> Iterator[tuple[str, Errors]]:
    result = figures.validation(stats)
    if result is not None:
        yield "one_step", result.one_step
        if result.rollout is not None:
            yield "rollout", result.rollout


def _by_field(stats: StudyStats, name: str) -> Iterator[Sample]:
    for kind, errors in _kinds(stats):
        yield from (((kind, one.name), float(getattr(one, name))) for one in errors.fields)


def _by_statistic(stats: StudyStats) -> Iterator[Sample]:
    for kind, errors in _kinds(stats):
        for name in STATISTICS:
            value = getattr(errors.spread, name)
            if value is not None:
                yield (kind, name), value


def _cost(stats: StudyStats) -> Iterator[Sample]:
    yield ("solver",), stats.cost.solver_seconds
    yield ("trainer",), stats.cost.trainer_seconds


def _query(stats: StudyStats) -> Iterator[Sample]:
    result = figures.validation(stats)
    if result is not None and result.query is not None:
        yield ("alone",), result.query.alone_seconds
        yield ("batched",), result.query.batched_seconds


def _breakeven(stats: StudyStats) -> Iterator[Sample]:
    paid = stats.breakeven
    for kind, queries in (
        () if paid is None else (("alone", paid.queries), ("batched", paid.batched_queries))
    ):
        if queries is not None:
            yield (kind,), float(queries)


def _one_of(current: str, names: Iterable[str]) -> Iterator[Sample]:
    return (((name,), float(name == current)) for name in names)


STUDY = (
    _study("elapsed_seconds", "gauge", "Time since the study was started.",
           lambda s: s.elapsed_seconds),
    _study("remaining_seconds", "gauge", "Estimated time left; absent while unknown.",
           lambda s: s.remaining_seconds),
    Figure(name="headrace_phase", kind="gauge", labels=("phase",),
           help="1 for the phase the study is in, 0 for the others.",
           read=lambda s: _one_of(s.phase, get_args(Phase))),
    Figure(name="headrace_waiting", kind="gauge", labels=("side",),
           help="1 for the side that waits for the other, or for nobody; 0 for the others.",
           read=lambda s: _one_of(s.waiting, get_args(Waiting))),
    Figure(name="headrace_members", kind="gauge", labels=("state",),
           help="Members by state, training and validation members together.", read=_members),
    _study("member_retries", "counter", "Attempts at members beyond the first.",
           lambda s: s.members.retries),
    _study("member_redraws", "counter", "Failed members that others have taken the place of.",
           lambda s: s.members.redrawn),
    _study("samples_expected", "gauge", "Training samples the ensemble will yield at most.",
           lambda s: s.samples_expected),
    _study("samples_inserted_per_second", "gauge",
           "Training samples stored per second over the last few seconds, all ranks.",
           lambda s: s.samples_inserted_per_second),
    _study("samples_drawn_per_second", "gauge",
           "Draws per second over the last few seconds, all ranks.",
           lambda s: s.samples_drawn_per_second),
    _study("reuse_ratio", "gauge", "Draws per stored sample so far.", lambda s: s.reuse_mean),
    _study("solver_wait_seconds", "counter",
           "Time solvers waited for credit, sum over finished attempts.",
           lambda s: s.solver_wait_seconds),
    _study("loss", "gauge", "Newest training loss of the normalised fields, mean over ranks.",
           figures.loss),
    _study("validation_error_ratio", "gauge",
           "Newest validation error: mean of the fields' errors, in their standard deviations.",
           lambda s: None if (v := figures.validation(s)) is None else v.error),
    Figure(name="headrace_validation_mse", kind="gauge", labels=("kind", "field"),
           help="Newest mean squared error, field unit squared; of rollouts for tasks that step.",
           read=lambda s: _by_field(s, "mse")),
    Figure(name="headrace_validation_relative_l2_ratio", kind="gauge", labels=("kind", "field"),
           help="Newest error relative to the truth, mean over samples or rollouts.",
           read=lambda s: _by_field(s, "relative_l2")),
    Figure(name="headrace_validation_nrmse_ratio", kind="gauge", labels=("kind", "field"),
           help="Newest root mean squared error, as a share of the field's standard deviation.",
           read=lambda s: _by_field(s, "nrmse")),
    Figure(name="headrace_validation_member_error_ratio", kind="gauge",
           labels=("kind", "statistic"), read=_by_statistic,
           help="Newest errors of the validation members: mean, median, p95 (from 20 members on), "
           "p99 (from 100) and so on."),
    Figure(name="headrace_validation_diverged_members", kind="gauge", labels=("kind",),
           help="Validation members whose newest prediction is not finite.",
           read=lambda s: (((kind,), float(e.spread.diverged)) for kind, e in _kinds(s))),
    Figure(name="headrace_cost_seconds", kind="counter", labels=("side",),
           help="Time for which solvers and ranks were held, sum over processes.", read=_cost),
    _study("solver_member_seconds", "gauge",
           "Time inside the solver for one member, mean over completed members.",
           lambda s: s.cost.member_seconds),
    Figure(name="headrace_surrogate_query_seconds", kind="gauge", labels=("batch",),
           help="Time of the surrogate for all snapshots of one member, alone or among many.",
           read=_query),
    Figure(name="headrace_breakeven_queries", kind="gauge", labels=("batch",),
           help="Queries after which the study has paid; absent while unknown, and where never.",
           read=_breakeven),
)  # fmt: skip

RESERVOIR = (
    _reservoir("capacity_samples", "gauge", "Slots.", lambda r: r.capacity),
    _reservoir("held_samples", "gauge", "Slots that may be drawn from.", lambda r: r.held),
    _reservoir("unseen_samples", "gauge", "Held samples that were never drawn.",
               lambda r: r.unseen),
    _reservoir("leased_samples", "gauge", "Slots promised to the rank.", lambda r: r.leased),
    _reservoir(
        "pending_messages",
        "gauge",
        "Messages, and senders of the same node, that wait for room.",
        lambda r: r.pending,
    ),
    _reservoir("validation_held_samples", "gauge", "Validation samples stored.",
               lambda r: r.validation_held),
    _reservoir("inserted_samples", "counter", "Training samples stored.", lambda r: r.inserted),
    _reservoir("drawn_samples", "counter", "Draws.", lambda r: r.drawn),
    _reservoir("draw_evenness_ratio", "gauge",
               "Samples that would count as much if all were drawn equally often, over all.",
               lambda r: r.effective_share),
    _reservoir("unique_samples", "counter", "Samples drawn at least once.", lambda r: r.unique),
    _reservoir("evicted_samples", "counter", "Samples overwritten.", lambda r: r.evicted),
    _reservoir("duplicate_samples", "counter", "Samples recognised as stored before, dropped.",
               lambda r: r.duplicates),
    _reservoir("refused_messages", "counter", "Messages malformed, foreign or not finite.",
               lambda r: r.refused),
    _reservoir("received_bytes", "counter", "Field bytes stored.", lambda r: r.bytes_received),
    _reservoir("solver_blocked_seconds", "counter",
               "Time during which at least one message waited for room.",
               lambda r: r.solver_blocked_seconds),
    _reservoir("trainer_blocked_seconds", "counter", "Time the rank waited for a lease.",
               lambda r: r.trainer_blocked_seconds),
    _reservoir("recorded_samples", "counter", "Samples taken into the record.",
               lambda r: r.recorded),
    _reservoir("record_dropped_samples", "counter",
               "Samples that the record should have, and has not.", lambda r: r.record_dropped),
    _reservoir("record_bytes", "counter", "Written to the record.", lambda r: r.record_bytes),
    _reservoir("record_queue_bytes", "gauge", "Waiting to be written to the record.",
               lambda r: r.record_queue_bytes),
    _reservoir("record_failed", "gauge", "1 when the record has stopped, on a full disk say.",
               lambda r: float(r.record_problem is not None)),
)  # fmt: skip

TRAINER = (
    _trainer("steps", "counter", "Train steps taken.", lambda t: t.train_step),
    _trainer("loss", "gauge", "Newest training loss of the normalised fields.",
             lambda t: t.loss if t.train_step > 0 else None),
    _trainer("learning_rate", "gauge", "Learning rate of the next train step.",
             lambda t: t.learning_rate),
    _trainer("wait_seconds", "counter", "Time the rank waited for batches after its first step.",
             lambda t: t.wait_seconds),
    _trainer("checkpoint_step", "gauge", "Train step of the newest checkpoint.",
             lambda t: t.checkpoint),
    _trainer("checkpoints_failed", "counter", "Checkpoints that could not be written.",
             lambda t: t.checkpoints_failed),
    _trainer("first_step_seconds", "gauge", "From the start of the study to the first train step.",
             lambda t: t.first_step_seconds),
)  # fmt: skip

FIGURES: tuple[Figure, ...] = (*STUDY, *RESERVOIR, *TRAINER)
INFO_HELP = "Always 1; its label names the study."


def markdown_table() -> str:
    """The table of ``docs/metrics.md``."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    rows.append(f"| `headrace_study_info` | gauge | `study` | {INFO_HELP} |")
    rows.extend(
        f"| `{one.exported_name}` | {one.kind} | "
        f"{', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in FIGURES
    )
    return "\n".join(rows) + "\n"


@final
class StudyCollector(Collector):
    """Turns the newest ``StudyStats`` into metrics when asked.

    Args:
        study: The study's name, as the label of ``headrace_study_info``.
    """

    def __init__(self, *, study: str) -> None:
        self._study = study
        self._newest: StudyStats | None = None

    def update(self, stats: StudyStats) -> None:
        """Show ``stats`` from now on."""
        self._newest = stats

    def collect(self) -> Iterator[Metric]:
        """The metrics of one scrape."""
        info = GaugeMetricFamily("headrace_study_info", INFO_HELP, labels=["study"])
        info.add_metric([self._study], 1.0)
        yield info
        stats = self._newest
        if stats is not None:
            for figure in FIGURES:
                yield _family(figure, stats)


def _family(figure: Figure, stats: StudyStats) -> Metric:
    kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    family = kind(figure.name, figure.help, labels=list(figure.labels))
    for labels, value in figure.read(stats):
        family.add_metric(list(labels), value)
    return family


@final
class MetricsServer:
    """An observer that serves what it is told over HTTP; use it as a context manager.

    Args:
        study: The study's name.
        host: Address to listen on.
        port: 0 lets the system choose; see ``url`` then.

    Raises:
        OSError: On entering, when the address cannot be listened on.
    """

    def __init__(self, *, study: str, host: str = LOOPBACK, port: int = 0) -> None:
        self._collector = StudyCollector(study=study)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        self._host = host
        self._port = port
        self._stop: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """Where to scrape; valid while the server runs."""
        return f"http://{self._host}:{self._port}/metrics"

    def __enter__(self) -> Self:
        server, thread = start_http_server(self._port, self._host, self._registry)
        self._port = server.server_port

        def stop(thread: threading.Thread = thread) -> None:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5.0)

        self._stop = stop
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None

    def __call__(self, stats: StudyStats) -> None:
        """Serve ``stats`` from now on."""
        self._collector.update(stats)
