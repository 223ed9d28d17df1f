import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.record.direct_file import LARGE, aligned, write

SIZES = [0, 1, LARGE - 1, LARGE, LARGE + 1, LARGE + 4096, 3 * LARGE + 4097]


def content_of(size: int) -> np.ndarray:
    values = aligned((size,), "uint8")
    values[:] = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    return values


@pytest.mark.parametrize("size", SIZES)
def test_the_file_holds_exactly_the_content(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "file", content_of(size)
    path.write_bytes(b"old" * LARGE)
    write(path, content.data)
    assert path.read_bytes() == content.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_memory_that_is_not_aligned_is_written_too(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "file", content_of(size + 1)
    write(path, content[1:].data)
    assert path.read_bytes() == content[1:].tobytes()


def test_numbers_are_written_as_they_lie_in_memory(tmp_path: Path) -> None:
    content = aligned((3, LARGE // 4), "float32")
    content[:] = np.random.default_rng(1).random(content.shape, np.float32)
    write(tmp_path / "file", content.data)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "file", np.float32), content.ravel())


def test_a_file_system_without_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, asked = os.open, []

    def refuse(path: Path, flags: int, *more: int) -> int:
        asked.append(bool(flags & os.O_DIRECT))
        if asked[-1]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    content = content_of(LARGE + 5)
    write(tmp_path / "file", content.data)
    assert asked == [True, False]
    assert (tmp_path / "file").read_bytes() == content.tobytes()


def test_another_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "file", content_of(LARGE).data)
