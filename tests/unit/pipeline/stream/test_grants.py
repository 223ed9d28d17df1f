"""The book of grants, driven by the messages of senders that behave, stop, die and come again."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StreamRefused
from pipeline.flow import FlowControl
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream import direct_wire as wire
from pipeline.stream.direct_wire import STORED
from pipeline.stream.grants import MOST, Grants, Holder
from pipeline.stream.intake import Bounds
from pipeline.stream.order import Turn
from pipeline.stream.placing import Placing

LAYOUT = SampleLayout(window=1, sample_shape=(1, 4, 6), num_parameters=2)
WHOLE = Box.whole(LAYOUT.grid)
TOP, BOTTOM = Box((0, 0), (1, 6)), Box((1, 0), (3, 6))
SAMPLES = 7  # of a member
CAPACITY = 24
STUDY = 5


class Arrays:
    def __init__(self) -> None:
        self.fields = np.zeros((CAPACITY, 1, *LAYOUT.sample_shape), np.float32)
        self.inputs = np.zeros((CAPACITY, LAYOUT.num_inputs))
        self.members = np.full(CAPACITY, -1)
        self.samples = np.full(CAPACITY, -1)
        self.steps = np.full(CAPACITY, -1)


def value(member: int, sample: int) -> float:
    return 100.0 * member + sample + 1


@dataclass
class Store:
    """A reservoir with its book of grants, and everything that was ever stored in it."""

    turn: Turn | None = None
    ahead: int = 3
    arrays: Arrays = field(default_factory=Arrays)
    stored: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        reuse = None if self.turn is None else 2.0
        flow = FlowControl(max_reuse=reuse, max_surplus=None, watermark=2)
        rng = np.random.default_rng(1)
        self.book: Reservoir | OrderedReservoir
        if self.turn is None:
            self.book = Reservoir(policy="uniform", capacity=CAPACITY, flow=flow, rng=rng)
        else:
            self.book = OrderedReservoir(
                policy="uniform", capacity=CAPACITY, flow=flow, rng=rng, batch=2, spread=lambda: 0
            )
        self.placing = Placing(slots=self.arrays, book=self, layout=LAYOUT, turn=self.turn)
        bounds = Bounds(members=50, samples=SAMPLES)
        self.grants = Grants(
            layout=LAYOUT, study=STUDY, training=self.placing, bounds=bounds, ahead=self.ahead
        )

    def reserve(self, count: int) -> np.ndarray:
        return self.book.reserve(count)

    def cancel(self, slots: np.ndarray) -> None:
        self.book.cancel(slots)

    def commit(self, slots: np.ndarray) -> int:
        for slot in slots.tolist():
            named = int(self.arrays.members[slot]), int(self.arrays.samples[slot])
            assert (self.arrays.fields[slot] == value(*named)).all(), f"{named} is not in {slot}"
            assert self.arrays.inputs[slot].tolist() == [named[0], 0.5, 0.1 * named[1]]
            self.stored.append(named)
        return self.book.commit(slots)

    def draw(self) -> None:
        self.book.give_back(self.book.lease(8, 2).id)

    def serve(self, senders: "list[Sender]") -> None:
        answers = self.grants.serve(0.0)
        for holder, answer in answers:
            for sender in senders:
                if sender.holder is holder:
                    sender.answers.append(answer)
        granted: dict[int, set[tuple[int, int, int]]] = {}
        for sender in senders:
            for position, slot in enumerate(sender.holder.slots, sender.holder.position):
                if slot != STORED and sender.holder.origin is not None:
                    origin = sender.holder.origin
                    sample = int(sender.holder.samples(position, position + 1)[0])
                    owner = origin.member, origin.attempt, sample
                    granted.setdefault(slot, set()).add(owner)
        assert all(len(owners) == 1 for owners in granted.values()), "a slot was granted twice"
        assert not set(granted) & set(self.book.filled().tolist()), "a granted slot holds a sample"


@dataclass
class Sender:
    """What ``DirectLink`` does, in steps that a test can put between those of others."""

    store: Store
    box: Box = WHOLE
    answers: list[bytes] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    round: int = 0
    position: int = 0
    committed: int = 0
    base: int = 0
    member: int = -1

    def __post_init__(self) -> None:
        self.holder: Holder = self.store.grants.enter(memoryview(wire.hello(STUDY, self.box)))

    def say(self, frame: bytes) -> None:
        self.store.grants.take(self.holder, memoryview(frame))

    def open(self, member: int, attempt: int = 1) -> None:
        """What was granted and not used serves this member, if nothing is written and unsaid."""
        if self.position != self.committed or self.holder.have > self.holder.granted:
            self.give_back()
        self.member, self.base = member, self.position
        parameters = np.array([member, 0.5])
        opened = wire.Open(self.round, member, self.base, attempt, False, 0, 1, parameters)
        self.say(wire.open_(opened))

    def hear(self) -> None:
        for answer in self.answers:
            said = wire.decode_answer(answer)
            assert isinstance(said, wire.Grant)
            if said.round == self.round:
                assert said.position == self.position + len(self.slots)
                self.slots += said.slots.tolist()
        self.answers.clear()

    def write(self) -> None:
        while self.slots and self.position < self.base + SAMPLES:
            if (slot := self.slots.pop(0)) != STORED:
                fields = self.store.arrays.fields[slot]
                fields[(..., *self.box.slices)] = value(self.member, self.position - self.base)
            self.position += 1

    def work(self, have: int = SAMPLES, until: int = SAMPLES) -> None:
        """Commit what is written, and ask for these samples of the member."""
        steps = list(range(self.committed - self.base, self.position - self.base))
        times = [0.1 * step for step in steps]
        have, until = max(self.base + have, self.position), self.base + until
        self.say(wire.work(self.round, self.committed, have, until, steps, times))
        self.committed = self.position

    def give_back(self) -> None:
        self.round, self.slots, self.position = self.round + 1, [], self.committed
        self.say(wire.return_(self.round))

    @property
    def done(self) -> bool:
        return self.holder.position == self.base + SAMPLES


def finish(store: Store, senders: list[Sender], others: Sequence[Sender] = ()) -> None:
    for _ in range(400):
        if all(sender.done for sender in senders):
            return
        for sender in senders:
            sender.hear()
            sender.write()
            sender.work()
        store.serve([*senders, *others])
        store.draw()
    raise AssertionError(f"stuck: {[vars(s) for s in senders if not s.done]}")


def check(store: Store, members: set[int]) -> None:
    expected = sorted((member, sample) for member in members for sample in range(SAMPLES))
    assert sorted(store.stored) == expected
    assert store.placing.samples == len(expected)


ACTIONS = ["hear", "write", "ask", "commit", "return", "die", "stop", "retry", "draw", "serve"]


@pytest.mark.parametrize("ordered", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=60))
def test_every_sample_is_stored_once_whatever_senders_do(
    ordered: bool, actions: list[tuple[str, int]]
) -> None:
    turn = Turn(members=range(3), samples=SAMPLES, rank=0, ranks=1) if ordered else None
    store = Store(turn=turn)
    senders = [Sender(store) for _ in range(3)]
    attempts = [1, 1, 1]
    stopped: list[Sender] = []
    for member, sender in enumerate(senders):
        sender.open(member)
    for action, k in actions:
        sender = senders[k]
        if action in ("die", "stop", "retry"):
            if action == "die":
                store.grants.end(sender.holder)
            elif action == "stop" and not ordered:  # a deterministic study waits for its end
                stopped.append(sender)
            elif action == "stop":
                continue
            attempts[k] += 1
            if action != "retry":
                senders[k] = Sender(store)
            senders[k].open(k, attempts[k])
        elif action == "draw":
            store.draw()
        elif action == "serve":
            store.serve(senders + stopped)
        elif action == "ask":
            sender.work(have=min(SAMPLES, sender.position - sender.base + 2))
        elif action == "commit":
            sender.work(have=0, until=0)
        elif action == "return":
            sender.give_back()
        else:
            getattr(sender, action)()
    finish(store, senders, stopped)
    for sender in stopped:  # they wake up, and go on as if nothing had been
        sender.hear()
        sender.write()
        sender.work()
        store.serve(senders + stopped)
        store.grants.end(sender.holder)
    check(store, {0, 1, 2})
    for sender in senders:
        sender.give_back()
    assert store.grants.stats(0.0).pending == 0
    free = CAPACITY - store.book.filled().size
    assert ordered or store.book.reserve(free).size == free, "slots were lost"


@pytest.mark.parametrize("ordered", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from([*ACTIONS[:6], "serve"]), st.integers(0, 1)), max_size=60)
)
def test_parts_of_two_senders_become_whole_samples_whatever_they_do(
    ordered: bool, actions: list[tuple[str, int]]
) -> None:
    turn = Turn(members=range(1), samples=SAMPLES, rank=0, ranks=1) if ordered else None
    store, attempt = Store(turn=turn), 1
    senders = [Sender(store, box) for box in (TOP, BOTTOM)]
    for sender in senders:
        sender.open(0)
    for action, k in actions:
        sender = senders[k]
        if action == "die":  # and the other one with it, a little later
            store.placing.forget_incomplete(0, attempt=attempt)
            other = senders[1 - k]
            store.grants.end(sender.holder)
            other.hear()
            other.write()
            other.work()
            store.serve([other])
            store.grants.end(other.holder)
            attempt += 1
            senders = [Sender(store, box) for box in (TOP, BOTTOM)]
            for each in senders:
                each.open(0, attempt)
        elif action == "serve":
            store.serve(senders)
        elif action in ("ask", "commit"):
            ahead = 2 if action == "ask" else -SAMPLES
            sender.work(have=max(0, min(SAMPLES, sender.position - sender.base + ahead)))
        elif action == "return":
            sender.give_back()
        else:
            getattr(sender, action)()
    finish(store, senders)
    check(store, {0})
    assert store.placing.forget_incomplete(0, attempt=attempt) == 0


def test_a_failed_attempt_keeps_its_slots_until_its_last_process_has_ended() -> None:
    store = Store(ahead=0)
    first, second = Sender(store, TOP), Sender(store, BOTTOM)
    for sender in (first, second):
        sender.open(0)
        sender.work(have=3, until=3)
    store.serve([first, second])
    taken = set(first.holder.slots)
    assert taken == set(second.holder.slots)
    assert len(taken) == 3
    store.placing.forget_incomplete(0, attempt=1)
    store.grants.end(first.holder)
    again = Sender(store, WHOLE)
    again.open(1)
    again.work(have=SAMPLES)
    store.serve([second, again])
    assert not taken & set(again.holder.slots)
    store.grants.end(second.holder)
    assert taken <= set(store.book.reserve(CAPACITY).tolist())


def test_what_is_to_come_gets_no_more_than_may_be_granted_in_advance() -> None:
    store = Store(ahead=6)
    senders = [Sender(store) for _ in range(3)]
    for member, sender in enumerate(senders):
        sender.open(member)
        sender.work(have=0, until=SAMPLES)
    store.serve(senders)
    assert [len(sender.holder.slots) for sender in senders] == [2, 2, 2]
    senders[1].work(have=4, until=4)
    store.serve(senders)
    assert [len(sender.holder.slots) for sender in senders] == [2, 4, 2]
    assert store.grants.stats(0.0).pending == 0
    senders[0].give_back()
    senders[1].give_back()
    store.serve(senders)
    assert [len(sender.holder.slots) for sender in senders] == [0, 0, 6]


def test_who_has_waited_longest_gets_the_next_slot() -> None:
    store = Store(ahead=0)
    senders = [Sender(store) for _ in range(6)]
    for member, sender in enumerate(senders):
        sender.open(member)
        sender.work(have=SAMPLES)
        store.serve(senders)
    assert [len(sender.holder.slots) for sender in senders] == [7, 7, 7, 3, 0, 0]
    stats = store.grants.stats(4.0)
    assert stats.waiting_members == (3, 4, 5)
    assert (stats.pending, stats.solver_blocked_seconds) == (3, 4.0)
    store.grants.end(senders[0].holder)
    store.serve(senders)
    assert [len(sender.holder.slots) for sender in senders[1:]] == [7, 7, 7, 3, 0]


def test_nobody_stores_what_is_not_his() -> None:
    store = Store()
    sender = Sender(store)
    with pytest.raises(StreamRefused, match="nothing is open"):
        sender.work()
    sender.open(0)
    sender.work(have=2)
    store.serve([sender])
    wrong = [
        (wire.work(1, 0, 2, 2, [0], [0.0]), "wrong round: 1"),
        (wire.work(0, 1, 2, 2, [0], [0.0]), "not granted: 1 positions from 1"),
        (wire.work(0, 0, 9, 9, list(range(6)), [0.0] * 6), "not granted: 6 positions from 0"),
        (wire.work(0, 0, SAMPLES + 1, 0, [], []), "wrong sample: 7"),
        (wire.work(0, 0, MOST + 1, 0, [], []), "wrong sample"),
        (wire.work(0, 0, 2, 2, [0], [np.nan]), "not finite: times"),
        (wire.open_(wire.Open(0, 0, 9, 1, False, 0, 1, np.zeros(2))), "not given back"),
        (wire.open_(wire.Open(0, 0, 0, 1, True, 0, 1, np.zeros(2))), "not given back"),
        (wire.open_(wire.Open(1, 0, 0, 1, False, 0, 1, np.zeros(2))), "wrong round: 1"),
        (wire.open_(wire.Open(0, 50, 0, 1, False, 0, 1, np.zeros(2))), "wrong member: 50"),
        (wire.open_(wire.Open(0, 0, 0, 1, False, 0, 0, np.zeros(2))), "wrong stride"),
        (wire.open_(wire.Open(0, 0, 0, 1, False, 0, 1, np.full(2, np.inf))), "not finite: param"),
        (wire.work(0, 0, 2, 2, [0], [0.0]), "nothing is open"),
        (wire.hello(STUDY, WHOLE), "unexpected hello"),
        (b"HDRD", "short message"),
    ]  # fmt: skip
    for frame, reason in wrong:
        with pytest.raises(StreamRefused, match=reason):
            sender.say(frame)
        assert store.stored == []
    with pytest.raises(StreamRefused, match="wrong study"):
        store.grants.enter(memoryview(wire.hello(STUDY + 1, WHOLE)))
    with pytest.raises(StreamRefused, match="no hello"):
        store.grants.enter(memoryview(wire.return_(1)))
    sender.open(0)
    finish(store, [sender])
    check(store, {0})


def test_a_hundred_thousand_wrong_messages_change_nothing() -> None:
    store, rng = Store(), np.random.default_rng(3)
    honest, hostile = Sender(store), Sender(store)
    honest.open(0)
    base = [
        wire.open_(wire.Open(0, 7, 0, 1, False, 0, 1, np.zeros(2))),
        wire.work(0, 0, 4, 6, [0, 1], [0.0, 0.1]),
        wire.return_(1),
    ]
    for _ in range(100_000):
        frame = bytearray(base[int(rng.integers(3))])
        for _ in range(int(rng.integers(1, 5))):
            frame[int(rng.integers(len(frame)))] = int(rng.integers(256))
        with contextlib.suppress(StreamRefused):
            store.grants.take(hostile.holder, memoryview(bytes(frame)))
        store.grants.end(hostile.holder)
        hostile.holder.round = hostile.holder.position = hostile.holder.told = 0
    finish(store, [honest])
    check(store, {0})
