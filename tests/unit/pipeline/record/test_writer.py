import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline.errors import ConfigError
from pipeline.record.reader import open_record, parts_of
from pipeline.record.rows import RowGroup
from tests.record_rig import LAYOUT, add, check_content, hold_the_disk, open_rank, pairs_in

FEW = [(member, number) for member in (4, 2) for number in range(5)]


def test_what_was_added_can_be_read_after_a_flush(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    assert add(record, FEW).tolist() == list(range(10))
    assert record.flush() == 10
    dataset = open_record(tmp_path)
    assert pairs_in(dataset) == sorted(FEW)
    check_content(dataset)
    record.close()


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_zarr_and_xarray_read_it_as_it_is(tmp_path: Path, compression: str) -> None:
    record = open_rank(tmp_path, compression=compression)
    add(record, FEW)
    record.close(complete=True)
    with xr.open_zarr(tmp_path / "record.zarr", group="rank0", consolidated=False) as dataset:
        check_content(dataset)
        assert dict(dataset.sizes) == {"sample": 10, "snapshot": 2, "y": 3, "x": 5}
        assert dataset["temperature"].dims == ("sample", "snapshot", "y", "x")
        assert dataset["temperature"].attrs["units"] == "K"
        assert dataset["y"].values.tolist() == [0.25, 0.75, 1.25]
        assert set(dataset.coords) == {"member", "number", "step", "time", "y", "x"}
    group = zarr.open_group(tmp_path / "record.zarr" / "rank0", mode="r")
    array = group["temperature"]
    assert isinstance(array, zarr.Array)
    assert array.metadata.zarr_format == 3
    assert bool(array.compressors) is (compression == "zstd")


def test_nothing_is_read_before_it_is_committed(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    add(record, FEW[:3])
    record.flush()
    add(record, FEW[3:])  # blocks of four: one is written at once, but not committed
    assert pairs_in(open_record(tmp_path, sort=False)) == FEW[:3]
    record.close()
    assert pairs_in(open_record(tmp_path, sort=False)) == FEW


def test_commits_come_by_themselves(tmp_path: Path) -> None:
    record = open_rank(tmp_path, commit_seconds=0.01)
    add(record, FEW)
    while open_record(tmp_path).sizes["sample"] < 10:
        pass
    record.close()


def test_draws_are_counted_also_of_rows_on_the_disk(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    rows = add(record, FEW)
    record.count_draws(rows[2:4], np.array([1, 5]))
    record.flush()
    record.count_draws(rows[3:9], np.array([1, 1, 1, 1, 1, 2]))
    record.close()
    dataset = open_record(tmp_path, sort=False)
    assert dataset["draws"].values.tolist() == [0, 0, 1, 6, 1, 1, 1, 1, 2, 0]


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("keep", [0, 3, 4, 7, 10, 23])
def test_a_position_is_gone_back_to_and_gone_on_from(
    tmp_path: Path, keep: int, compression: str
) -> None:
    first = [(member, number) for member in range(5) for number in range(5)]
    record = open_rank(tmp_path, compression=compression)
    rows = add(record, first)
    record.count_draws(rows, np.full(25, 3))
    record.close()
    record = open_rank(tmp_path, compression=compression, keep=keep)
    assert record.rows == keep
    assert pairs_in(open_record(tmp_path, sort=False)) == first[:keep]
    add(record, [*first[keep:], (9, 0)])
    record.close()
    dataset = open_record(tmp_path, sort=False)
    assert pairs_in(dataset) == [*first, (9, 0)]
    check_content(dataset)
    assert dataset["draws"].values.tolist() == [3] * keep + [0] * (26 - keep)


def test_a_position_beyond_the_end_is_refused(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    add(record, FEW)
    record.close()
    with pytest.raises(ValueError, match=r"rows=11: .* holds 10, cut to one of these"):
        open_rank(tmp_path, keep=11)


def test_other_arrays_than_those_that_are_there_are_refused(tmp_path: Path) -> None:
    open_rank(tmp_path).close()
    with pytest.raises(ValueError, match=r"was written as .* Record into a new folder"):
        open_rank(tmp_path, keep=0, compression="zstd")


def test_what_does_not_fit_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = hold_the_disk(monkeypatch)
    record = open_rank(tmp_path, queue_bytes=1)  # three blocks of four
    pairs = [(1, number) for number in range(15)]
    assert add(record, pairs).tolist() == [*range(12), -1, -1, -1]
    stats = record.stats()
    assert (stats.recorded, stats.record_dropped) == (12, 3)
    assert stats.record_queue_bytes == 12 * LAYOUT.row_bytes
    written.set()
    record.close(complete=True)
    assert pairs_in(open_record(tmp_path)) == pairs[:12]
    assert open_record(tmp_path).attrs["dropped"] == 3
    assert open_record(tmp_path).attrs["complete"] is False


def test_a_full_disk_ends_the_record_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = open_rank(tmp_path)
    add(record, FEW[:4])
    assert record.flush() == 4

    def full(self: RowGroup, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowGroup, "write_chunk", full)
    add(record, FEW[4:])
    assert record.flush() == 4
    assert add(record, FEW).tolist() == [-1] * 10
    stats = record.stats()
    assert stats.record_problem is not None
    assert stats.record_problem.startswith("No space left on device")
    assert (stats.recorded, stats.record_dropped) == (4, 16)
    record.close(complete=True)
    assert "the record has stopped, the study goes on: No space left" in caplog.text
    dataset = open_record(tmp_path)
    assert pairs_in(dataset) == FEW[:4]
    assert dataset.attrs["complete"] is False
    assert dataset.attrs["problem"].startswith("No space left on device")


def test_a_part_of_a_file_on_a_full_disk_is_no_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_rank(tmp_path)
    add(record, FEW[:3])
    record.flush()

    def full(source: object, target: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "replace", full)
    add(record, FEW[3:])
    record.flush()
    monkeypatch.undo()
    record.close()
    assert not list(tmp_path.rglob("*temperature*.part"))
    check_content(open_record(tmp_path))
    assert pairs_in(open_record(tmp_path, sort=False)) == FEW[:3]


def test_a_record_without_samples_can_be_read(tmp_path: Path) -> None:
    open_rank(tmp_path).close(complete=True)
    dataset = open_record(tmp_path)
    assert dataset.sizes["sample"] == 0
    assert dataset.attrs["complete"] is True


def test_chunks_are_whole_and_metadata_plain_json(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    add(record, FEW)
    record.close()
    group = tmp_path / "record.zarr" / "rank0"
    chunks = sorted((group / "temperature").glob("c.*"))
    assert [path.name for path in chunks] == ["c.0.0.0.0", "c.1.0.0.0", "c.2.0.0.0"]
    assert {path.stat().st_size for path in chunks} == {4 * 2 * 3 * 5 * 4}
    assert json.loads((group / "temperature" / "zarr.json").read_text())["shape"] == [10, 2, 3, 5]
    assert parts_of(tmp_path)[0].rows == 10


def test_no_chunk_is_replaced_before_the_new_one_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = open_rank(tmp_path)
    rows = add(record, FEW[:3])
    record.count_draws(rows, np.array([1, 2, 3]))
    assert record.flush() == 3
    arrays = tmp_path / "record.zarr" / "rank0"
    before = {path: path.read_bytes() for path in arrays.glob("*/c.*")}
    synchronised = os.fsync

    def broken(file: int) -> None:
        if "/c." in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synchronised(file)

    monkeypatch.setattr(os, "fsync", broken)
    record.count_draws(add(record, FEW[3:]), np.full(7, 5))
    assert record.flush() == 3
    record.close()
    assert {path: path.read_bytes() for path in before} == before
    dataset = open_record(tmp_path, sort=False)
    assert pairs_in(dataset) == FEW[:3]
    assert dataset["draws"].values.tolist() == [1, 2, 3]
    assert "Input/output error" in dataset.attrs["problem"]


def test_a_record_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    open_rank(tmp_path).close()
    file = tmp_path / "record.zarr" / "rank0" / "zarr.json"
    file.write_text(file.read_text().replace('"headrace_record": 2', '"headrace_record": 1'))
    with pytest.raises(ConfigError, match="record version 1, this headrace has 2"):
        open_rank(tmp_path, keep=0)


def test_a_chunk_that_is_not_full_ends_with_zeros(tmp_path: Path) -> None:
    record = open_rank(tmp_path, queue_bytes=1)  # three blocks of four, which take turns
    add(record, [(1, number) for number in range(12)])
    record.flush()
    add(record, [(1, 12)])
    record.flush()
    chunk = tmp_path / "record.zarr" / "rank0" / "temperature" / "c.3.0.0.0"
    values = np.fromfile(chunk, np.float32).reshape(4, 2, 3, 5)
    assert values[0].any()
    assert not values[1:].any()
    record.close()


def test_what_an_earlier_life_has_dropped_is_never_forgotten(tmp_path: Path) -> None:
    record = open_rank(tmp_path)
    add(record, FEW)
    record.close()
    record = open_rank(tmp_path, keep=len(FEW), dropped=3)
    assert record.stats().record_dropped == 3
    record.close(complete=True)
    attributes = open_record(tmp_path).attrs
    assert (attributes["complete"], attributes["dropped"]) == (False, 3)
