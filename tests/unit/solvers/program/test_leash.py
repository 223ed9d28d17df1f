"""Which shared-memory files of MPICH are removed: those that nobody uses."""

import mmap
from pathlib import Path

import pytest

from solvers.program.leash import remove_unused_segments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("mpich_shm_1a_0", "mpich_shm_2b_0", "other"):
        (tmp_path / name).write_bytes(bytes(mmap.PAGESIZE))
    return tmp_path


def test_what_nobody_uses_is_removed_and_nothing_else(folder: Path) -> None:
    assert remove_unused_segments(folder) == ["mpich_shm_1a_0", "mpich_shm_2b_0"]
    assert [path.name for path in folder.iterdir()] == ["other"]
    assert remove_unused_segments(folder) == []


def test_a_file_that_is_open_stays(folder: Path) -> None:
    with (folder / "mpich_shm_1a_0").open("rb"):
        assert remove_unused_segments(folder) == ["mpich_shm_2b_0"]


def test_a_file_that_is_mapped_stays_when_it_is_closed(folder: Path) -> None:
    with (folder / "mpich_shm_2b_0").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    try:
        assert remove_unused_segments(folder) == ["mpich_shm_1a_0"]
    finally:
        memory.close()


def test_a_folder_without_any_is_left_alone(tmp_path: Path) -> None:
    assert remove_unused_segments(tmp_path) == []
