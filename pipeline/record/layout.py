"""What a record is called and where it lies: names, units and axes of its arrays.

1. Every array names its axes and its unit; the axes of the grid have coordinates in metres.
2. No two arrays have the same name: a parameter or field that would take another's is renamed, and
   its own name stands in its attributes.
3. Nothing heavy is imported: a study is checked with it.

One group per rank, ``rank0``, ``rank1``, ..., so that no two writers share a file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import ConfigError
from pipeline.record.rows import Column
from pipeline.slots.layout import SampleLayout
from solvers.base import FieldSpec, Parameter

FOLDER: Final = "record.zarr"
VERSION: Final = 2
AXES: Final = ("z", "y", "x")
# Samples of one block: this many bytes, so that a chunk is neither tiny nor slow to replace.
BLOCK_BYTES: Final = 8 << 20
MAX_BLOCK_ROWS: Final = 4096
SHORT_ROWS: Final = 16_384  # of arrays with a number or two per sample: 128 KiB

_ROW: Final = "sample"
# Array, type, and what it is. Coordinates: they say which sample a row is.
_COORDINATES: Final = (
    ("member", "int64", "number of the simulation in its study"),
    ("number", "int64", "number of the sample in its member"),
    ("step", "int64", "solver step of the sample's first snapshot"),
)
TIME: Final = "time"
DRAWS: Final = "draws"
MADE_FROM: Final = "made_from"  # attribute: sections of the study that another one takes up
RESERVED: Final = (_ROW, "snapshot", *AXES, *(name for name, _, _ in _COORDINATES), TIME, DRAWS)


def require_version(group: Path, attributes: Mapping[str, Any]) -> None:
    """Refuse the group of a record that was written by another version.

    Raises:
        ConfigError: It was.
    """
    version = attributes.get("headrace_record")
    if version != VERSION:
        remedy = "Read it with the headrace that wrote it"
        line = f"{group}: record version {version}, this headrace has {VERSION}. {remedy}"
        raise ConfigError([line])


def rank_group(rank: int) -> str:
    """Name of the group of a rank."""
    return f"rank{rank}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordLayout:
    """All arrays of a record.

    Attributes:
        sample: Shape of a sample.
        spec: What the fields are.
        parameters: Parameters of the solver, in its order.
        block_bytes: Bytes of the fields of one block, all channels.
        short_rows: Rows per chunk of the arrays with a number or two per sample.
    """

    sample: SampleLayout
    spec: FieldSpec
    parameters: tuple[Parameter, ...]
    block_bytes: int = BLOCK_BYTES
    short_rows: int = SHORT_ROWS

    @property
    def block_rows(self) -> int:
        """Samples in a chunk of the fields."""
        return min(max(1, self.block_bytes // self.sample.nbytes), MAX_BLOCK_ROWS)

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample, without compression."""
        numbers = len(_COORDINATES) + len(self.parameters) + self.sample.window
        return self.sample.nbytes + 8 * numbers + 4

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Array names of the fields and of the parameters."""
        fields = _free("field_", self.spec.names, RESERVED)
        names = [parameter.name for parameter in self.parameters]
        return fields, _free("parameter_", names, (*RESERVED, *fields))

    def fields(self) -> list[Column]:
        """One array per channel."""
        grid = AXES[len(AXES) - len(self.spec.shape) :]
        return [
            Column(
                name=name,
                dtype=self.sample.dtype,
                row=(self.sample.window, *self.spec.shape),
                dims=(_ROW, "snapshot", *grid),
                chunk_rows=self.block_rows,
                attributes={
                    "units": unit,
                    "long_name": own.replace("_", " "),
                    "channel": channel,
                    "given": own in self.spec.inputs,
                },
            )
            for channel, (name, own, unit) in enumerate(
                zip(self.names[0], self.spec.names, self.spec.units, strict=True)
            )
        ]

    def numbers(self) -> list[Column]:
        """Member, number and step of each sample, times of its snapshots, and its parameters."""
        times = Column(
            name=TIME, dtype="float64", row=(self.sample.window,), dims=(_ROW, "snapshot"),
            chunk_rows=self.short_rows,
            attributes={"units": "s", "long_name": "time of the snapshot"},
        )  # fmt: skip
        parameters = zip(self.names[1], self.parameters, strict=True)
        return [
            *(self._short(name, dtype, "1", text) for name, dtype, text in _COORDINATES),
            times,
            *(
                self._short(name, "float64", each.unit, each.description)
                for name, each in parameters
            ),
        ]

    def draws(self) -> Column:
        """How often each sample was drawn."""
        return self._short(DRAWS, "int32", "1", "draws of the sample, up to the last commit")

    def axes(self) -> list[tuple[Column, np.ndarray]]:
        """Coordinates of the grid: the middle of each cell, from the first edge of the domain."""
        return [
            (
                Column(
                    name=name, dtype="float64", dims=(name,), chunk_rows=points,
                    attributes={"units": "m", "long_name": f"middle of the cell along {name}"},
                ),
                (np.arange(points) + 0.5) * spacing,
            )
            for name, points, spacing in zip(
                AXES[len(AXES) - len(self.spec.shape) :], self.spec.shape, self.spec.spacing,
                strict=True,
            )
        ]  # fmt: skip

    def attributes(self) -> dict[str, Any]:
        """What the whole record says of itself."""
        return {
            "headrace_record": VERSION,
            "coordinates": " ".join([*(name for name, _, _ in _COORDINATES), TIME]),
            "fields": dict(zip(self.names[0], self.spec.names, strict=True)),
            "given_fields": list(self.spec.inputs),
            "spacing": list(self.spec.spacing),
            "parameters": {
                name: {
                    "name": parameter.name, "unit": parameter.unit, "low": parameter.low,
                    "high": parameter.high, "description": parameter.description,
                    "seed": parameter.seed,
                }
                for name, parameter in zip(self.names[1], self.parameters, strict=True)
            },
        }  # fmt: skip

    def _short(self, name: str, dtype: str, unit: str, text: str) -> Column:
        return Column(
            name=name, dtype=dtype, dims=(_ROW,), chunk_rows=self.short_rows,
            attributes={"units": unit, "long_name": text},
        )  # fmt: skip


def _free(prefix: str, names: Iterable[str], taken: Sequence[str]) -> tuple[str, ...]:
    """The names, those that are taken with a prefix."""
    free: list[str] = []
    for name in names:
        while name in taken or name in free:
            name = prefix + name
        free.append(name)
    return tuple(free)
