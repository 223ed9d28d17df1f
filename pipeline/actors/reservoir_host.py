"""What a reservoir does for its rank and its driver, without Ray.

The receiver's thread fills slots; whoever calls leases them. One lock serialises both on the
bookkeeping, which is plain (``pipeline/reservoir/book.py``, ``pipeline/stream/intake.py``).

Invariants (``tests/unit/pipeline/actors/test_reservoir_host.py``):

1. A rank that waits for a batch, or for the watermark, goes on as soon as it may: nobody polls.
2. The receiver is told whenever slots may have become free.
3. What is said after ``close`` changes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from pipeline.actors.parts import Parts
from pipeline.record.writer import RecordStats
from pipeline.reservoir.batches import HeldState
from pipeline.slots.memory import SlotsDescription
from pipeline.stats.stats import ReservoirStats
from pipeline.stream.endpoint import Endpoint
from trainers.base import Lease
from trainers.results import TrainStats


@dataclass(frozen=True, kw_only=True, slots=True)
class ReservoirDescription:
    """What a rank needs to read the slots of its reservoir.

    Attributes:
        training: Slots that are drawn from.
        validation: The append-only store; None in a study without validation members.
    """

    training: SlotsDescription
    validation: SlotsDescription | None


@final
class ReservoirHost:
    """The slots, the bookkeeping and the receiver of one rank."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock, self._book = parts.lock, parts.book
        self._train_stats: TrainStats | None = None
        self._trainer_blocked = 0.0
        self._validation_ended = self._may_begin = self._stop_asked = False

    def endpoint(self) -> Endpoint:
        """Where senders connect to."""
        return self._parts.endpoint

    def describe(self) -> ReservoirDescription:
        """What the rank maps."""
        return ReservoirDescription(
            training=self._parts.training.description,
            validation=None
            if self._parts.validation is None
            else self._parts.validation.description,
        )

    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        with self._lock:
            return self._lock.wait_for(lambda: self._may_begin and self._book.ready, timeout)

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        """End the returned leases, then draw; wait up to ``timeout`` seconds for a batch."""
        began = time.monotonic()
        with self._lock:
            for lease_id in returned:
                self._book.give_back(lease_id)
        if returned:
            self._wake()  # slots may be overwritten again
        with self._lock:
            lease = self._book.lease(batches, batch)

            def enough() -> bool:
                nonlocal lease
                if not lease.indices.size and not lease.finished:
                    lease = self._book.lease(batches, batch)
                return lease.indices.size > 0 or lease.finished

            if batches:
                self._lock.wait_for(enough, timeout)
                self._trainer_blocked += time.monotonic() - began
            self._note(lease)
        if lease.indices.size:
            self._wake()  # seen samples may be overwritten, and the surplus has shrunk
        return replace(lease, stop_asked=self._stop_asked)

    def replay(self, batches: int, batch: int) -> Lease:
        """Draw exactly ``batches`` batches again after the end."""
        with self._lock:
            lease = self._book.replay(batches, batch)
            self._note(lease)
        return replace(lease, stop_asked=self._stop_asked)

    def _wake(self) -> None:
        for receiver in self._parts.receivers:
            receiver.wake()

    def _note(self, lease: Lease) -> None:
        if self._parts.recorder is not None:
            self._parts.recorder.drawn(lease.indices)

    def held(self) -> HeldState:
        """What is held now."""
        with self._lock:
            return HeldState(
                slots=self._book.filled(),
                validation=self._parts.appended.complete,
                validation_complete=self._validation_ended,
            )

    def report(self, stats: TrainStats) -> None:
        """Keep the rank's newest statistics for the driver."""
        self._train_stats = stats

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Begin to write what is held now, when so many batches were trained on."""
        assert self._parts.saving is not None
        self._parts.saving.begin(folder, batches)

    def checkpoint_done(self) -> tuple[bool, str | None]:
        """Whether that is over, and why it went wrong; None when it did not."""
        assert self._parts.saving is not None
        return self._parts.saving.done()

    def ask_to_stop(self) -> None:
        """The rank is to take a checkpoint and to leave; it hears of it with its next lease."""
        self._stop_asked = True

    def forget_incomplete(self, member: int, attempt: int) -> None:
        """This attempt has failed: no slot is kept for what it left unfinished."""
        with self._lock:
            self._parts.intake.forget_incomplete(member, attempt=attempt)
        self._wake()  # there are slots again

    def pass_member(self, member: int, instead: int | None) -> None:
        """No further sample of this member will come; ``instead`` will run in its place."""
        with self._lock:
            self._parts.intake.pass_member(member, instead)
        self._wake()  # others may have their turn

    def end_validation(self) -> None:
        """No further validation sample will come."""
        with self._lock:
            self._validation_ended = True

    def begin_training(self) -> None:
        """Whole members are there to normalise fields by."""
        with self._lock:
            self._may_begin = True
            self._lock.notify()

    def end_production(self) -> None:
        """No further training sample will come: drain."""
        with self._lock:
            self._book.end_production()
            self._lock.notify()

    def stats(self) -> tuple[ReservoirStats, TrainStats | None]:
        """Statistics of the reservoir, and the newest of its rank."""
        for receiver in self._parts.receivers:
            receiver.check()
        with self._lock:
            record, grants, now = self._parts.record, self._parts.grants, time.monotonic()
            intake = self._parts.intake.stats(now)
            if grants is not None:
                intake += grants.stats(now)
            stats = ReservoirStats(
                rank=self._parts.rank,
                trainer_blocked_seconds=self._trainer_blocked,
                validation_held=self._parts.appended.complete,
                **asdict(self._book.stats()),
                **asdict(intake),
                **({} if record is None else asdict(record.stats())),
            )
        return stats, self._train_stats

    def finish_record(self) -> RecordStats | None:
        """The study has come to its end: write what is left to write, and say so in the record."""
        record = self._parts.record
        if record is None:
            return None
        record.flush()
        record.close(complete=True)
        return record.stats()

    def close(self) -> None:
        """Stop to receive and remove the shared memory. Safe to call twice."""
        for receiver in self._parts.receivers:
            receiver.close()
        if self._parts.record is not None:
            self._parts.record.close()
        self._parts.training.close()
        if self._parts.validation is not None:
            self._parts.validation.close()
