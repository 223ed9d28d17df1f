"""What ``headrace record`` shows of a record, and what it makes of it.

1. Values are read in pieces (dask): a record may be larger than memory.
2. An export is whole or not there, and never takes the place of a file.
"""

import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.errors import ConfigError
from pipeline.record.reader import open_record, parts_of
from pipeline.study.problems import counted
from trainers.durable import replacing

if TYPE_CHECKING:
    import xarray as xr

MAX_PLOTTED = 6  # parameters; more squares than 6 x 6 cannot be read
MAX_POINTS = 5000  # members in a plot
_EXPORT_ROWS: Final = 4096  # about; a piece of a sorted record in an export
_EXPORT_BYTES: Final = 64 << 20
_SUFFIXES: Final = (".zarr", ".nc", ".h5")


def info(path: Path) -> Iterator[str]:
    """Lines that say what is in a record."""
    parts, dataset = parts_of(path), open_record(path, sort=False)
    about = dataset.attrs
    members = np.unique(dataset["member"].values).size
    sizes = [file.stat().st_size for part in parts for file in part.path.rglob("*")
             if file.is_file()]  # fmt: skip
    yield f"record of study {about['study']!r}, solver {about['solver']}"
    yield f"  {_settings(about['record'])}"
    samples = counted(dataset.sizes["sample"], "sample")
    yield f"  {samples} of {counted(members, 'member')}, {_state(about)}"
    yield (
        f"  {sum(sizes) / 2**20:,.1f} MiB in {counted(len(sizes), 'file')}, "
        f"{counted(len(parts), 'part')}"
    )
    if dataset.sizes["sample"]:
        times = dataset["time"].values
        yield f"  times {times.min():g} to {times.max():g} s, {times.shape[1]} in each sample"
    yield ""
    for name, array in dataset.variables.items():
        dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
        unit = array.attrs.get("units", "1")
        shown = "" if unit == "1" else f"[{unit}] "
        yield f"  {name!s:20} {array.dtype!s:8} ({dims}) {shown}{array.attrs['long_name']}"


def stats(path: Path) -> Iterator[str]:
    """Lines with mean, spread and range of each field and parameter."""
    from dask.base import compute

    dataset = open_record(path, sort=False)
    if dataset.sizes["sample"] == 0:
        raise ConfigError([f"{path}: the record holds no sample yet. Wait for the first commit"])
    names = [*dataset.attrs["fields"], *dataset.attrs["parameters"]]
    wanted = []
    for name in names:
        values = dataset[name].data.astype(np.float64)
        wanted.append((values.mean(), values.std(), values.min(), values.max()))
    # One pass over the data for all of them.
    found = compute(*wanted, scheduler="threads")  # type: ignore[no-untyped-call]
    yield f"{'':24}{'mean':>13}{'spread':>13}{'lowest':>13}{'highest':>13}"
    for name, figures in zip(names, found, strict=True):
        unit = dataset[name].attrs["units"]
        yield f"{f'{name} [{unit}]':24}" + "".join(f"{float(value):13.6g}" for value in figures)
    draws = dataset["draws"].values
    yield f"draws per sample: mean {draws.mean():.3g}, 0 to {draws.max()}"


def coverage(path: Path, picture: Path) -> None:
    """A picture of where the recorded members lie in the space of their parameters."""
    from matplotlib.figure import Figure

    _must_be_new(picture)
    dataset = open_record(path, sort=False)
    _, first = np.unique(dataset["member"].values, return_index=True)
    columns = {
        f"{name} / {dataset[name].attrs['units']}": dataset[name].values[first]
        for name in dataset.attrs["parameters"]
    }
    varying = {name: v for name, v in columns.items() if v.size and v.min() < v.max()}
    shown = list(varying.items())[:MAX_PLOTTED]
    if not shown:
        line = f"{path}: no parameter differs from member to member, so there is nothing to plot"
        raise ConfigError([line])
    side = len(shown)
    figure = Figure(figsize=(2.0 + 1.8 * side, 1.6 + 1.6 * side), layout="constrained")
    axes = figure.subplots(side, side, squeeze=False)
    for row, (name, vertical) in enumerate(shown):
        for column, (other, horizontal) in enumerate(shown):
            square = axes[row, column]
            if column > row:
                square.set_axis_off()
                continue
            if column == row:
                square.hist(horizontal, bins=min(20, 3 + int(first.size**0.5)), color="#4477aa")
                square.set_yticks([])
            else:
                square.plot(horizontal[:MAX_POINTS], vertical[:MAX_POINTS], ".", ms=3)
            if row == side - 1:
                square.set_xlabel(other)
            if column == 0 and row > 0:
                square.set_ylabel(name)
    figure.suptitle(f"{dataset.attrs['study']}: parameters of {first.size} recorded members")
    figure.savefig(picture, dpi=150)


def export(path: Path, target: Path) -> None:
    """Write all samples, sorted by member, into one Zarr, NetCDF or HDF5."""
    if target.suffix not in _SUFFIXES:
        line = f"{target}: the ending says the format. Name it *.zarr, *.nc or *.h5"
        raise ConfigError([line])
    _must_be_new(target)
    if target.suffix != ".zarr" and find_spec("h5netcdf") is None:
        line = (
            f"{target}: NetCDF and HDF5 need h5netcdf, which is not installed here. Install it "
            "(pip install h5netcdf), or export to *.zarr"
        )
        raise ConfigError([line])
    dataset = _ready(open_record(path))
    with replacing(target) as part:
        if target.suffix == ".zarr":
            _write_zarr(dataset, part)
        else:
            dataset.to_netcdf(part, mode="w", engine="h5netcdf")  # NetCDF-4 is HDF5


def _write_zarr(dataset: "xr.Dataset", path: Path) -> None:
    with warnings.catch_warnings():
        # The specification has no word for it yet; xarray reads it, and warns where it is missing.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=True)


def _ready(dataset: "xr.Dataset") -> "xr.Dataset":
    """In equal pieces, and with attributes that every format can hold."""
    one = sum(array.nbytes for array in dataset.values()) // max(1, dataset.sizes["sample"])
    rows = min(_EXPORT_ROWS, max(1, _EXPORT_BYTES // max(1, one)))
    dataset = dataset.chunk(sample=rows)
    for array in dataset.variables.values():
        array.encoding = {}
        array.attrs = _plain(array.attrs)
    dataset.attrs = _plain(dataset.attrs)
    return dataset


def _plain(attributes: dict[str, object]) -> dict[str, object]:
    return {
        key: value if isinstance(value, str | int | float) and not isinstance(value, bool)
        else json.dumps(value)
        for key, value in attributes.items()
    }  # fmt: skip


def _must_be_new(target: Path) -> None:
    if target.exists():
        line = f"{target}: exists, and is not overwritten. Choose another name, or remove it"
        raise ConfigError([line])
    if not target.resolve().parent.is_dir():
        raise ConfigError([f"{target}: its folder does not exist. Make it, or choose another"])


def _settings(record: dict[str, object]) -> str:
    text = f"{record['what']} samples, fraction {record['fraction']}, every {record['every']}"
    return f"{text}, compression {record['compression']}"


def _state(about: dict[str, object]) -> str:
    if about.get("problem"):
        return f"incomplete: {about['problem']}"
    if about["complete"]:
        return "complete"
    dropped = int(str(about["dropped"]))
    return f"incomplete: {dropped:,} dropped" if dropped else "not finished"
