"""Members as files: what is read equals what was written, and storage is really read."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from trainers.offline.stored import (
    InMemory,
    MemberSamples,
    NpyFiles,
    Store,
    ZarrFiles,
    files_of,
    forget,
    sizes,
)

SHAPE = (2, 3, 5, 7)  # window, channel, y, x
MEMBERS = (4, 5, 9)
HELD = {4: 6, 5: 3, 9: 6}  # the second one ended early
INPUTS = 4


def member(number: int) -> MemberSamples:
    rng = np.random.default_rng(number)
    held = HELD[number]
    return MemberSamples(
        fields=rng.normal(size=(held, *SHAPE)).astype(np.float32),
        inputs=rng.normal(size=(held, INPUTS)),
        steps=np.arange(held, dtype=np.int64) * 2 + number,
    )


def written(store: Store, folder: Path) -> NpyFiles | ZarrFiles:
    """Three members, not in their order, by a writer of its own."""
    if store == "zarr":
        ZarrFiles.create(
            folder, members=MEMBERS, samples=6, sample_shape=SHAPE, dtype="float32", inputs=INPUTS
        )
    for number in (9, 4, 5):
        files_of(store, folder).write(number, member(number))
    return files_of(store, folder)


@pytest.fixture(params=["npy", "zarr"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> NpyFiles | ZarrFiles:
    return written(request.param, tmp_path)


def test_a_member_is_read_back_to_the_last_bit(files: NpyFiles | ZarrFiles) -> None:
    for number in MEMBERS:
        expected, index = member(number), files.index(number)
        np.testing.assert_array_equal(files.read(number), expected.fields)
        np.testing.assert_array_equal(index.inputs, expected.inputs)
        np.testing.assert_array_equal(index.steps, expected.steps)
        assert index.fields.shape == expected.fields.shape


def test_a_sample_is_read_back_to_the_last_bit(files: NpyFiles | ZarrFiles) -> None:
    for number in MEMBERS:
        for sample in range(HELD[number]):
            expected = member(number).fields[sample]
            np.testing.assert_array_equal(files.read_sample(number, sample), expected)


def test_of_an_npy_only_the_bytes_of_the_sample_are_read(tmp_path: Path) -> None:
    files = written("npy", tmp_path)
    files.index(4)
    (path,) = files.paths([4])
    size = 4 * int(np.prod(SHAPE))
    os.truncate(path, path.stat().st_size - 2 * size)  # the last two of six are gone
    np.testing.assert_array_equal(files.read_sample(4, 3), member(4).fields[3])
    with pytest.raises(EOFError, match=r"member-00004\.npy"):
        files.read_sample(4, 4)


def test_npy_opens_with_plain_numpy(tmp_path: Path) -> None:
    written("npy", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "member-00005.npy"), member(5).fields)


def test_zarr_opens_with_xarray(tmp_path: Path) -> None:
    written("zarr", tmp_path)
    data = xr.open_zarr(tmp_path / "data.zarr", consolidated=False)
    assert data.fields.dims == ("member", "sample", "window", "channel", "y", "x")
    np.testing.assert_array_equal(data.fields.sel(member=9), member(9).fields)
    assert int(data["count"].sel(member=5)) == 3


def test_no_half_written_file_is_there(tmp_path: Path) -> None:
    written("npy", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"member-{number:05d}.{kind}" for number in MEMBERS for kind in ("npy", "npz")
    ]


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    files = written("npy", tmp_path)
    files.index(4)
    (path,) = files.paths([4])
    os.truncate(path, 1000)
    with pytest.raises(EOFError, match=r"member-00004\.npy"):
        files.read(4)


def test_what_is_forgotten_is_not_in_the_page_cache(files: NpyFiles | ZarrFiles) -> None:
    paths = files.paths(MEMBERS)
    for number in MEMBERS:
        files.read(number)
    assert len(paths) == len(MEMBERS)
    if not any(cached_pages(path) for path in paths):
        pytest.skip("this file system keeps nothing in the page cache")
    forget(paths)
    if os.statvfs(paths[0]).f_fsid == os.statvfs("/dev/shm").f_fsid:
        pytest.skip("a file system in memory forgets nothing")
    assert [cached_pages(path) for path in paths] == [0] * len(paths)
    np.testing.assert_array_equal(files.read(9), member(9).fields)


def cached_pages(path: Path) -> int:
    """Pages of a file that are in memory, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file:
        size = path.stat().st_size
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
            anchor = ctypes.c_char.from_buffer(mapped)
            pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            address = ctypes.c_void_p(ctypes.addressof(anchor))
            assert libc.mincore(address, ctypes.c_size_t(size), pages) == 0
            del anchor
    return sum(page & 1 for page in pages)


def test_what_is_held_in_memory_is_read_once(files: NpyFiles | ZarrFiles) -> None:
    held = InMemory(files, MEMBERS)
    for path in files.paths(MEMBERS):
        path.unlink()
    for number in MEMBERS:
        np.testing.assert_array_equal(held.read(number), member(number).fields)
        np.testing.assert_array_equal(held.read_sample(number, 2), member(number).fields[2])
    assert held.paths(MEMBERS) == []


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"x" * 5000)
    (tmp_path / "two").write_bytes(b"y" * 300)
    written_bytes, disk = sizes(tmp_path)
    assert written_bytes == 5300
    assert disk == 512 * sum(p.stat().st_blocks for p in (tmp_path / "a" / "one", tmp_path / "two"))
