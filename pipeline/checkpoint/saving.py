"""Writes a reservoir's part of a checkpoint on a thread, beside those that fill and draw.

1. The bookkeeping is copied under the reservoir's lock; what lies in the slots then is what is
   written, because they are pinned until they are copied.
2. However the writing ends, every slot is let go.
3. One checkpoint at a time.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import final

from pipeline.checkpoint.restore import read
from pipeline.checkpoint.store import Snapshot, store_path, write
from pipeline.record.choice import Recorder
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.reservoir.state import Numbers
from pipeline.slots.memory import SlotArrays
from pipeline.stream.placing import Placing
from trainers.checkpoints.files import list_files


@final
class Saving:
    """The checkpoints of one reservoir.

    Args:
        rank: Which of them this is.
        lock: Guards everything but the slots' content.
        book: Bookkeeping of the training slots.
        training: Their samples.
        appended: Bookkeeping of the validation store.
        validation: Its samples; None in a study without.
        recorder: Chooser of what is recorded, where the study has a record.
        freed: Told, without the lock, that slots may be overwritten again.
    """

    def __init__(
        self,
        *,
        rank: int,
        lock: AbstractContextManager[None],
        book: Reservoir | OrderedReservoir,
        training: tuple[SlotArrays, Placing],
        appended: Appended,
        validation: tuple[SlotArrays, Placing] | None,
        recorder: Recorder | None = None,
        freed: Callable[[], object],
    ) -> None:
        self._rank, self._lock, self._book, self._appended = rank, lock, book, appended
        self._training, self._validation, self._freed = training, validation, freed
        self._recorder = recorder
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def restore(self, checkpoint: Path, *, ranks: int, old_ranks: int) -> None:
        """Take over this rank's share of a checkpoint, before anything else is stored.

        Raises:
            ConfigError: It does not fit into the slots.
        """
        slots, placing = self._training
        restored = read(
            checkpoint,
            rank=self._rank,
            ranks=ranks,
            old_ranks=old_ranks,
            training=slots,
            validation=None if self._validation is None else self._validation[0],
        )
        self._book.restore(restored.state)
        placing.restore(restored.stored, restored.turns[0])
        if self._recorder is not None and restored.recorded is not None:
            self._recorder.restore(restored.recorded)
        if self._validation is not None:
            self._validation[1].restore(restored.validation_stored, restored.turns[1])
            self._appended.restore(restored.validation.size)

    def begin(self, folder: Path, batches: int) -> None:
        """Begin to write into a partial checkpoint.

        Args:
            folder: Its folder.
            batches: How many of those that were leased were trained on.
        """
        if self._thread is not None and self._thread.is_alive():
            raise ValueError(f"{folder}: the checkpoint before is still being written")
        with self._lock:
            pinned = self._book.pin()
            snapshot = self._snapshot(batches)
        self._failure = None
        self._thread = threading.Thread(
            target=self._write, args=(folder, snapshot, pinned), name="headrace-checkpoint",
            daemon=True,
        )  # fmt: skip
        self._thread.start()

    def done(self) -> tuple[bool, str | None]:
        """Whether it is over, and why it went wrong; None when it did not."""
        over = self._thread is None or not self._thread.is_alive()
        return over, self._failure if over else None

    def _snapshot(self, batches: int) -> Snapshot:
        state = self._book.state(batches)
        validation = None if self._validation is None else self._validation[1]
        return Snapshot(
            state=state,
            validation=self._appended.filled(),
            stored=self._training[1].stored(),
            recorded=None if self._recorder is None else self._recorder.state(state),
            turns=(
                self._training[1].turn_state(),
                None if validation is None else validation.turn_state(),
            ),
            validation_stored={} if validation is None else validation.stored(),
        )

    def _write(self, folder: Path, snapshot: Snapshot, pinned: Numbers) -> None:
        path = store_path(folder, self._rank)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._recorder is not None and snapshot.recorded is not None:
                recorded = self._recorder.durable(snapshot.recorded)
                snapshot = replace(snapshot, recorded=recorded)
            known = write(
                path,
                snapshot,
                training=self._training[0],
                validation=None if self._validation is None else self._validation[0],
                copied=self._unpin,
            )
            list_files(folder, f"reservoir{self._rank}", [path], known)
        except Exception as error:  # noqa: BLE001 - a full disk must not end the study
            self._failure = f"{type(error).__name__}: {error}"
        finally:
            self._unpin(pinned)

    def _unpin(self, slots: Numbers) -> None:
        with self._lock:
            self._book.unpin(slots)
        self._freed()
