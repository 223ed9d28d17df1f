"""The Ray shell of a reservoir: one process that receives samples and leases them to its rank."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import ray

from pipeline.actors.cluster import CLOSE_SECONDS, Actor, Node, answers, close_all, on_node
from pipeline.actors.parts import goes_direct, make_parts
from pipeline.actors.reservoir_host import ReservoirDescription, ReservoirHost
from pipeline.errors import StudyFailed
from pipeline.guards import check_packages
from pipeline.record.reader import write_index
from pipeline.record.writer import FLUSH_SECONDS, RecordStats
from pipeline.reservoir.batches import HeldState
from pipeline.slots.shared_files import remove_stale
from pipeline.stats.stats import ReservoirStats, StudyStats
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sockets import remove_stale_sockets
from pipeline.study.config import StudyConfig
from trainers.base import Lease
from trainers.results import TrainStats

_log = logging.getLogger(__name__)

# Calls at once: the rank's lease and report, the driver's statistics, the end of production.
THREADS = 4


class _ReservoirHost:
    """See ``ReservoirHost``; arguments as of ``make_parts``."""

    def __init__(
        self,
        study: StudyConfig,
        rank: int,
        label: str,
        keys: StudyKeys,
        host: str | None,
        node: str = "",
        resume: tuple[str, int] | None = None,
        record: Path | None = None,
    ) -> None:
        check_packages()
        parts = make_parts(study, rank, label, keys, host, node, resume, record)
        self._host = ReservoirHost(parts)

    @ray.method
    def endpoint(self) -> Endpoint:
        """Where senders connect to."""
        return self._host.endpoint()

    @ray.method
    def describe(self) -> ReservoirDescription:
        """What the rank maps."""
        return self._host.describe()

    @ray.method
    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        return self._host.wait_for_watermark(timeout)

    @ray.method
    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        """End the returned leases, then draw; wait up to ``timeout`` seconds for a batch."""
        return self._host.lease(returned, batches, batch, timeout)

    @ray.method
    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again after the end."""
        return self._host.replay(batches, batch)

    @ray.method
    def held(self) -> HeldState:
        """What is held now."""
        return self._host.held()

    @ray.method
    def report(self, stats: TrainStats) -> None:
        """Keep the rank's newest statistics for the driver."""
        self._host.report(stats)

    @ray.method
    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Begin to write what is held now, when so many batches were trained on."""
        self._host.begin_checkpoint(folder, batches)

    @ray.method
    def checkpoint_done(self) -> tuple[bool, str | None]:
        """Whether that is over, and why it went wrong; None when it did not."""
        return self._host.checkpoint_done()

    @ray.method
    def ask_to_stop(self) -> None:
        """The rank is to take a checkpoint and to leave; it hears of it with its next lease."""
        self._host.ask_to_stop()

    @ray.method
    def forget_incomplete(self, member: int, attempt: int) -> None:
        """This attempt has failed: no slot is kept for what it left unfinished."""
        self._host.forget_incomplete(member, attempt)

    @ray.method
    def pass_member(self, member: int, instead: int | None) -> None:
        """No further sample of this member will come; ``instead`` will run in its place."""
        self._host.pass_member(member, instead)

    @ray.method
    def end_validation(self) -> None:
        """No further validation sample will come."""
        self._host.end_validation()

    @ray.method
    def begin_training(self) -> None:
        """Whole members are there to normalise fields by."""
        self._host.begin_training()

    @ray.method
    def end_production(self) -> None:
        """No further training sample will come: drain."""
        self._host.end_production()

    @ray.method
    def stats(self) -> tuple[ReservoirStats, TrainStats | None]:
        """Statistics of the reservoir, and the newest of its rank."""
        return self._host.stats()

    @ray.method
    def finish_record(self) -> RecordStats | None:
        """The study has come to its end: write what is left to write, and say so in the record."""
        return self._host.finish_record()

    @ray.method
    def close(self) -> None:
        """Stop to receive and remove the shared memory. Safe to call twice."""
        self._host.close()


# No CPU is claimed: the reservoir works while its rank or its solvers wait, and lives beside them.
ReservoirActor = ray.remote(num_cpus=0)(_ReservoirHost)


@contextmanager
def reservoirs_of(
    study: StudyConfig,
    places: Sequence[Node],
    keys: StudyKeys,
    resume: tuple[str, int] | None,
    record: Path | None,
    *,
    spans_nodes: bool,
) -> Iterator[tuple[list[Actor], list[Endpoint]]]:
    """One reservoir beside each rank; their shared memory is removed when the block ends."""
    remove_stale()
    remove_stale_sockets()
    label = f"{study.name}-{keys.study:016x}"
    actors = [
        ReservoirActor.options(max_concurrency=THREADS, **on_node(node)).remote(
            study,
            rank,
            label,
            keys,
            node.address if spans_nodes else None if goes_direct(study) else "127.0.0.1",
            node.id,
            resume,
            record,
        )
        for rank, node in enumerate(places)
    ]
    try:
        calls = [actor.endpoint.remote() for actor in actors]
        yield actors, answers(calls, "a reservoir cannot be started")
    finally:
        close_all(actors, within=CLOSE_SECONDS)


def with_records(stats: StudyStats, reservoirs: Sequence[Actor], record: Path | None) -> StudyStats:
    """Let the reservoirs finish their records; the statistics with what these hold then.

    The study has its result already: a record that cannot be finished takes nothing from it.
    """
    if record is None:
        return stats
    try:
        calls = [each.finish_record.remote() for each in reservoirs]
        within = FLUSH_SECONDS + CLOSE_SECONDS
        said = answers(calls, "a reservoir does not answer", within=within)
        write_index(record)
    except (StudyFailed, OSError) as error:
        _log.error("the record is not finished: %s", error)
        return stats
    ended = zip(stats.reservoirs, said, strict=True)
    return replace(stats, reservoirs=tuple(replace(each, **asdict(last)) for each, last in ended))
