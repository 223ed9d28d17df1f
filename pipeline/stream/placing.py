"""Where the samples of a message go in one store: deduplication, slots, assembly of parts.

1. A sample is stored once; stored ones are recognised by (member, sample), parts by their box.
2. A slot is written only between its ``reserve`` and its ``commit``.
3. A sample is committed when disjoint boxes cover its whole grid, and not before.
4. A message that contradicts what is being assembled changes nothing.
5. A part of a sample whose slot is reserved needs no room.
6. No slot is kept for a sample whose other parts will never come: its attempt has failed.
7. Where samples are stored in a fixed order (``pipeline/stream/order.py``), one gets a slot when
   it is the next, and one in parts when no other is being assembled.
8. A slot that was granted to a sender, which writes into it itself, is nobody else's until the
   sample is stored or the grant given back, whatever becomes of the attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.errors import StreamRefused
from pipeline.slots.layout import Box, SampleLayout
from pipeline.slots.memory import Rows, SlotArrays, SlotNumbers, span
from pipeline.stream.direct_wire import STORED
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


@dataclass(frozen=True, slots=True)
class Origin:
    """Where samples come from: the attempt at a member, and the part of the grid."""

    member: int
    attempt: int
    parameters: Float64[np.ndarray, " parameters"]
    box: Box
    whole: bool


@dataclass(slots=True)
class _Assembly:
    """A sample of which some parts have arrived, or were granted."""

    slot: int
    boxes: list[Box]
    missing: int  # grid points
    holders: int = 0  # senders to which it is granted


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
        self._given_up: dict[int, _Assembly] = {}  # by slot: of failed attempts, still granted
        self._granted = 0  # slots of whole samples
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
        if self._is_over(message.stamp.member):
            self.duplicates += which.size
            return which[:0]
        known = self._known(message.stamp.member, int(message.samples[-1]) + 1)
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
        given_up = [self._growing.pop(key) for key in list(self._growing) if key[0] == member]
        self._go_back(member, len(given_up))
        self._given_up |= {each.slot: each for each in given_up if each.holders}
        if free := [each.slot for each in given_up if not each.holders]:
            self._book.cancel(np.array(free, np.int64))
        return len(given_up)

    # --- slots that a sender of this node writes into itself --------------------------------------

    def grant(self, origin: Origin, samples: range, most: int, *, ahead: bool) -> list[int]:
        """Slots for the first of these samples, in their order, as many as may have one now.

        Args:
            origin: Of the samples.
            samples: Their numbers, increasing.
            most: New slots.
            ahead: Whether these samples are still to come: then only those before the first
                ``STORED`` one are granted.

        Returns:
            ``STORED`` for a sample of which nothing need be written.

        Raises:
            StreamRefused: It contradicts what is being assembled; nothing has changed.
        """
        if not samples:
            return []
        if self._is_over(origin.member):
            return [STORED] * len(samples)
        known = self._known(origin.member, samples[-1] + 1)
        if not origin.whole:
            return self._grant_parts(origin, samples, known, most)
        seen = known[samples.start : samples.stop : samples.step]
        if ahead and seen.any():
            samples = samples[: int(seen.argmax())]
            seen = seen[: len(samples)]
        at = np.flatnonzero(~seen)
        fresh = samples.start + samples.step * at
        self._check_not_growing(origin.member, fresh)
        slots = self._reserve(origin.member, fresh[:most])
        self._granted += slots.size
        if slots.size == len(samples):
            granted = slots
        else:
            granted = np.full(len(samples) if slots.size == at.size else at[slots.size], STORED)
            granted[at[: slots.size]] = slots
        listed: list[int] = granted.tolist()
        return listed

    def store(
        self,
        origin: Origin,
        samples: range,
        slots: SlotNumbers,
        steps: Int64[np.ndarray, " k"],
        times: Float64[np.ndarray, " k window"],
    ) -> None:
        """These samples, or this part of them, are in the slots that ``grant`` gave for them.

        Raises:
            StreamRefused: It contradicts what is being assembled; nothing has changed.
        """
        known = self._known(origin.member, samples[-1] + 1)
        if not origin.whole:
            self._store_parts(origin, samples, slots, steps, times, known)
            return
        seen = known[samples.start : samples.stop : samples.step]
        numbers = np.arange(samples.start, samples.stop, samples.step)
        unneeded = seen | (slots == STORED)
        if self._is_over(origin.member):
            unneeded[:] = True
        if unneeded.any():
            self.give_back(origin, samples, slots[unneeded])
            self.duplicates += int(unneeded.sum())
            fresh = ~unneeded
            numbers, slots, steps, times = numbers[fresh], slots[fresh], steps[fresh], times[fresh]
        if slots.size:
            self._granted -= slots.size
            self._describe(origin, slots, numbers, steps, times)
            self._commit(slots)
            known[numbers] = True
            self.samples += slots.size
            self.bytes_stored += slots.size * self._layout.nbytes

    def give_back(self, origin: Origin, samples: range, slots: SlotNumbers) -> None:
        """Nothing will be written into these granted slots any more."""
        if origin.whole:
            slots = slots[slots != STORED]
            self._granted -= slots.size
            self._book.cancel(slots)
            self._go_back(origin.member, slots.size)
            return
        for sample, slot in zip(samples, slots.tolist(), strict=True):
            if slot == STORED:
                continue
            assembly = self._let_go(origin.member, sample, slot)
            if assembly is not None and not assembly.holders and not assembly.boxes:
                del self._growing[origin.member, sample]
                self._book.cancel(np.array([slot]))
                self._go_back(origin.member, 1)

    def _grant_parts(
        self, origin: Origin, samples: range, known: Bool[np.ndarray, " sample"], most: int
    ) -> list[int]:
        if origin.attempt <= self._failed_attempts.get(origin.member, 0):
            return [STORED] * len(samples)
        growing = [self._growing.get((origin.member, sample)) for sample in samples]
        for sample, assembly in zip(samples, growing, strict=True):
            if assembly is not None:
                self._check_box(origin, sample, assembly)
        granted: list[int] = []
        for sample, assembly in zip(samples, growing, strict=True):
            if known[sample] or (assembly is not None and origin.box in assembly.boxes):
                granted.append(STORED)
                continue
            if assembly is None:
                most -= 1
                if most < 0 or (self.turn is not None and self._growing):
                    break
                slots = self._reserve(origin.member, np.array([sample]))
                if slots.size == 0:
                    break
                assembly = _Assembly(int(slots[0]), [], self._points)
                self._growing[origin.member, sample] = assembly
            assembly.holders += 1
            granted.append(assembly.slot)
        return granted

    def _store_parts(
        self,
        origin: Origin,
        samples: range,
        slots: SlotNumbers,
        steps: Int64[np.ndarray, " k"],
        times: Float64[np.ndarray, " k window"],
        known: Bool[np.ndarray, " sample"],
    ) -> None:
        named = list(zip(samples, slots.tolist(), times, strict=True))
        for sample, slot, row in named:
            assembly = self._growing.get((origin.member, sample))
            if assembly is not None and assembly.slot == slot and assembly.boxes:
                self._check_inputs(origin, sample, slot, row)
        done: list[tuple[int, _Assembly]] = []
        for k, (sample, slot, _) in enumerate(named):
            assembly = None if slot == STORED else self._let_go(origin.member, sample, slot)
            if assembly is None or origin.box in assembly.boxes:
                self.duplicates += 1
                continue
            if not assembly.boxes:
                one = slice(k, k + 1)
                self._describe(origin, slots[one], np.array([sample]), steps[one], times[one])
            self.bytes_stored += self._layout.bytes_per_point * origin.box.points
            done.append((sample, assembly))
        self._complete(origin, known, done)

    def _let_go(self, member: int, sample: int, slot: int) -> _Assembly | None:
        """A sender has done with a slot; what is assembled there, if its attempt still counts."""
        assembly = self._growing.get((member, sample))
        if assembly is not None and assembly.slot == slot:
            assembly.holders -= 1
            return assembly
        given_up = self._given_up[slot]
        given_up.holders -= 1
        if not given_up.holders:
            del self._given_up[slot]
            self._book.cancel(np.array([slot]))
        return None

    def _go_back(self, member: int, count: int) -> None:
        """The last ``count`` samples of a member that had slots have lost them."""
        if self.turn is not None and self.turn.member == member:
            self.turn.advance(-count)

    def _is_over(self, member: int) -> bool:
        return self.turn is not None and self.turn.is_over(member)

    # --- what is known ----------------------------------------------------------------------------

    def stored(self) -> dict[int, Bool[np.ndarray, " sample"]]:
        """Of each member, which samples were stored; a copy."""
        return {member: known.copy() for member, known in self._stored.items()}

    def turn_state(self) -> dict[str, Any] | None:
        """Whose turn it is once more when what is unfinished has been forgotten."""
        unfinished = len(self._growing) + self._granted
        return None if self.turn is None else self.turn.state(unfinished=unfinished)

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

    # --- messages ---------------------------------------------------------------------------------

    def _known(self, member: int, needed: int) -> Bool[np.ndarray, " sample"]:
        """Which samples of a member are stored, for the first ``needed`` at least."""
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
        member, origin = message.stamp.member, _origin(message)
        self._check_not_growing(member, message.samples[fresh])
        while fresh.size and may_reserve:
            slots = self._reserve(member, message.samples[fresh])
            if slots.size == 0:
                break
            chosen, fresh = fresh[: slots.size], fresh[slots.size :]
            rows, source = span(slots), span(chosen)
            self._fields[rows] = message.fields[source]
            self._describe(
                origin, rows, message.samples[source], message.steps[source], message.times[source]
            )
            self._commit(slots)
            known[message.samples[source]] = True
            self.samples += chosen.size
            self.bytes_stored += chosen.size * self._layout.nbytes
        return fresh

    def _reserve(self, member: int, fresh: Int64[np.ndarray, " k"]) -> SlotNumbers:
        """Slots for the first of these samples, as many as may be stored now."""
        if self.turn is None:
            return self._book.reserve(fresh.size)
        if self._granted:  # one after the other: which is stored next must be known
            return fresh[:0]
        slots = self._book.reserve(self.turn.ready(member, fresh))
        self.turn.advance(slots.size)
        return slots

    def _commit(self, slots: SlotNumbers) -> None:
        self._book.commit(slots)
        if self.turn is not None and not self._granted:
            self.turn.stored()

    def _check_not_growing(self, member: int, samples: Int64[np.ndarray, " k"]) -> None:
        for sample in samples.tolist() if self._growing else ():
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
        member, box, origin = message.stamp.member, message.box, _origin(message)
        growing = [self._growing.get((member, s)) for s in message.samples[fresh].tolist()]
        for k, assembly in zip(fresh.tolist(), growing, strict=True):
            if assembly is not None:
                self._check_box(origin, int(message.samples[k]), assembly)
                self._check_inputs(origin, int(message.samples[k]), assembly.slot, message.times[k])
        new = [i for i, assembly in enumerate(growing) if assembly is None]
        slots = np.empty(0, np.int64)
        if new and may_reserve:
            most = len(new) if self.turn is None else int(not self._growing)
            slots = self._reserve(member, message.samples[fresh[new[:most]]])
        for i, slot in zip(new, slots.tolist(), strict=False):  # fewer slots than asked for
            assembly = _Assembly(slot, [], self._points)
            growing[i] = self._growing[member, int(message.samples[fresh[i]])] = assembly
        if slots.size:
            named = fresh[new[: slots.size]]
            self._describe(
                origin, slots, message.samples[named], message.steps[named], message.times[named]
            )
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
            named_ones = [(int(message.samples[k]), assembly) for k, assembly in chosen]
            self._complete(origin, known, named_ones)
        return fresh[new[slots.size :]]

    def _check_box(self, origin: Origin, sample: int, assembly: _Assembly) -> None:
        box = origin.box
        if any(box.overlaps(other) and box != other for other in assembly.boxes):
            raise StreamRefused(
                f"wrong box: {box} of sample {sample} of member {origin.member} overlaps "
                f"{assembly.boxes[:3]}; all attempts at a member must cut the grid alike"
            )

    def _check_inputs(
        self, origin: Origin, sample: int, slot: int, times: Float64[np.ndarray, " window"]
    ) -> None:
        row = np.concatenate([origin.parameters, times])
        if not (self._inputs[slot] == row).all():
            raise StreamRefused(
                f"wrong inputs: sample {sample} of member {origin.member} has {row.tolist()}, its "
                f"other parts have {self._inputs[slot].tolist()}; new parameters need a new member"
            )

    def _complete(
        self,
        origin: Origin,
        known: Bool[np.ndarray, " sample"],
        parts: list[tuple[int, _Assembly]],
    ) -> None:
        """This part of these samples has come: store those that have all theirs now."""
        done: list[int] = []
        for sample, assembly in parts:
            assembly.boxes.append(origin.box)
            assembly.missing -= origin.box.points
            if assembly.missing == 0:
                del self._growing[origin.member, sample]
                known[sample] = True
                done.append(assembly.slot)
        if done:
            self._commit(np.array(done))
            self.samples += len(done)

    def _describe(
        self,
        origin: Origin,
        rows: Rows,
        samples: Int64[np.ndarray, " k"],
        steps: Int64[np.ndarray, " k"],
        times: Float64[np.ndarray, " k window"],
    ) -> None:
        parameters = origin.parameters.size
        self._inputs[rows, :parameters] = origin.parameters
        self._inputs[rows, parameters:] = times
        self._members[rows] = origin.member
        self._samples[rows] = samples
        self._steps[rows] = steps


def _origin(message: Message) -> Origin:
    stamp = message.stamp
    return Origin(stamp.member, stamp.attempt, message.parameters, message.box, message.whole)
