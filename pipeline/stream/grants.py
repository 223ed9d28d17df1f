"""Who holds which slot: the book of what senders of this node may write into, without sockets.

1. No slot is granted to two senders at a time, but for the parts of one sample.
2. A grant ends when its sender commits it, gives it back, or has died (``end``); time ends none.
3. Senders commit what they were granted and nothing else, in the order in which it was granted.
4. What is in hand gets slots before what is still to come, and among senders whoever has waited
   longest. What is to come gets at most ``ahead`` slots of the training store in all, in equal
   shares, and none where samples are stored in a fixed order or in the validation store.
5. A sender that says what it may not say is refused and told why; nothing is stored for it.

Not thread-safe: the shell (``pipeline/stream/direct.py``) serialises the calls.
"""

import math
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np

from pipeline.errors import StreamRefused
from pipeline.flow import MOST_TOGETHER
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream import direct_wire as wire
from pipeline.stream.direct_wire import STORED
from pipeline.stream.intake import BlockedClock, Bounds, IntakeStats
from pipeline.stream.placing import Origin, Placing

MOST: Final = 4096  # positions that a sender may ask for at a time


@dataclass(slots=True, eq=False)
class Holder:
    """One sender, as the reservoir knows it.

    Attributes:
        box: Its part of the grid.
        origin: The attempt that slots were granted for; None before the first.
        open: Whether that goes on: not after another was refused.
        base: Where that began.
        position: The next that it will commit.
        slots: Granted, for the positions from there on.
    """

    box: Box
    origin: Origin | None = None
    open: bool = False
    store: Placing | None = None
    first: int = 0
    stride: int = 1
    base: int = 0
    round: int = 0
    position: int = 0
    slots: list[int] = field(default_factory=list)
    have: int = 0
    until: int = 0
    told: int = 0  # positions below it were granted in answers

    @property
    def granted(self) -> int:
        """Positions below it have their slots."""
        return self.position + len(self.slots)

    def samples(self, start: int, stop: int) -> range:
        """Numbers of the samples at these positions."""
        first = self.first + self.stride * (start - self.base)
        return range(first, first + self.stride * (stop - start), self.stride)


@final
class Grants:
    """Grants of one training store and, maybe, one validation store."""

    def __init__(
        self,
        *,
        layout: SampleLayout,
        study: int,
        training: Placing,
        validation: Placing | None = None,
        bounds: Bounds | None = None,
        ahead: int = MOST,
    ) -> None:
        self._layout, self._study = layout, study
        self._bounds = Bounds() if bounds is None else bounds
        self._training, self._validation = training, validation
        self._most_ahead = 0 if training.turn is not None else ahead
        self._out = 0  # slots of the training store that are granted
        self._holding: set[Holder] = set()  # that were granted something
        self._hungry: dict[Holder, None] = {}  # that want more than they have, longest first
        self._news: dict[Holder, None] = {}
        self._blocked = BlockedClock()

    @property
    def waiting(self) -> tuple[Holder, ...]:
        """Senders with samples in hand that have no slot."""
        return tuple(each for each in self._hungry if each.have > each.granted)

    def stats(self, now: float) -> IntakeStats:
        """What waits here; what is stored, the stores know, and what was refused, the intake."""
        waiting = self.waiting
        members = {each.origin.member for each in waiting if each.origin is not None}
        return IntakeStats(
            duplicates=0,
            refused=0,
            pending=len(waiting),
            bytes_received=0,
            solver_blocked_seconds=self._blocked.seconds(now),
            waiting_members=tuple(sorted(members)),
        )

    def enter(self, frame: memoryview) -> Holder:
        """Whoever says hello.

        Raises:
            StreamRefused: It is no hello, or one to another study.
        """
        said = wire.decode_request(frame, layout=self._layout)
        if not isinstance(said, wire.Hello):
            raise StreamRefused("no hello: a sender says who it is before anything else")
        if said.study != self._study:
            raise StreamRefused("wrong study: this reservoir belongs to another")
        holder = Holder(said.box)
        self._news[holder] = None
        return holder

    def take(self, holder: Holder, frame: memoryview) -> None:
        """Do what a sender says.

        Raises:
            StreamRefused: It may not say that.
        """
        said = wire.decode_request(frame, layout=self._layout)
        if isinstance(said, wire.Work):
            self._work(holder, said)
        elif isinstance(said, wire.Open):
            self._open(holder, said)
        elif isinstance(said, wire.Return):
            self._give_back(holder)
            holder.round = said.round
            self._news[holder] = None
        else:
            raise StreamRefused("unexpected hello: this sender has said who it is")

    def leave(self, holder: Holder) -> None:
        """This sender asks for nothing any more; what it was granted it may still write into."""
        self._hungry.pop(holder, None)
        self._news.pop(holder, None)

    def end(self, holder: Holder) -> None:
        """This sender writes no more: it was granted nothing, or its process has ended."""
        self._give_back(holder)
        self._news.pop(holder, None)

    def serve(self, now: float) -> list[tuple[Holder, bytes]]:
        """Grant what can be granted; what is to be told to whom."""
        self._serve_in_hand()
        self._serve_ahead()
        self._blocked.note(any(each.have > each.granted for each in self._hungry), now)
        answers = [(holder, self._answer(holder)) for holder in self._news]
        self._news.clear()
        return answers

    def _answer(self, holder: Holder) -> bytes:
        new = holder.slots[holder.told - holder.position :]
        position, holder.told = holder.told, holder.granted
        return wire.grant(holder.round, holder.position, position, new)

    def _open(self, holder: Holder, said: wire.Open) -> None:
        member, store = said.member, self._validation if said.validation else self._training
        serves = self._is_whole(holder) and store is holder.store and STORED not in holder.slots
        if not serves or said.position != holder.position:
            if holder.slots:
                raise StreamRefused("not given back: slots that were granted for another member")
            holder.position = holder.told = said.position
        holder.open = False
        if said.round != holder.round:
            raise StreamRefused(f"wrong round: {said.round}, at this reservoir {holder.round}")
        if not 0 <= member < self._bounds.members:
            raise StreamRefused(f"wrong member: {member}, this study has {self._bounds.members}")
        if store is None:
            raise StreamRefused("unexpected validation sample: there is no validation store here")
        if said.stride < 1:
            raise StreamRefused("wrong stride: 0, need at least 1")
        if not all(map(math.isfinite, said.parameters.tolist())):
            raise StreamRefused(f"not finite: parameters of member {member}: {said.parameters}")
        whole = holder.box.size == self._layout.grid
        holder.origin = Origin(member, said.attempt, said.parameters, holder.box, whole)
        holder.store, holder.open = store, True
        holder.first, holder.stride, holder.base = said.first, said.stride, said.position
        self._want(holder, holder.position, holder.position)

    def _work(self, holder: Holder, said: wire.Work) -> None:
        count = said.steps.size
        if holder.origin is None or holder.store is None or not holder.open:
            raise StreamRefused("nothing is open: a sender says which member before anything of it")
        if said.round != holder.round:
            raise StreamRefused(f"wrong round: {said.round}, at this reservoir {holder.round}")
        if said.position != holder.position or count > holder.told - holder.position:
            raise StreamRefused(
                f"not granted: {count} positions from {said.position} on; this sender was granted "
                f"those from {holder.position} to {holder.told}"
            )
        after = holder.position + count
        last = holder.first + holder.stride * (max(after, said.have) - 1 - holder.base)
        if said.have > after + MOST or last >= self._bounds.samples:
            raise StreamRefused(
                f"wrong sample: {last}, need one below {self._bounds.samples} and at most {MOST} "
                "of them at a time"
            )
        if count:
            self._store(holder, holder.origin, holder.store, said)
        self._want(holder, max(said.have, after), said.until)

    def _want(self, holder: Holder, have: int, until: int) -> None:
        below = holder.base - (holder.first - self._bounds.samples) // holder.stride
        holder.have = have
        holder.until = max(have, min(until, holder.position + MOST, below))
        if holder.until > holder.granted:
            self._hungry.setdefault(holder)
        else:
            self._hungry.pop(holder, None)
        self._news[holder] = None

    def _store(self, holder: Holder, origin: Origin, store: Placing, said: wire.Work) -> None:
        if not np.isfinite(said.times).all():
            raise StreamRefused(f"not finite: times of member {origin.member}")
        count = said.steps.size
        named = holder.slots[:count]
        slots = np.array(named)
        samples = holder.samples(holder.position, holder.position + count)
        store.store(origin, samples, slots, said.steps, said.times)
        del holder.slots[:count]
        holder.position += count
        if not holder.slots:
            self._holding.discard(holder)
        self._count_out(store, named.count(STORED) - count)

    def _give_back(self, holder: Holder) -> None:
        """All that this sender was granted, and wants."""
        self._hungry.pop(holder, None)
        if holder.slots and holder.origin is not None and holder.store is not None:
            slots = np.array(holder.slots)
            samples = holder.samples(holder.position, holder.granted)
            self._count_out(holder.store, holder.slots.count(STORED) - slots.size)
            holder.slots.clear()
            self._holding.discard(holder)
            holder.store.give_back(holder.origin, samples, slots)
        holder.have = holder.until = holder.told = holder.position

    def _serve_in_hand(self) -> None:
        full: set[Placing] = set()
        for holder in list(self._hungry):
            store = holder.store
            if store is None or holder.have <= holder.granted or store in full:
                continue
            self._fill(holder, holder.have, holder.have - holder.granted, ahead=False)
            # One that owns a part may still have a share in what others were granted.
            if holder.have > holder.granted and store.turn is None and self._is_whole(holder):
                full.add(store)

    def _serve_ahead(self) -> None:
        if not self._hungry:
            return
        share = self._most_ahead // max(1, len(self._holding | self._hungry.keys()))
        for holder in list(self._hungry):
            if self._out >= self._most_ahead:
                return
            if holder.store is not self._training or holder.have > holder.granted:
                continue
            most = self._most_ahead - self._out
            until = min(holder.until, holder.position + max(1, share))
            if not self._is_whole(holder):
                until = min(until, holder.position + MOST_TOGETHER)
            self._fill(holder, until, most, ahead=True)

    def _fill(self, holder: Holder, until: int, most: int, *, ahead: bool) -> None:
        start = holder.granted
        if until <= start or holder.origin is None or holder.store is None:
            return
        samples = holder.samples(start, until)
        slots = holder.store.grant(holder.origin, samples, most, ahead=ahead)
        if slots:
            holder.slots += slots
            self._holding.add(holder)
            self._count_out(holder.store, len(slots) - slots.count(STORED))
            self._news[holder] = None
        if holder.granted >= holder.until:
            del self._hungry[holder]

    def _count_out(self, store: Placing, change: int) -> None:
        if store is self._training:
            self._out += change

    def _is_whole(self, holder: Holder) -> bool:
        return holder.origin is not None and holder.origin.whole
