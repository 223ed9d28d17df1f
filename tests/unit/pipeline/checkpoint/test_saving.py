"""A reservoir with real slots, written beside senders and ranks, and taken over by another one."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoint.saving import Saving
from pipeline.flow import FlowControl
from pipeline.reservoir.appended import Appended
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots
from pipeline.stream.placing import Placing

LAYOUT = SampleLayout(window=1, sample_shape=(2, 5, 3), num_parameters=2)
CAPACITY = 16


class Store:
    """All parts of one reservoir but for its socket."""

    def __init__(self, path: Path) -> None:
        self.slots = Slots.create(path, capacity=CAPACITY, layout=LAYOUT)
        self.book = Reservoir(
            policy="reservoir",
            capacity=CAPACITY,
            flow=FlowControl(max_reuse=None, max_surplus=None, watermark=2),
            rng=np.random.default_rng(1),
        )
        self.placing = Placing(slots=self.slots, book=self.book, layout=LAYOUT)
        self.freed = 0
        self.saving = Saving(
            rank=0,
            lock=threading.Lock(),  # type: ignore[arg-type]  # its __enter__ returns a bool
            book=self.book,
            training=(self.slots, self.placing),
            appended=Appended(capacity=0),
            validation=None,
            freed=self._note,
        )

    def _note(self) -> None:
        self.freed += 1

    def fill(self, count: int) -> None:
        slots = self.book.reserve(count)
        assert slots.size == count
        self.slots.fields[slots] = slots[:, None, None, None, None]
        self.book.commit(slots)

    def wait(self) -> str | None:
        deadline = time.monotonic() + 60.0
        while not self.saving.done()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self.saving.done()[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "headrace-saved")


def test_what_was_written_is_taken_over(store: Store, tmp_path: Path) -> None:
    store.fill(11)
    store.book.give_back(store.book.lease(1, 5).id)
    folder = tmp_path / "checkpoint"
    store.saving.begin(folder, 1)
    assert store.wait() is None
    assert (folder / ".listing-reservoir0.json").exists()
    after = Store(tmp_path / "headrace-after")
    after.saving.restore(folder, ranks=1, old_ranks=1)
    assert after.book.stats() == store.book.stats()
    assert set(after.slots.fields[:11, 0, 0, 0, 0].tolist()) == set(range(11))
    store.slots.close()
    after.slots.close()


def test_slots_are_kept_until_they_are_written_and_then_let_go(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, rooms = threading.Event(), []

    def write(*_: object, **__: object) -> None:
        rooms.append(store.book.room)
        assert gate.wait(30.0)

    monkeypatch.setattr("pipeline.checkpoint.saving.write", write)
    monkeypatch.setattr("pipeline.checkpoint.saving.list_files", lambda *_: None)
    store.fill(CAPACITY)
    store.book.give_back(store.book.lease(4, 4).id)
    free = store.book.room
    assert free > 0
    store.saving.begin(tmp_path, 4)
    with pytest.raises(ValueError, match="still being written"):
        store.saving.begin(tmp_path, 4)
    gate.set()
    assert store.wait() is None
    assert rooms == [0]
    assert store.book.room == free
    assert store.freed == 1
    store.slots.close()


def test_what_cannot_be_written_lets_the_slots_go_and_says_why(
    store: Store, tmp_path: Path
) -> None:
    store.fill(CAPACITY)
    store.book.give_back(store.book.lease(4, 4).id)
    free = store.book.room
    (tmp_path / "file").write_text("in the way")
    store.saving.begin(tmp_path / "file", 4)
    reason = store.wait()
    assert reason is not None
    assert "NotADirectoryError" in reason
    assert store.book.room == free
    store.slots.close()
