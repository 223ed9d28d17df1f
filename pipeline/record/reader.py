"""Reads a record: the samples that were trained on, as one labelled data set.

Needs neither Ray nor PETSc: ``open_record(RUN_DIR)`` works in a notebook on another machine, also
while the study is still running.

1. Only committed rows are seen, and they stay what they are while the study goes on.
2. Rows of all ranks, sorted by member and number; each (member, number) stands there once.
3. Values are read when they are needed (dask), however large the record is.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.record.layout import FOLDER, VERSION, require_version
from pipeline.record.rows import METADATA, write_group

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one rank has recorded.

    Attributes:
        path: Its group.
        rows: Committed samples.
        attributes: Attributes of the group.
        arrays: Metadata of each array, by name.
    """

    path: Path
    rows: int
    attributes: dict[str, Any]
    arrays: dict[str, dict[str, Any]]


def parts_of(path: Path | str) -> list[Part]:
    """The parts of a record, in the order of the ranks.

    Args:
        path: A run directory, or the record in it.

    Raises:
        ConfigError: There is no record, or one of another version.
    """
    folder = Path(path)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    groups = [group for group in folder.glob("rank*") if (group / METADATA).is_file()]
    parts = [_part(group) for group in groups]
    if not parts:
        remedy = "Name a run directory whose study has a `record:` section"
        raise ConfigError([f"{path}: there is no record in it. {remedy}"])
    return sorted(parts, key=lambda part: int(part.attributes["rank"]))


def open_record(path: Path | str, *, sort: bool = True) -> "xarray.Dataset":
    """All samples of a record; fields are dask arrays.

    Args:
        path: A run directory, or the record in it.
        sort: Whether rows are sorted by member and number; otherwise rank by rank, as they came.

    Raises:
        ConfigError: There is no record.
    """
    import xarray as xr

    parts = parts_of(path)
    data = [xr.open_zarr(part.path, consolidated=True, chunks={}) for part in parts]
    attributes = {
        key: value for key, value in parts[0].attributes.items()
        if key not in ("rank", "dropped", "complete", "problem", "coordinates")
    }  # fmt: skip
    attributes |= _state(parts)
    whole: xr.Dataset = xr.concat(
        data, "sample", data_vars="minimal", coords="minimal", compat="override", join="override",
        combine_attrs="override",
    )  # fmt: skip
    if sort:
        order = np.lexsort((whole["number"].values, whole["member"].values))
        if (order[1:] < order[:-1]).any():
            whole = whole.isel(sample=order)
    whole.attrs = attributes
    return whole


def write_index(path: Path) -> None:
    """Make the record's folder a Zarr group that knows all arrays of its parts; written last.

    ``Record`` removes it before it takes rows back, so it never knows more than there is.
    """
    parts = parts_of(path)
    members: dict[str, Any] = {}
    for part in parts:
        members[part.path.name] = {
            "zarr_format": 3, "node_type": "group", "attributes": part.attributes
        }  # fmt: skip
        members |= {f"{part.path.name}/{name}": each for name, each in part.arrays.items()}
    attributes = {
        "headrace_record": VERSION,
        "study": parts[0].attributes["study"],
        "groups": {part.path.name: part.rows for part in parts},
        **_state(parts),
    }
    write_group(path, attributes, members)


def _state(parts: Sequence[Part]) -> dict[str, Any]:
    ranks = int(parts[0].attributes["ranks"])
    problems = [p.attributes["problem"] for p in parts if p.attributes.get("problem")]
    return {
        "complete": len(parts) == ranks and all(part.attributes["complete"] for part in parts),
        "dropped": sum(int(part.attributes.get("dropped", 0)) for part in parts),
        **({"problem": problems[0]} if problems else {}),
    }


def _part(group: Path) -> Part:
    found = json.loads((group / METADATA).read_text(encoding="utf-8"))
    attributes = found["attributes"]
    require_version(group, attributes)
    arrays = found["consolidated_metadata"]["metadata"]
    return Part(
        path=group, rows=int(arrays["member"]["shape"][0]), attributes=attributes, arrays=arrays
    )
