"""The Ray shell of a reservoir: one process that receives samples and leases them to its rank.

The receiver's thread fills slots; Ray's threads lease them. One lock serialises both on the
bookkeeping, which is plain (``pipeline/reservoir/book.py``, ``pipeline/stream/intake.py``).
"""

import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ray

from pipeline.actors.parts import (
    bounds_of,
    record_attributes,
    record_layout,
    reservoir_of,
    turns_of,
)
from pipeline.checkpoint.restore import recorded_rows
from pipeline.checkpoint.saving import Saving
from pipeline.guards import check_packages
from pipeline.record.choice import Recorder
from pipeline.record.layout import rank_group
from pipeline.record.writer import Record, RecordStats
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.batches import HeldState, Returned
from pipeline.slots.memory import Slots, SlotsDescription, slots_path
from pipeline.stats.stats import ReservoirStats
from pipeline.stream.intake import Intake
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import ReceiverThread, Turnstile
from pipeline.stream.wire import Endpoint, StudyKeys
from pipeline.study import sizes
from pipeline.study.config import StudyConfig
from trainers.base import Lease, TrainStats

# How often a waiting rank looks again; far below a train step, far above the cost of a look.
_LOOK_AGAIN_SECONDS = 0.002
# Calls at once: the rank's lease and report, the driver's statistics, the end of production.
THREADS = 4
_TOO_LONG = 2  # times the longest message: up to there the sender is told


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservoirDescription:
    """What a rank needs to read the slots of its reservoir.

    Attributes:
        training: Slots that are drawn from.
        validation: The append-only store; None in a study without validation members.
    """

    training: SlotsDescription
    validation: SlotsDescription | None


class _ReservoirHost:
    """Owns the slots, the bookkeeping and the receiver of one rank."""

    def __init__(
        self,
        study: StudyConfig,
        rank: int,
        label: str,
        keys: StudyKeys,
        host: str | None,
        resume: tuple[str, int] | None = None,
        record: Path | None = None,
    ) -> None:
        """Allocate the slots and start to receive.

        Args:
            study: What is received, and how much of it is kept.
            rank: Which of the reservoirs this is.
            keys: Of the study's stream.
            label: Part of the shared-memory files' names, the same for all ranks of a study.
            host: Address to listen on over TCP; None for a socket of this node alone.
            resume: Folder of a valid checkpoint, and how many ranks took it; None: start empty.
            record: Folder of the study's record, where it has one.
        """
        check_packages()
        self._rank, self._lock = rank, Turnstile()
        self._train_stats: TrainStats | None = None
        self._trainer_blocked = 0.0
        self._validation_ended = self._may_begin = self._stop_asked = False
        layout, capacity = study.sample_layout(), study.reservoir.capacity
        turn, validation_turn = turns_of(study, rank)
        self._reservoir = reservoir_of(study, rank, turn)
        self._appended = Appended(capacity=study.validation_capacity(rank))
        with ExitStack() as undo:
            self._training = Slots.create(
                slots_path(label, rank, "train"), capacity=capacity, layout=layout
            )
            undo.callback(self._training.close)
            self._validation: Slots | None = None
            validating = study.validation_capacity(rank)
            if validating:
                self._validation = Slots.create(
                    slots_path(label, rank, "validation"), capacity=validating, layout=layout
                )
                undo.callback(self._validation.close)
            self._record: Record | None
            self._recorder: Recorder | None
            self._record, self._recorder = self._open_record(study, record, resume)
            if self._record is not None:
                undo.callback(self._record.close)
            training = Placing(
                slots=self._training,
                book=self._recorder or self._reservoir,
                layout=layout,
                turn=turn,
            )
            kept, validation = self._validation, None
            if kept is not None:
                validation = Placing(
                    slots=kept, book=self._appended, layout=layout, turn=validation_turn
                )
            self._intake = Intake(
                layout=layout,
                study=keys.study,
                training=training,
                validation=validation,
                bounds=bounds_of(study),
            )
            self._saving = Saving(
                rank=rank,
                lock=self._lock,
                book=self._reservoir,
                training=(self._training, training),
                appended=self._appended,
                validation=None if kept is None or validation is None else (kept, validation),
                recorder=self._recorder,
                freed=lambda: self._receiver.wake(),
            )
            if resume is not None:
                folder, old_ranks = resume
                self._saving.restore(Path(folder), ranks=study.trainer.ranks, old_ranks=old_ranks)
            self._receiver = ReceiverThread(
                intake=self._intake,
                lock=self._lock,
                bind="ipc" if host is None else f"tcp://{host}",
                keys=keys,
                max_frame=_TOO_LONG
                * sizes.message_bytes(study.solver, study.stream, study.trainer),
            )
            self._endpoint = self._receiver.start()
            undo.pop_all()
        # The kernel clears a page at its first touch: here, while the trainer starts, and not under
        # the first samples.
        threading.Thread(
            target=self._training.populate, name="headrace-populate", daemon=True
        ).start()

    @ray.method
    def endpoint(self) -> Endpoint:
        """Where senders connect to."""
        return self._endpoint

    @ray.method
    def describe(self) -> ReservoirDescription:
        """What the rank maps."""
        return ReservoirDescription(
            training=self._training.description,
            validation=None if self._validation is None else self._validation.description,
        )

    @ray.method
    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        deadline = time.monotonic() + timeout
        while not self._ready() and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_SECONDS)
        return self._ready()

    @ray.method
    def lease(self, returned: Returned, batches: int, batch: int, timeout: float) -> Lease:
        """End the returned leases, then draw; wait up to ``timeout`` seconds for a batch."""
        began = time.monotonic()
        with self._lock:
            for lease_id, _ in returned:
                self._reservoir.give_back(lease_id)
        if returned:
            self._receiver.wake()  # slots may be overwritten again
        while True:
            with self._lock:
                lease = self._reservoir.lease(batches, batch)
                if self._recorder is not None:
                    self._recorder.drawn(lease.indices)
            waited = time.monotonic() - began
            if lease.indices.size or lease.finished or batches == 0 or waited >= timeout:
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
        if lease.indices.size:
            self._receiver.wake()  # seen samples may be overwritten, and the surplus has shrunk
        if batches:
            self._trainer_blocked += waited
        return replace(lease, stop_asked=self._stop_asked)

    @ray.method
    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again after the end."""
        with self._lock:
            lease = self._reservoir.replay(batches, batch)
            if self._recorder is not None:
                self._recorder.drawn(lease.indices)
        return replace(lease, stop_asked=self._stop_asked)

    @ray.method
    def held(self) -> HeldState:
        """What is held now."""
        with self._lock:
            return HeldState(
                slots=self._reservoir.filled(),
                validation=self._appended.complete,
                validation_complete=self._validation_ended,
            )

    @ray.method
    def report(self, stats: TrainStats) -> None:
        """Keep the rank's newest statistics for the driver."""
        self._train_stats = stats

    @ray.method
    def begin_checkpoint(self, folder: str, batches: int) -> None:
        """Begin to write what is held now, when so many batches were trained on."""
        self._saving.begin(Path(folder), batches)

    @ray.method
    def checkpoint_done(self) -> tuple[bool, str | None]:
        """Whether that is over, and why it went wrong; None when it did not."""
        return self._saving.done()

    @ray.method
    def ask_to_stop(self) -> None:
        """The rank is to take a checkpoint and to leave; it hears of it with its next lease."""
        self._stop_asked = True

    @ray.method
    def forget_incomplete(self, member: int, attempt: int) -> None:
        """This attempt has failed: no slot is kept for what it left unfinished."""
        with self._lock:
            self._intake.forget_incomplete(member, attempt=attempt)
        self._receiver.wake()  # there are slots again

    @ray.method
    def pass_member(self, member: int, instead: int | None) -> None:
        """No further sample of this member will come; ``instead`` will run in its place."""
        with self._lock:
            self._intake.pass_member(member, instead)
        self._receiver.wake()  # others may have their turn

    @ray.method
    def end_validation(self) -> None:
        """No further validation sample will come."""
        self._validation_ended = True

    @ray.method
    def begin_training(self) -> None:
        """Whole members are there to normalise fields by."""
        self._may_begin = True

    @ray.method
    def end_production(self) -> None:
        """No further training sample will come: drain."""
        with self._lock:
            self._reservoir.end_production()

    @ray.method
    def stats(self) -> tuple[ReservoirStats, TrainStats | None]:
        """Statistics of the reservoir, and the newest of its rank."""
        self._receiver.check()
        with self._lock:
            counts, intake = self._reservoir.stats(), self._intake.stats(time.monotonic())
            return (
                ReservoirStats(
                    rank=self._rank,
                    **asdict(counts),
                    duplicates=intake.duplicates,
                    refused=intake.refused,
                    pending=intake.pending,
                    bytes_received=intake.bytes_received,
                    solver_blocked_seconds=intake.blocked_seconds,
                    trainer_blocked_seconds=self._trainer_blocked,
                    validation_held=self._appended.complete,
                    **({} if self._record is None else asdict(self._record.stats())),
                    waiting_members=self._intake.waiting_members,
                ),
                self._train_stats,
            )

    @ray.method
    def finish_record(self) -> RecordStats | None:
        """The study has come to its end: write what is left to write, and say so in the record."""
        if self._record is None:
            return None
        self._record.flush()
        self._record.close(complete=True)
        return self._record.stats()

    @ray.method
    def close(self) -> None:
        """Stop to receive and remove the shared memory. Safe to call twice."""
        self._receiver.close()
        if self._record is not None:
            self._record.close()
        self._training.close()
        if self._validation is not None:
            self._validation.close()

    def _open_record(
        self, study: StudyConfig, folder: Path | None, resume: tuple[str, int] | None
    ) -> tuple[Record, Recorder] | tuple[None, None]:
        if study.record is None or folder is None:
            return None, None
        keep, dropped = None, 0
        if resume is not None:
            keep, dropped = recorded_rows(Path(resume[0]), self._rank)
        record = Record(
            folder / rank_group(self._rank),
            layout=record_layout(study),
            attributes=record_attributes(study, self._rank),
            compression=study.record.compression,
            keep=keep,
            dropped=dropped,
            least_rows=2 * study.trainer.batch,  # one batch always fits, when all else is written
        )
        recorder = Recorder(
            book=self._reservoir,
            slots=self._training,
            record=record,
            seed=study.seed,
            what=study.record.what,
            every=study.record.every,
            fraction=study.record.fraction,
        )
        return record, recorder

    def _ready(self) -> bool:
        with self._lock:
            return self._may_begin and self._reservoir.ready


# No CPU is claimed: the reservoir works while its rank or its solvers wait, and lives beside them.
ReservoirActor = ray.remote(num_cpus=0)(_ReservoirHost)
