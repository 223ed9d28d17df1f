from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.reservoir.batches import HeldState, ReservoirSource
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots
from trainers.base import Lease
from trainers.tasks import moments
from trainers.tasks.moments import moments_of

LAYOUT = SampleLayout(window=2, sample_shape=(3, 4, 6), num_parameters=5)


class ScriptedClient:
    """Answers with what it was given; notes every call."""

    def __init__(self, *answers: Lease | Exception, held: HeldState | None = None) -> None:
        self.answers, self.state = list(answers), held
        self.calls: list[tuple[list[int], int, int, float]] = []

    def wait_for_watermark(self, timeout: float) -> bool:
        return timeout > 1

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        self.calls.append((list(returned), batches, batch, timeout))
        answer = self.answers.pop(0) if self.answers else nothing()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def replay(self, batches: int, batch: int) -> Lease:
        return some(7, rows=batches, finished=True)

    def held(self) -> HeldState:
        assert self.state is not None
        return self.state


def some(lease_id: int, *, rows: int = 2, finished: bool = False) -> Lease:
    indices = np.arange(rows * 3).reshape(rows, 3)
    return Lease(id=lease_id, indices=indices, finished=finished)


def test_the_wish_to_stop_is_passed_on(slots: Slots) -> None:
    client = ScriptedClient(some(1), replace(some(2), stop_asked=True))
    subject = source(client, slots)
    assert [subject.lease(2, timeout=0.0).stop_asked for _ in range(2)] == [False, True]


def nothing(*, finished: bool = False) -> Lease:
    return Lease(id=0, indices=np.empty((0, 3), np.int64), finished=finished)


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    with Slots.create(tmp_path / "headrace-b", capacity=40, layout=LAYOUT) as made:
        rng = np.random.default_rng(8)
        made.fields[:] = rng.normal(300, 50, made.fields.shape)
        made.inputs[:] = rng.normal(1e4, 1e-1, made.inputs.shape)
        made.members[:], made.steps[:] = np.arange(40), np.arange(40) % 7
        yield made


def source(
    client: ScriptedClient, slots: Slots, validation: Slots | None = None
) -> ReservoirSource:
    return ReservoirSource(
        client=client, training=slots, validation=validation, batch=3, wait_slice=0.25
    )


def test_ended_leases_travel_with_the_next_lease(slots: Slots) -> None:
    client = ScriptedClient(some(1), some(2), some(3))
    draws = source(client, slots)
    draws.lease(2, timeout=1.0)
    draws.lease(2, timeout=1.0)
    draws.give_back(1)
    draws.give_back(2)
    assert len(client.calls) == 2
    draws.lease(2, timeout=1.0)
    assert [ids for ids, *_ in client.calls] == [[], [], [1, 2]]


def test_a_failed_call_loses_no_ended_lease(slots: Slots) -> None:
    client = ScriptedClient(ConnectionError("gone"), some(3))
    draws = source(client, slots)
    draws.give_back(1)
    draws.give_back(2)
    with pytest.raises(ConnectionError, match="gone"):
        draws.lease(2, timeout=1.0)
    draws.lease(2, timeout=1.0)
    assert client.calls[-1][0] == [1, 2]


def test_waiting_is_cut_into_slices_that_carry_what_ended_meanwhile(slots: Slots) -> None:
    client = ScriptedClient()
    draws = source(client, slots)
    draws.give_back(5)
    assert draws.lease(2, timeout=0.625).indices.size == 0
    assert client.calls == [([5], 2, 3, 0.25), ([], 2, 3, 0.25), ([], 2, 3, 0.125)]


def test_waiting_ends_with_the_first_batch_or_with_the_stream(slots: Slots) -> None:
    client = ScriptedClient(nothing(), some(4), nothing(finished=True))
    draws = source(client, slots)
    assert draws.lease(2, timeout=9.0).id == 4
    assert draws.lease(2, timeout=9.0).finished
    assert len(client.calls) == 3


def test_without_time_the_reservoir_is_asked_once(slots: Slots) -> None:
    client = ScriptedClient()
    assert source(client, slots).lease(2, timeout=0.0).indices.size == 0
    assert client.calls == [([], 2, 3, 0.0)]


def test_replay_first_hands_over_what_ended(slots: Slots) -> None:
    client = ScriptedClient()
    draws = source(client, slots)
    assert draws.replay(4).indices.shape == (4, 3)
    assert client.calls == []
    draws.give_back(7)
    draws.replay(4)
    assert client.calls == [([7], 0, 3, 0.0)]


def test_close_hands_over_the_last_leases_and_lets_go_of_the_slots(slots: Slots) -> None:
    client = ScriptedClient()
    draws = source(client, Slots.attach(slots.description), Slots.attach(slots.description))
    draws.give_back(9)
    draws.close()
    draws.close()
    assert client.calls == [([9], 0, 3, 0.0)]
    assert len(draws.fields) == 0
    assert len(slots.fields) == 40


def test_validation_is_what_has_arrived_of_the_append_only_store(slots: Slots) -> None:
    state = HeldState(slots=np.arange(3), validation=17, validation_complete=False)
    held = source(ScriptedClient(held=state), slots, slots).held_validation()
    assert np.shares_memory(held.fields, slots.fields)
    assert held.fields.shape == (17, 2, 3, 4, 6)
    assert held.inputs.shape == (17, 7)
    assert held.members.tolist() == list(range(17))
    assert held.steps.tolist() == [i % 7 for i in range(17)]
    assert not held.complete


def test_a_study_without_validation_members_holds_none(slots: Slots) -> None:
    state = HeldState(slots=np.arange(3), validation=0, validation_complete=True)
    held = source(ScriptedClient(held=state), slots).held_validation()
    assert held.fields.shape == (0, 2, 3, 4, 6)
    assert held.complete


def test_watermark_and_reports_are_the_clients_business(slots: Slots) -> None:
    client = ScriptedClient()
    draws = source(client, slots)
    assert not draws.wait_for_watermark(0.5)
    assert draws.wait_for_watermark(1.5)


@pytest.mark.parametrize("block_samples", [1, 7, 1000])
def test_moments_are_exact_whatever_the_blocks(
    slots: Slots, block_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_BLOCK_BYTES", block_samples * LAYOUT.nbytes)
    held = np.array([2, 39, 5, 17, 8, 0, 11, 30, 3, 21, 22])
    state = HeldState(slots=held, validation=0, validation_complete=True)
    found = source(ScriptedClient(held=state), slots).moments()
    fields = np.moveaxis(slots.fields[held].astype(np.float64), 2, 0).reshape(3, -1)
    inputs = slots.inputs[held].astype(np.float64)
    assert found.count == 11
    assert found.field_count == fields.shape[1] == 11 * 2 * 4 * 6
    np.testing.assert_allclose(found.field_mean, fields.mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(found.field_m2, fields.var(axis=1) * found.field_count, rtol=1e-12)
    assert (found.time_low, found.time_high) == (inputs[:, 5:].min(), inputs[:, 5:].max())


def test_until_the_first_lease_moments_are_of_whole_members_whatever_came_when(
    slots: Slots,
) -> None:
    slots.members[:] = np.repeat(np.arange(5), 8)
    slots.steps[:] = np.tile(np.arange(8), 5)
    early, late = np.arange(19), np.random.default_rng(2).permutation(40)
    found = {}
    for name, held in (("early", early), ("late", late)):
        state = HeldState(slots=held, validation=0, validation_complete=True)
        for first in (2, 0):
            client = ScriptedClient(some(1), held=state)
            subject = ReservoirSource(
                client=client,
                training=slots,
                validation=None,
                batch=3,
                first_members=first,
                watermark=10,
            )
            found[name, first] = subject.moments()
        subject.lease(1, timeout=0.0)
        assert subject.moments().count == held.size
    for first, count in ((2, 16), (0, 10)):
        assert found["early", first].count == found["late", first].count == count
        pair = [found[name, first].field_m2.tobytes() for name in ("early", "late")]
        assert pair[0] == pair[1]


def test_moments_of_many_samples_are_of_some_of_each_member(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "_MOST_BYTES", 10 * LAYOUT.nbytes)
    part = moments.spread_evenly(np.arange(40), LAYOUT.nbytes)
    assert part.tolist() == list(range(0, 40, 4))
    assert moments.spread_evenly(np.arange(10), LAYOUT.nbytes).size == 10


def test_moments_of_nothing_are_zero(slots: Slots) -> None:
    found = moments_of(slots.fields, slots.inputs, np.empty(0, np.int64))
    assert (found.count, found.field_count) == (0, 0)
