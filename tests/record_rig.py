"""Records to test with: small blocks, two channels, a window of two, names that collide."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.flow import FlowControl
from pipeline.record.choice import Recorder
from pipeline.record.layout import RecordLayout
from pipeline.record.rows import RowGroup
from pipeline.record.writer import Record
from pipeline.reservoir.book import Reservoir
from pipeline.slots.layout import Box, SampleLayout
from pipeline.stream.placing import Placing
from pipeline.stream.wire import Canvas, Message, Stamp, decode, message_bytes
from solvers.base import FieldSpec, Parameter

SAMPLE = SampleLayout(window=2, sample_shape=(2, 3, 5), num_parameters=2)
SPEC = FieldSpec(
    names=("temperature", "x"), units=("K", "m"), shape=(3, 5), spacing=(0.5, 0.25), inputs=("x",)
)
PARAMETERS = tuple(
    Parameter(name=name, unit="W", low=0.0, high=1.0, description=f"the {name}")
    for name in ("power", "temperature")
)
LAYOUT = RecordLayout(
    sample=SAMPLE, spec=SPEC, parameters=PARAMETERS, block_bytes=4 * SAMPLE.nbytes, short_rows=7
)
ATTRIBUTES: dict[str, Any] = {"rank": 0, "ranks": 1, "study": "rig", "solver": "heat"}


def fields_of(member: int, number: int) -> np.ndarray:
    """What sample ``number`` of a member holds, and no other."""
    rng = np.random.default_rng([member, number])
    return rng.random((SAMPLE.window, *SAMPLE.sample_shape), np.float32)


def inputs_of(member: int, number: int) -> np.ndarray:
    """Parameters and times, in float64."""
    return np.array([member / 3, member / 7, number / 3, (number + 1) / 3])


def open_rank(folder: Path, **options: Any) -> Record:
    """A record of rank 0 in ``folder/record.zarr``."""
    options = {"compression": "none", "commit_seconds": 60.0, **options}
    attributes: dict[str, Any] = {**ATTRIBUTES, **options.pop("attributes", {})}
    return Record(folder / "record.zarr" / "rank0", layout=LAYOUT, attributes=attributes, **options)


def add(record: Record, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Record these (member, number); the row of each, -1 where it was dropped."""
    members, numbers = np.array(pairs).T
    held: Any = SimpleNamespace(
        fields=np.stack([fields_of(*pair) for pair in pairs]),
        members=members,
        samples=numbers,
        steps=10 * numbers,
        inputs=np.stack([inputs_of(*pair) for pair in pairs]),
    )
    rows, first = np.full(len(pairs), -1), record.rows
    taken = record.add(held, slice(0, len(pairs)), len(pairs))
    rows[:taken] = np.arange(first, first + taken)
    return rows


def pairs_in(dataset: xr.Dataset) -> list[tuple[int, int]]:
    """(member, number) of each row."""
    columns = dataset["member"].values.tolist(), dataset["number"].values.tolist()
    return list(zip(*columns, strict=True))


def check_content(dataset: xr.Dataset) -> None:
    """Every row holds what belongs to its (member, number), bit for bit."""
    dataset = dataset.compute()
    temperature, x = dataset["temperature"].values, dataset["field_x"].values
    for row, (member, number) in enumerate(pairs_in(dataset)):
        fields, inputs = fields_of(member, number), inputs_of(member, number)
        np.testing.assert_array_equal(temperature[row], fields[:, 0])
        np.testing.assert_array_equal(x[row], fields[:, 1])
        assert dataset["power"].values[row] == inputs[0]
        assert dataset["parameter_temperature"].values[row] == inputs[1]
        np.testing.assert_array_equal(dataset["time"].values[row], inputs[2:])
        assert dataset["step"].values[row] == 10 * number


def hold_the_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Chunks are written only when the event that is returned is set."""
    go = threading.Event()
    write = RowGroup.write_chunk

    def held(self: RowGroup, *arguments: Any) -> None:
        assert go.wait(60)
        write(self, *arguments)

    monkeypatch.setattr(RowGroup, "write_chunk", held)
    return go


class Arrays:
    """Slots in plain memory."""

    def __init__(self, capacity: int) -> None:
        self.fields = np.zeros((capacity, SAMPLE.window, *SAMPLE.sample_shape), np.float32)
        self.inputs = np.zeros((capacity, SAMPLE.num_inputs))
        self.members = np.full(capacity, -1)
        self.samples = np.full(capacity, -1)
        self.steps = np.full(capacity, -1)


class Rank:
    """Slots, bookkeeping and record of one rank, without sockets."""

    def __init__(self, record: Record, *, capacity: int = 12, **settings: Any) -> None:
        self.record = record
        arrays = Arrays(capacity)
        self.book = Reservoir(
            policy="reservoir",
            capacity=capacity,
            flow=FlowControl(max_reuse=None, max_surplus=None, watermark=1),
            rng=np.random.default_rng(5),
        )
        settings = {"what": "inserted", "every": 1, "fraction": 1.0, **settings}
        self.recorder = Recorder(book=self.book, slots=arrays, record=record, seed=11, **settings)
        self.placing = Placing(slots=arrays, book=self.recorder, layout=SAMPLE)
        self.drawn: dict[tuple[int, int], int] = {}
        self.batches = 0  # leased and given back
        self._arrays, self._capacity, self._settings = arrays, capacity, settings

    def insert(
        self, member: int, samples: list[int], box: Box | None = None, attempt: int = 1
    ) -> list[int]:
        """One message; the samples that found no room."""
        box = Box.whole(SAMPLE.grid) if box is None else box
        message = message_of(member, samples, box, attempt)
        left = self.placing.place(message, np.arange(len(samples)), may_reserve=True)
        return [samples[place] for place in left]

    def held(self) -> set[tuple[int, int]]:
        """(member, number) of what may be drawn from."""
        return {self._pair(slot) for slot in self.book.filled().tolist()}

    def checkpoint(self) -> Callable[[Record], "Rank"]:
        """What is there now; makes another that goes on from it."""
        state = self.book.state(self.batches)
        recorded = self.recorder.durable(self.recorder.state(state))
        slots = state.held.slots
        content = {name: values[slots] for name, values in vars(self._arrays).items()}
        stored, drawn = self.placing.stored(), dict(self.drawn)

        def resume(record: Record) -> Rank:
            other = Rank(record, capacity=self._capacity, **self._settings)
            for name, values in content.items():
                getattr(other._arrays, name)[: slots.size] = values
            other.book.restore(state)
            other.placing.restore(stored, None)
            other.recorder.restore(recorded)
            other.drawn = drawn
            return other

        self.kept = {"keep": recorded.position, "dropped": recorded.dropped}
        return resume

    def lease_and_lose(self, batches: int, batch: int) -> None:
        """Draw what is not trained on any more."""
        lease = self.book.lease(batches, batch)
        self.recorder.drawn(lease.indices)

    def _pair(self, slot: int) -> tuple[int, int]:
        return int(self._arrays.members[slot]), int(self._arrays.steps[slot]) // 10

    def draw(self, batches: int, batch: int) -> None:
        """Lease and give back, and count what was drawn."""
        lease = self.book.lease(batches, batch)
        self.recorder.drawn(lease.indices)
        for slot in lease.indices.ravel().tolist():
            pair = self._pair(slot)
            self.drawn[pair] = self.drawn.get(pair, 0) + 1
        self.book.give_back(lease.id)
        self.batches += len(lease.indices)


def message_of(member: int, samples: list[int], box: Box, attempt: int = 1) -> Message:
    """As it comes from a sender."""
    buffer = bytearray(message_bytes(SAMPLE, box, len(samples)))
    canvas = Canvas(memoryview(buffer), layout=SAMPLE, box=box, capacity=len(samples))
    where = (slice(None), slice(None), *box.slices)
    for number in samples:
        inputs = inputs_of(member, number)
        canvas.add(number, 10 * number, inputs[2:], fields_of(member, number)[where])
    stamp = Stamp(study=1, sender=1, sequence=0, member=member, attempt=attempt, validation=False)
    canvas.seal(stamp, inputs_of(member, 0)[:2])
    return decode(memoryview(buffer), layout=SAMPLE, study=1)
