"""Reads members back out of a record, snapshot by snapshot, to take part in another study.

1. A snapshot has the values, the step and the time that it was recorded with, bit for bit.
2. It comes once, in how many recorded windows it may stand.
3. What cannot be read ends the member with ``SolverFailed``; nothing is made up for it.
4. Memory: an index of the samples, and one chunk of each field for each rank that has recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from pipeline.errors import ConfigError
from pipeline.record.layout import MADE_FROM, TIME
from pipeline.record.reader import Part, parts_of
from pipeline.record.rows import ArrayFiles
from pipeline.slots.layout import Box
from solvers.base import FieldSpec, Snapshot, SolverFailed

Steps = Int64[np.ndarray, " _snapshot"]

_CANNOT_READ: Final = (OSError, ValueError, RuntimeError)  # the last: a damaged zstd frame


@final
class RecordedMembers:
    """The members of a record.

    Args:
        path: A run directory, or the record in it.

    Raises:
        ConfigError: There is no record, or it is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        parts = parts_of(path)
        self._parts = [_PartReader(part) for part in parts]
        self.attributes = parts[0].attributes
        #: The sections of the study that made it: solver, parameters, stream.
        self.made_from: dict[str, Any] = self.attributes[MADE_FROM]
        every = int(self.made_from["stream"]["every"])
        try:
            found = [each.snapshots(number, every) for number, each in enumerate(self._parts)]
        except _CANNOT_READ as error:
            line = f"{path}: is damaged: {error}. Take another record"
            raise ConfigError([line]) from error
        rows = np.concatenate(found, axis=1)
        rows = rows[:, np.lexsort((rows[1], rows[0]))]  # by member, then step; stable
        first = np.ones(rows.shape[1], np.bool_)
        first[1:] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
        self._rows = rows[:, first]
        self.members, starts = np.unique(self._rows[0], return_index=True)
        self._starts = np.append(starts, self._rows.shape[1])

    @property
    def spec(self) -> FieldSpec:
        """Fields that were recorded of each snapshot."""
        return self._parts[0].spec

    @property
    def dtype(self) -> str:
        """Type of the fields."""
        return self._parts[0].dtype

    @property
    def units(self) -> dict[str, str]:
        """Units of the parameters, by name."""
        about = self.attributes["parameters"].values()
        return {each["name"]: each["unit"] for each in about}

    def steps(self, member: int) -> Steps:
        """Solver steps of the snapshots that there are of a member, ascending."""
        return np.asarray(self._rows[1, self._of(member)])

    def parameters(
        self, members: Sequence[int], names: Sequence[str]
    ) -> Float64[np.ndarray, " member parameter"]:
        """Parameters that members were simulated with."""
        arrays = {each["name"]: array for array, each in self.attributes["parameters"].items()}
        values = np.empty((len(members), len(names)))
        for place, member in enumerate(members):
            _, _, part, row, _ = self._rows[:, self._of(member).start].tolist()
            values[place] = [self._parts[part].value(arrays[name], row) for name in names]
        return values

    def member(
        self, member: int, *, names: Sequence[str], every: int, box: Box
    ) -> "RecordedMember":
        """A member, to be run like a solver.

        Args:
            member: Its number in the record.
            names: Fields that are wanted, in this order.
            every: Only steps that are multiples of this.
            box: Part of the grid that is wanted.
        """
        return RecordedMember(self, member, tuple(names), every, box)

    def snapshots(self, member: int, names: Sequence[str], every: int) -> Iterator[Snapshot]:
        """The whole fields of a member, by step.

        Raises:
            SolverFailed: A chunk is missing or damaged.
        """
        for _, step, part, row, place in self._rows[:, self._of(member)].T.tolist():
            if step % every:
                continue
            reader = self._parts[part]
            try:
                fields = np.stack([reader.field(name, row)[place] for name in names])
                time = float(reader.value(TIME, row)[place])
            except _CANNOT_READ as error:
                raise SolverFailed(
                    f"step {step} of member {member} cannot be read from {reader.path}: {error}"
                ) from error
            yield Snapshot(step=step, time=time, fields=fields)

    def _of(self, member: int) -> slice:
        place = int(np.searchsorted(self.members, member))
        if place == self.members.size or self.members[place] != member:
            raise SolverFailed(f"member {member} is not in the record any more")
        return slice(int(self._starts[place]), int(self._starts[place + 1]))


@final
@dataclass(frozen=True, slots=True)
class RecordedMember:
    """A ``solvers.base.Solver`` whose only member has been simulated before."""

    record: RecordedMembers
    number: int
    names: tuple[str, ...]
    every: int
    box: Box

    @property
    def spec(self) -> FieldSpec:
        """Fields that were recorded."""
        return self.record.spec

    @property
    def max_snapshots(self) -> int:
        """As many as there are."""
        return self.record.steps(self.number).size

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Its snapshots; parameters and communicator are not needed for it."""
        where = (slice(None), *self.box.slices)
        for snapshot in self.record.snapshots(self.number, self.names, self.every):
            yield snapshot._replace(fields=snapshot.fields[where])

    def close(self) -> None:
        """Nothing is open."""


class _PartReader:
    """Reads the chunks of one rank's group."""

    def __init__(self, part: Part) -> None:
        self.path, self._rows = part.path, part.rows
        self._arrays = {name: ArrayFiles(part.path / name) for name in part.arrays}
        self._names = {own: name for name, own in part.attributes["fields"].items()}
        self._held: dict[str, tuple[int, Shaped[np.ndarray, " row ..."]]] = {}
        fields = [self._arrays[name].array for name in self._names.values()]
        self.dtype = fields[0].dtype.name
        self.spec = FieldSpec(
            names=tuple(self._names),
            units=tuple(str(field.attrs["units"]) for field in fields),
            shape=fields[0].shape[2:],
            spacing=tuple(part.attributes["spacing"]),
            inputs=tuple(part.attributes["given_fields"]),
        )

    def snapshots(self, part: int, every: int) -> Int64[np.ndarray, " 5 snapshot"]:
        """Member, step, part, row and place in its window of every snapshot here."""
        member, step = (self._arrays[name].read(0, self._rows) for name in ("member", "step"))
        window = self._arrays[TIME].array.shape[1]
        place = np.tile(np.arange(window), self._rows)
        row = np.repeat(np.arange(self._rows), window)
        return np.stack(
            [member[row], step[row] + every * place, np.full_like(row, part), row, place]
        )

    def field(self, name: str, row: int) -> Shaped[np.ndarray, " window *grid"]:
        """A field of one sample."""
        return self.value(self._names[name], row)

    def value(self, array: str, row: int) -> Shaped[np.ndarray, "..."]:
        """The value in a row of an array."""
        files = self._arrays[array]
        rows = files.array.chunks[0]
        index, place = divmod(row, rows)
        held = self._held.get(array)
        if held is None or held[0] != index:
            end = min((index + 1) * rows, self._rows)
            held = self._held[array] = index, files.read(index * rows, end)
        return np.asarray(held[1][place])
