"""Where the samples of a message go in one store: deduplication, slots, assembly of parts.

1. A sample is stored once; stored ones are recognised by (member, sample), parts by their box.
2. A slot is written only between its ``reserve`` and its ``commit``.
3. A sample is committed when disjoint boxes cover its whole grid, and not before.
4. A message that contradicts what is being assembled changes nothing.
5. A part of a sample whose slot is reserved needs no room.
6. No slot is kept for a sample whose other parts will never come: its attempt has failed.
7. Where samples are stored in a fixed order (``pipeline/stream/order.py``), one gets a slot when
   it is the next, and one in parts when no other is being assembled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.slots.memory import Rows, SlotArrays, SlotNumbers, span
from pipeline.stream.order import Turn
from pipeline.stream.wire import Message


@runtime_checkable
class Book(Protocol):
    """The bookkeeping that says which slot is free."""

    def reserve(self, count: int) -> SlotNumbers:
        """Up to ``count`` slots to be filled; fewer, or none, when there is no room."""
        ...

    def commit(self, slots: SlotNumbers) -> object:
        """The samples in these slots are complete."""
        ...

    def cancel(self, slots: SlotNumbers) -> None:
        """These reserved slots will not be filled."""
        ...


@dataclass(slots=True)
class _Assembly:
    """A sample of which some parts have arrived."""

    slot: int
    boxes: list[Box]
    missing: int  # grid points


class Placing:
    """One store: its slots, and what is known to lie or to grow in them."""

    def __init__(
        self,
        *,
        slots: SlotArrays,
        book: Book,
        layout: SampleLayout,
        turn: Turn | None = None,
    ) -> None:
        """An empty store.

        Args:
            slots: Its memory.
            book: Which slot is free.
            layout: What lies in a slot.
            turn: The order in which samples are stored; None: as they come.
        """
        # Base-class views: a subclass such as memmap pays for every index operation.
        self._fields = np.asarray(slots.fields)
        self._inputs = np.asarray(slots.inputs)
        self._members = np.asarray(slots.members)
        self._samples = np.asarray(slots.samples)
        self._steps = np.asarray(slots.steps)
        wanted = (layout.window, *layout.sample_shape)
        if self._fields.shape[1:] != wanted or self._inputs.shape[1] != layout.num_inputs:
            raise ValueError(
                f"slots of {self._fields.shape[1:]} with {self._inputs.shape[1]} inputs cannot "
                f"hold samples of {wanted} with {layout.num_inputs} inputs"
            )
        self._book, self._layout, self.turn = book, layout, turn
        self._points = prod(layout.grid)
        self._stored: dict[int, Bool[np.ndarray, " sample"]] = {}
        self._growing: dict[tuple[int, int], _Assembly] = {}
        self._failed_attempts: dict[int, int] = {}  # the last one of a member
        self.samples = 0
        self.duplicates = 0
        self.bytes_stored = 0

    def place(self, message: Message, which: SlotNumbers, *, may_reserve: bool) -> SlotNumbers:
        """Store the samples ``which`` of a message; the ones that found no room.

        Args:
            message: Of this store's layout.
            which: Positions in the message.
            may_reserve: Whether new slots may be taken; False while older messages wait.

        Raises:
            StreamRefused: It contradicts what is stored or being assembled; nothing has changed.
        """
        if self.turn is not None and self.turn.is_over(message.stamp.member):
            self.duplicates += which.size
            return which[:0]
        known = self._known(message)
        seen = known[message.samples[which]]
        fresh = which[~seen] if seen.any() else which
        if message.whole:
            self.duplicates += which.size - fresh.size
            return self._place_whole(message, fresh, known, may_reserve)
        if message.stamp.attempt <= self._failed_attempts.get(message.stamp.member, 0):
            self.duplicates += which.size
            return which[:0]
        return self._place_parts(message, which, fresh, known, may_reserve)

    def forget_incomplete(self, member: int, *, attempt: int) -> int:
        """Free the slots of samples of which parts are missing; how many there were.

        Args:
            member: Of which an attempt has failed.
            attempt: Which one. Parts of it that are still on their way are dropped like duplicates
                from now on: only the next attempt, if there is one, sends what belongs to them.
        """
        self._failed_attempts[member] = attempt
        keys = [key for key in self._growing if key[0] == member]
        slots = [self._growing.pop(key).slot for key in keys]
        if slots:
            self._book.cancel(np.array(slots, np.int64))
            if self.turn is not None:
                self.turn.advance(-len(slots))
        return len(slots)

    def stored(self) -> dict[int, Bool[np.ndarray, " sample"]]:
        """Of each member, which samples were stored; a copy."""
        return {member: known.copy() for member, known in self._stored.items()}

    def turn_state(self) -> dict[str, Any] | None:
        """Whose turn it is once more when what is unfinished has been forgotten."""
        return None if self.turn is None else self.turn.state(unfinished=len(self._growing))

    def restore(
        self, stored: Mapping[int, Bool[np.ndarray, " sample"]], turn: Mapping[str, Any] | None
    ) -> None:
        """Recognise what was stored in an earlier life.

        Args:
            stored: As ``stored`` gave it.
            turn: As ``turn_state`` gave it.
        """
        if self.turn is not None and turn is not None:
            self.turn.restore(turn)
        self._stored = {member: known.copy() for member, known in stored.items()}
        self.samples = sum(int(known.sum()) for known in stored.values())
        self.bytes_stored = self.samples * self._layout.nbytes

    def _known(self, message: Message) -> Bool[np.ndarray, " sample"]:
        """Which samples of the member are stored, long enough for this message."""
        member, needed = message.stamp.member, int(message.samples[-1]) + 1
        known = self._stored.get(member)
        if known is None or known.size < needed:
            longer = np.zeros(max(128, 2 * needed), np.bool_)
            if known is not None:
                longer[: known.size] = known
            known = self._stored[member] = longer
        return known

    def _place_whole(
        self,
        message: Message,
        fresh: SlotNumbers,
        known: Bool[np.ndarray, " sample"],
        may_reserve: bool,
    ) -> SlotNumbers:
        if self._growing and fresh.size:
            self._refuse_whole_over_parts(message, fresh)
        while fresh.size and may_reserve:
            slots = self._reserve(message, fresh)
            if slots.size == 0:
                break
            chosen, fresh = fresh[: slots.size], fresh[slots.size :]
            rows, source = span(slots), span(chosen)
            self._fields[rows] = message.fields[source]
            self._describe(message, rows, source)
            self._commit(slots)
            known[message.samples[source]] = True
            self.samples += chosen.size
            self.bytes_stored += chosen.size * self._layout.nbytes
        return fresh

    def _reserve(self, message: Message, fresh: SlotNumbers) -> SlotNumbers:
        """Slots for the first of these samples, as many as may be stored now."""
        if self.turn is None:
            return self._book.reserve(fresh.size)
        next_ones = self.turn.ready(message.stamp.member, message.samples[fresh])
        if next_ones and not message.whole:
            next_ones = int(not self._growing)
        slots = self._book.reserve(next_ones)
        self.turn.advance(slots.size)
        return slots

    def _commit(self, slots: SlotNumbers) -> None:
        self._book.commit(slots)
        if self.turn is not None:
            self.turn.stored()

    def _refuse_whole_over_parts(self, message: Message, fresh: SlotNumbers) -> None:
        member = message.stamp.member
        for sample in message.samples[fresh].tolist():
            if (member, sample) in self._growing:
                raise StreamRefused(
                    f"wrong box: sample {sample} of member {member} arrives whole, but parts of it "
                    "are stored; all attempts at a member must cut the grid alike"
                )

    def _place_parts(
        self,
        message: Message,
        which: SlotNumbers,
        fresh: SlotNumbers,
        known: Bool[np.ndarray, " sample"],
        may_reserve: bool,
    ) -> SlotNumbers:
        member, box = message.stamp.member, message.box
        growing = [self._growing.get((member, s)) for s in message.samples[fresh].tolist()]
        self._check_parts(message, fresh, growing)
        new = [i for i, assembly in enumerate(growing) if assembly is None]
        slots = np.empty(0, np.int64)
        if new and may_reserve:
            slots = self._reserve(message, fresh[new])
        for i, slot in zip(new, slots.tolist(), strict=False):  # fewer slots than asked for
            assembly = _Assembly(slot, [], self._points)
            growing[i] = self._growing[member, int(message.samples[fresh[i]])] = assembly
        if slots.size:
            self._describe(message, slots, fresh[new[: slots.size]])
        chosen = [
            (int(k), assembly)
            for k, assembly in zip(fresh, growing, strict=True)
            if assembly is not None and box not in assembly.boxes
        ]
        self.duplicates += which.size - len(chosen) - (len(new) - slots.size)
        if chosen:
            at = np.array([assembly.slot for _, assembly in chosen])
            positions = np.array([k for k, _ in chosen])
            where: tuple[Any, ...] = (at, slice(None), slice(None), *box.slices)
            self._fields[where] = message.fields[positions]
            self.bytes_stored += positions.size * self._layout.bytes_per_point * box.points
            self._complete(message, known, chosen)
        return fresh[new[slots.size :]]

    def _check_parts(
        self, message: Message, fresh: SlotNumbers, growing: list[_Assembly | None]
    ) -> None:
        box = message.box
        for k, assembly in zip(fresh.tolist(), growing, strict=True):
            if assembly is None:
                continue
            sample = f"sample {message.samples[k]} of member {message.stamp.member}"
            if any(box.overlaps(other) and box != other for other in assembly.boxes):
                raise StreamRefused(
                    f"wrong box: {box} of {sample} overlaps {assembly.boxes[:3]}; all attempts at "
                    "a member must cut the grid alike"
                )
            row = np.concatenate([message.parameters, message.times[k]])
            if not (self._inputs[assembly.slot] == row).all():
                raise StreamRefused(
                    f"wrong inputs: {sample} has {row.tolist()}, its other parts have "
                    f"{self._inputs[assembly.slot].tolist()}; new parameters need a new member"
                )

    def _complete(
        self,
        message: Message,
        known: Bool[np.ndarray, " sample"],
        chosen: list[tuple[int, _Assembly]],
    ) -> None:
        done: list[tuple[int, int]] = []
        for k, assembly in chosen:
            assembly.boxes.append(message.box)
            assembly.missing -= message.box.points
            if assembly.missing == 0:
                done.append((int(message.samples[k]), assembly.slot))
        if done:
            for sample, _ in done:
                del self._growing[message.stamp.member, sample]
                known[sample] = True
            self._commit(np.array([slot for _, slot in done]))
            self.samples += len(done)

    def _describe(self, message: Message, rows: Rows, source: Rows) -> None:
        parameters = message.parameters.size
        self._inputs[rows, :parameters] = message.parameters
        self._inputs[rows, parameters:] = message.times[source]
        self._members[rows] = message.stamp.member
        self._steps[rows] = message.steps[source]
        self._samples[rows] = message.samples[source]
