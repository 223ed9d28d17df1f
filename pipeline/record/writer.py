"""Writes samples of one rank into a Zarr group, on a thread of its own, from a bounded queue.

1. ``add`` copies what fits and returns at once; what does not fit is dropped, and counted.
2. Memory is bounded: ``queue_bytes``, or ``least_rows`` and two blocks where that is more.
3. ``flush`` returns when every row that was added before can be read and survives a crash.
4. Whole chunks only: rows of a block that is not full are written with it, and again when it is.
5. A disk that fails later ends the record, not the study: ``problem`` says why, and all else is
   dropped.
6. After ``Record(..., keep=position)`` the rows from ``position`` on are gone, and only those; what
   was ``dropped`` before counts, so that a record with a gap is never called complete.
7. One process writes at a time: another waits for a reservoir that outlives its killed driver.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Int64, Shaped

from pipeline.record.block import Block, Index
from pipeline.record.layout import RecordLayout, require_version
from pipeline.record.rows import METADATA, Column, Compression, RowGroup, attributes_of
from pipeline.slots.memory import SlotArrays
from trainers.durable import LOCK_SECONDS, sole_writer

_log = logging.getLogger(__name__)

QUEUE_BYTES: Final = 128 << 20
_PREPARED: Final = 16  # blocks: all of them, unless samples are tiny
COMMIT_SECONDS: Final = 5.0  # what a crash of the machine costs at most
FLUSH_SECONDS: Final = 600.0  # longest that anybody waits for a disk


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordStats:
    """Counters of a record, under the names of ``pipeline.stats.stats.ReservoirStats``.

    Attributes:
        recorded: Samples taken into the record.
        record_dropped: Samples that it should have, and has not.
        record_bytes: Written to disk.
        record_queue_bytes: Waiting to be written.
        record_problem: Why it is incomplete; None while nothing has failed.
    """

    recorded: int
    record_dropped: int
    record_bytes: int
    record_queue_bytes: int
    record_problem: str | None


@final
class Record:
    """The record of one rank.

    Whoever holds the reservoir's lock calls ``add`` and ``count_draws``; the rest is for anyone.
    """

    def __init__(
        self,
        path: Path,
        *,
        layout: RecordLayout,
        attributes: Mapping[str, Any],
        compression: Compression,
        keep: int | None = None,
        dropped: int = 0,
        queue_bytes: int = QUEUE_BYTES,
        least_rows: int = 1,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        """Create a group, or go on with the one that is there.

        Args:
            path: The group's folder.
            layout: Its arrays.
            attributes: Attributes of the group, besides those of the layout.
            compression: Codec of its chunks.
            keep: None for a new group; else rows of the group that is there, later ones are cut.
            dropped: Samples that it should have from an earlier life, and has not.
            queue_bytes: Memory for samples that are not written yet.
            least_rows: Samples that must fit into it, however large they are.
            commit_seconds: From one commit to the next while samples come.

        Raises:
            ConfigError: Another version has written the group that is there.
            OSError: The disk.
            ValueError: It was written for other samples.
        """
        self._layout, self._commit_seconds = layout, commit_seconds
        self._fields = layout.fields()
        self._short = layout.numbers()
        self._draws_column = layout.draws()
        columns = [*self._fields, *self._short, self._draws_column]
        self._alone = ExitStack()
        if keep is None:
            self._group = RowGroup.create(
                path,
                columns=columns,
                fixed=layout.axes(),
                attributes={**layout.attributes(), **attributes, "complete": False},
                compression=compression,
            )
            self._alone.enter_context(sole_writer(path, LOCK_SECONDS))
        else:
            self._alone.enter_context(sole_writer(path, LOCK_SECONDS))
            require_version(path, attributes_of(path))
            self._group = RowGroup.reopen(path, columns=columns, compression=compression)
            (path.parent / METADATA).unlink(missing_ok=True)  # the index of all ranks
            self._group.attributes |= {"complete": False, "problem": None}
            self._group.cut(keep)
        self._tails = {
            column.name: np.zeros((column.chunk_rows, *column.row), column.dtype)
            for column in self._short
        }
        self._block_rows = layout.block_rows
        one = self._block_rows * layout.row_bytes
        needed = 2 + -(-least_rows // self._block_rows)  # one is filled, one is written
        self._spare = max(needed, queue_bytes // one)  # blocks that may still be allocated
        self._free: list[Block] = []
        self._full: deque[Block] = deque()
        self._draws = np.zeros(self._draws_column.chunk_rows, np.int32)  # whole chunks
        self._dirty: set[int] = set()  # chunks of draws
        self._rows = self._group.rows
        self._recorded, self._dropped = 0, dropped
        self._problem: str | None = None
        self._changed = threading.Condition()
        self._asked = self._done = 0  # flushes
        self._closing = False
        self._current: Block | None = None
        if self._rows:
            self._restore()
        self._thread = threading.Thread(target=self._run, name="headrace-record", daemon=True)
        self._thread.start()

    # --- whoever holds the reservoir's lock ------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows added so far, those of an earlier life included: a position to ``keep``."""
        return self._rows

    def add(self, held: SlotArrays, slots: Index, count: int) -> int:
        """Copy the samples of ``count`` slots in, in order; they get the rows from ``rows`` on.

        Returns:
            How many found room, the first ones; the others are dropped.
        """
        done = 0
        while done < count and not self._ended():
            block = self._block()
            if block is None:
                break
            taken = min(count - done, self._block_rows - block.filled)
            block.take(held, _part(slots, done, done + taken), taken)
            with self._changed:
                if self._ended():
                    break
                block.filled += taken
                self._recorded += taken
                self._extend(taken)
                if block.filled == self._block_rows:
                    self._full.append(block)
                    self._current = None
                    self._changed.notify_all()
            done += taken
        with self._changed:
            self._dropped += count - done
        return done

    def count_draws(
        self, rows: Int64[np.ndarray, " row"], counts: Int64[np.ndarray, " row"]
    ) -> None:
        """These rows, each named once, were drawn so often."""
        if rows.size:
            with self._changed:
                self._draws[rows] += counts
                self._dirty.update(np.unique(rows // self._draws_column.chunk_rows).tolist())

    def set_draws(self, rows: Int64[np.ndarray, " row"], counts: Int64[np.ndarray, " row"]) -> None:
        """These rows were drawn so often in all, whatever was counted."""
        self.count_draws(rows, counts - self._draws[rows])

    # --- anybody ---------------------------------------------------------------------------------

    def stats(self) -> RecordStats:
        """All counters."""
        with self._changed:
            waiting = len(self._full) * self._block_rows
            if (current := self._current) is not None:
                waiting += current.filled - current.copied
        return RecordStats(
            recorded=self._recorded,
            record_dropped=self._dropped,
            record_bytes=self._group.bytes_written,
            record_queue_bytes=waiting * self._layout.row_bytes,
            record_problem=self._problem,
        )

    def flush(self, timeout: float = FLUSH_SECONDS) -> int:
        """Wait until what was added before is on the disk; the rows that are.

        Fewer than were added when the record has failed, or the time was too short.
        """
        with self._changed:
            ticket = self._asked = self._asked + 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._done >= ticket or self._problem or not self._thread.is_alive(),
                timeout,
            )
        return self._group.rows

    def close(self, *, complete: bool = False, timeout: float = 8.0) -> None:
        """Write what waits and stop. Safe to call twice.

        Args:
            complete: Whether the study has come to its end: the record says so.
            timeout: Seconds; what is not written by then is lost.
        """
        with self._changed:
            if self._closing:
                return
            self._group.attributes |= {
                "complete": complete and self._problem is None and self._dropped == 0,
                "dropped": self._dropped,
            }
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._alone.close()

    # --- the writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._prepare()
            self._write_until_closed()
        except OSError as error:
            self._fail(f"{error.strerror or error} ({self._group.path})")
        except Exception as error:  # noqa: BLE001 - a bug in here must not end a study either
            self._fail(f"{type(error).__name__}: {error}")

    def _prepare(self) -> None:
        """Touch the memory of the first blocks here, and not under the first samples."""
        for _ in range(_PREPARED):
            with self._changed:
                if not self._spare or self._closing:
                    return
                block = self._new_block()
                for own in block.fields:
                    own.fill(0)
                self._free.append(block)

    def _write_until_closed(self) -> None:
        committed_at = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._commit_seconds)
                asked, closing = self._asked, self._closing
                full = self._full[0] if self._full else None
            # A flush is for what was added before it; new blocks must not put it off for ever.
            due = asked > self._done or time.monotonic() - committed_at >= self._commit_seconds
            if full is not None:
                self._write_full(full)
            if due or (closing and full is None):
                self._commit()
                committed_at = time.monotonic()
                with self._changed:
                    self._done = asked
                    self._changed.notify_all()
                if closing and not self._full:
                    return

    def _has_work(self) -> bool:
        return bool(self._full) or self._closing or self._asked > self._done

    def _commit(self) -> None:
        """Everything that was added up to now becomes readable."""
        with self._changed:
            full, current = list(self._full), self._current
            filled = 0 if current is None else current.filled
            rows = self._rows
            length = self._draws_column.chunk_rows
            counts = self._draws.reshape(-1, length)
            draws = [(index, counts[index].copy()) for index in sorted(self._dirty)]
            self._dirty.clear()
            changed = rows != self._group.rows or bool(draws)
        if not changed and not self._closing:
            return
        for block in full:
            self._write_full(block)
        if current is not None and filled > current.copied:
            self._write_block(current, filled)
        self._write_tails(rows)
        for index, values in draws:
            self._group.write_chunk(self._draws_column, index, values)
        self._group.commit(rows)

    def _write_block(self, block: Block, filled: int) -> None:
        """Its chunk of each field; nobody reads rows after ``filled``."""
        if block.copied == filled:
            return
        for channel, column in enumerate(self._fields):
            values = block.stable(channel, filled)
            self._group.write_chunk(column, block.first // self._block_rows, values)
        for column, new in zip(self._short, block.short(block.copied, filled), strict=True):
            self._append(column, block.first + block.copied, new)
        block.copied = filled

    def _append(self, column: Column, at: int, new: Shaped[np.ndarray, " _ ..."]) -> None:
        """Into the tail of a short array; tails that are full go to the disk."""
        tail, done = self._tails[column.name], 0
        while done < len(new):
            place = (at + done) % column.chunk_rows
            taken = min(len(new) - done, column.chunk_rows - place)
            tail[place : place + taken] = new[done : done + taken]
            done += taken
            if place + taken == column.chunk_rows:
                self._group.write_chunk(column, (at + done - 1) // column.chunk_rows, tail)

    def _write_tails(self, rows: int) -> None:
        for column in self._short:
            if rows % column.chunk_rows:
                index = rows // column.chunk_rows
                self._group.write_chunk(column, index, self._tails[column.name])

    def _write_full(self, block: Block) -> None:
        """Write a block that takes no more, and have it filled anew."""
        self._write_block(block, self._block_rows)
        with self._changed:
            self._full.remove(block)
            block.filled = block.copied = 0
            self._free.append(block)

    def _fail(self, reason: str) -> None:
        _log.error(
            "the record has stopped, the study goes on: %s. %d of %d samples can be read",
            reason, self._group.rows, self._rows,
        )  # fmt: skip
        with self._changed:
            self._problem = reason
            self._dropped += self._rows - self._group.rows
            self._recorded -= self._rows - self._group.rows
            self._full.clear()
            self._free.clear()
            self._current = None
            self._changed.notify_all()
        self._group.attributes |= {"complete": False, "problem": reason, "dropped": self._dropped}
        try:
            self._group.discard()
            self._group.commit(self._group.rows)  # says why, if the disk lets it
        except OSError:
            _log.warning("%s cannot say so itself", self._group.path / METADATA)

    # --- inside ----------------------------------------------------------------------------------

    def _block(self) -> Block | None:
        """The block that is being filled, a new one where there is none."""
        with self._changed:
            if self._current is None:
                if not self._free and not self._spare:
                    return None
                self._current = self._free.pop() if self._free else self._new_block()
                self._current.first = self._rows
            return self._current

    def _new_block(self) -> Block:
        self._spare -= 1
        return Block(self._layout)

    def _ended(self) -> bool:
        return self._problem is not None or self._closing

    def _extend(self, taken: int) -> None:
        """Room for the draws of new rows, and zeros on the disk."""
        chunk, first = self._draws_column.chunk_rows, self._rows
        self._rows += taken
        self._make_room()
        self._dirty.update(range(first // chunk, (self._rows - 1) // chunk + 1))

    def _make_room(self) -> None:
        while self._rows > self._draws.size:
            self._draws = np.concatenate([self._draws, np.zeros_like(self._draws)])

    def _restore(self) -> None:
        """Take up the last chunks of what is there, where they are not full."""
        rows = self._rows
        self._make_room()
        self._draws[:rows] = self._group.read(self._draws_column, 0)
        for column in self._short:
            last = self._group.read(column, rows - rows % column.chunk_rows)
            self._tails[column.name][: len(last)] = last
        filled = rows % self._block_rows
        if filled:
            block = self._current = self._new_block()
            block.first = rows - filled
            block.filled = block.copied = filled
            for column, own in zip(self._fields, block.fields, strict=True):
                own[:filled] = self._group.read(column, block.first)


def _part(index: Index, start: int, stop: int) -> Index:
    if isinstance(index, slice):
        return slice(index.start + start, index.start + stop)
    return index[start:stop]
