"""From a study to the parts of a reservoir: slots, bookkeeping, order, bounds, record, receiver."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from pipeline.checkpoint.restore import recorded_rows
from pipeline.checkpoint.saving import Saving
from pipeline.record.choice import Recorder
from pipeline.record.layout import MADE_FROM, RecordLayout, rank_group
from pipeline.record.writer import Record
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.slots.memory import SlotNumbers, Slots, slots_path
from pipeline.stream.direct import DirectReceiver
from pipeline.stream.direct_wire import most_positions
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.grants import Grants
from pipeline.stream.intake import Bounds, Intake
from pipeline.stream.order import Turn
from pipeline.stream.placing import Placing
from pipeline.stream.receiver import ReceiverThread, Turnstile
from pipeline.study.config import StudyConfig

_RESERVOIR_SEED = 0x2E5E  # of the root seed: draws and evictions of a reservoir
# Times the credit of all senders: what a killed one has sent may still wait beside its successor's.
_WAITING = 2
_TOO_LONG: Final = 2  # times the longest message: up to there the sender is told


def record_layout(study: StudyConfig) -> RecordLayout:
    """The arrays of a study's record."""
    return RecordLayout(
        sample=study.sample_layout(), spec=study.spec, parameters=study.solver.parameters()
    )


def record_attributes(study: StudyConfig, rank: int) -> dict[str, Any]:
    """What else one rank's group says of itself."""
    assert study.record is not None
    return {
        "study": study.name,
        "seed": study.seed,
        "rank": rank,
        "ranks": study.trainer.ranks,
        "solver": study.solver.kind,
        "validation": study.ensemble.validation,
        "samples_per_member": study.samples_per_member,
        "stride": study.trainer.task.stride,
        "record": study.record.model_dump(mode="json"),
        MADE_FROM: study.model_dump(mode="json", include={"solver", "parameters", "stream"}),
    }


def turns_of(study: StudyConfig, rank: int) -> tuple[Turn | None, Turn | None]:
    """The order in which training and validation samples are stored here; None: as they come."""
    if not study.deterministic:
        return None, None
    held_out, samples = study.ensemble.validation, study.samples_per_member
    ranks, training = study.trainer.ranks, range(held_out, held_out + study.ensemble.members)
    return (
        Turn(members=training, samples=samples, rank=rank, ranks=ranks),
        Turn(members=range(held_out), samples=samples, rank=rank, ranks=ranks, whole=True),
    )


def reservoir_of(study: StudyConfig, rank: int, turn: Turn | None) -> Reservoir | OrderedReservoir:
    """The bookkeeping of one rank's slots, as the study wants it."""
    settings, limits = study.reservoir, study.limits
    rng = np.random.default_rng([study.seed, _RESERVOIR_SEED, rank])
    if turn is not None:
        return OrderedReservoir(
            policy=settings.policy,
            capacity=settings.capacity,
            flow=limits.flow_control(),
            rng=rng,
            batch=study.trainer.batch,
            spread=lambda: turn.spread,
        )
    return Reservoir(
        policy=settings.policy,
        capacity=settings.capacity,
        flow=limits.flow_control(),
        rng=rng,
        most_leased=limits.leasable,
        drain=study.trainer.after_production.kind != "stop",
    )


def bounds_of(study: StudyConfig) -> Bounds:
    """What the study's own senders can send at most."""
    senders = study.ensemble.concurrent * study.ensemble.mpi_ranks
    members = study.ensemble.validation + study.ensemble.members
    if (
        study.ensemble.on_failure == "redraw"
    ):  # whose number is one of a failed member and ``members``
        members *= 2 + int(study.ensemble.max_failed_fraction * members)
    return Bounds(
        members=members,
        samples=study.samples_per_member,
        waiting_bytes=_WAITING * senders * study.stream.credit_bytes,
    )


class Announced:
    """Bookkeeping that tells those who wait at the lock of every new sample."""

    def __init__(self, book: Reservoir | OrderedReservoir | Recorder, lock: Turnstile) -> None:
        self._book, self._lock = book, lock
        self.reserve, self.cancel = book.reserve, book.cancel

    def commit(self, slots: SlotNumbers) -> object:
        """The samples in these reserved slots are complete."""
        admitted = self._book.commit(slots)
        self._lock.notify()
        return admitted


@runtime_checkable
class Receiver(Protocol):
    """Where senders come in: ``ReceiverThread`` or ``DirectReceiver`` of ``pipeline.stream``."""

    def wake(self) -> None:
        """Room may have appeared."""
        ...

    def check(self) -> None:
        """Raise what ended it, if anything did."""
        ...

    def close(self) -> None:
        """Stop."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a reservoir consists of.

    Attributes:
        rank: Which of the reservoirs it is.
        lock: Guards everything but the slots' content.
        training: Slots that are drawn from.
        book: Their bookkeeping.
        intake: What becomes of messages.
        grants: Which slots senders of this node may write into; None where they send messages.
        receivers: Where senders come in.
        endpoint: Where senders connect to.
        appended: Bookkeeping of the validation store.
        validation: Its slots; None in a study without validation members.
        recorder: Chooses what is recorded; None without a record.
        record: The study's record.
        saving: Writes checkpoints; None where none are taken.
    """

    rank: int
    lock: Turnstile
    training: Slots
    book: Reservoir | OrderedReservoir
    intake: Intake
    receivers: Sequence[Receiver]
    endpoint: Endpoint
    appended: Appended
    grants: Grants | None = None
    validation: Slots | None = None
    recorder: Recorder | None = None
    record: Record | None = None
    saving: Saving | None = None


def goes_direct(study: StudyConfig) -> bool:
    """Whether senders on the node of a reservoir write into its slots themselves."""
    return study.stream.transport == "auto" and most_positions(study.sample_layout()) > 0


def make_parts(
    study: StudyConfig,
    rank: int,
    label: str,
    keys: StudyKeys,
    host: str | None,
    node: str = "",
    resume: tuple[str, int] | None = None,
    record: Path | None = None,
) -> Parts:
    """Allocate the slots and start to receive.

    Args:
        study: What is received, and how much of it is kept.
        rank: Which of the reservoirs this is.
        label: Part of the shared-memory files' names, the same for all ranks of a study.
        keys: The keys of the study's stream.
        host: Address to listen on over TCP; None where nobody comes that way.
        node: Which node this is, where the study has several.
        resume: Folder of a valid checkpoint, and how many ranks took it; None: start empty.
        record: Folder of the study's record, where it has one.
    """
    lock, layout = Turnstile(), study.sample_layout()
    turn, validation_turn = turns_of(study, rank)
    book = reservoir_of(study, rank, turn)
    validating = study.validation_capacity(rank)
    appended = Appended(capacity=validating)
    with ExitStack() as undo:

        def slots(name: str, capacity: int) -> Slots:
            made = Slots.create(slots_path(label, rank, name), capacity=capacity, layout=layout)
            undo.callback(made.close)
            return made

        training = slots("train", study.reservoir.capacity)
        kept = slots("validation", validating) if validating else None
        recorded = _record(study, rank, record, resume)
        recorder = None
        if recorded is not None:
            undo.callback(recorded.close)
            recorder = _recorder(study, book, training, recorded)
        placing = Placing(
            slots=training,
            book=Announced(recorder or book, lock),
            layout=layout,
            turn=turn,
        )
        checks = None
        if kept is not None:
            checks = Placing(slots=kept, book=appended, layout=layout, turn=validation_turn)
        intake = Intake(
            layout=layout,
            study=keys.study,
            training=placing,
            validation=checks,
            bounds=bounds_of(study),
        )
        receivers: list[ReceiverThread | DirectReceiver] = []
        endpoint, grants = Endpoint(), None
        if host is not None:
            receivers.append(
                ReceiverThread(
                    intake=intake,
                    lock=lock,
                    bind=f"tcp://{host}",
                    keys=keys,
                    max_frame=_TOO_LONG * study.message_bytes,
                )
            )
        if goes_direct(study):
            grants = Grants(
                layout=layout,
                study=keys.study,
                training=placing,
                validation=checks,
                bounds=bounds_of(study),
                ahead=study.limits.grantable,
            )
            receivers.append(
                DirectReceiver(
                    grants=grants,
                    lock=lock,
                    refuse=intake.refuse,
                    training=training.description,
                    validation=None if kept is None else kept.description,
                    node=node,
                )
            )
        wakes = [each.wake for each in receivers]
        saving = Saving(
            rank=rank,
            lock=lock,
            book=book,
            training=(training, placing),
            appended=appended,
            validation=None if kept is None or checks is None else (kept, checks),
            recorder=recorder,
            freed=lambda: [wake() for wake in wakes],
        )
        if resume is not None:
            folder, old_ranks = resume
            saving.restore(Path(folder), ranks=study.trainer.ranks, old_ranks=old_ranks)
        for each in receivers:
            undo.callback(each.close)
            started = each.start()
            if isinstance(started, Endpoint):
                endpoint = replace(started, direct=endpoint.direct)
            else:
                endpoint = replace(endpoint, direct=started)
        undo.pop_all()
    # The kernel clears a page at its first touch: here, while the trainer starts, and not under
    # the first samples.
    threading.Thread(target=training.populate, name="headrace-populate", daemon=True).start()
    return Parts(
        rank=rank,
        lock=lock,
        training=training,
        book=book,
        intake=intake,
        grants=grants,
        receivers=receivers,
        endpoint=endpoint,
        appended=appended,
        validation=kept,
        recorder=recorder,
        record=recorded,
        saving=saving,
    )


def _record(
    study: StudyConfig, rank: int, folder: Path | None, resume: tuple[str, int] | None
) -> Record | None:
    if study.record is None or folder is None:
        return None
    keep, dropped = None, 0
    if resume is not None:
        keep, dropped = recorded_rows(Path(resume[0]), rank)
    return Record(
        folder / rank_group(rank),
        layout=record_layout(study),
        attributes=record_attributes(study, rank),
        compression=study.record.compression,
        keep=keep,
        dropped=dropped,
        least_rows=2 * study.trainer.batch,  # one batch always fits, when all else is written
    )


def _recorder(
    study: StudyConfig, book: Reservoir | OrderedReservoir, slots: Slots, record: Record
) -> Recorder:
    assert study.record is not None
    return Recorder(
        book=book,
        slots=slots,
        record=record,
        seed=study.seed,
        what=study.record.what,
        every=study.record.every,
        fraction=study.record.fraction,
    )
