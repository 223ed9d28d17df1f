"""Files that are whole or not there at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainers.durable import replacing, sole_writer, write_atomically, write_durably


@pytest.mark.parametrize("write", [write_atomically, write_durably])
def test_a_file_is_replaced_and_nothing_is_left_beside_it(
    write: Callable[[Path, str | bytes], None], tmp_path: Path
) -> None:
    path = tmp_path / "card.json"
    write(path, "old")
    write(path, "néw\n".encode())
    assert path.read_text("utf-8") == "néw\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_there_stays_when_writing_fails(folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "data.zarr"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as part:
            if folder:
                part.mkdir()
            (part / "chunk" if folder else part).write_text("half")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_keeps_the_ending_that_libraries_look_at(tmp_path: Path) -> None:
    with replacing(tmp_path / "surrogate.pt2") as part:
        part.write_text("")
        assert part.suffix == ".pt2"
        assert part.name.startswith(".")


def test_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        happened.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def seen_replace(part: Path, path: Path) -> None:
        happened.append(f"-> {path.name}")
        replace(part, path)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_durably(tmp_path / "manifest.json", "{}")
    assert happened == [".manifest.part.json", "-> manifest.json", tmp_path.name]


def test_a_folder_that_somebody_writes_is_refused_at_once(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "run"),
        pytest.raises(TimeoutError, match="See which process"),
        sole_writer(tmp_path / "run"),
    ):
        pass
    with sole_writer(tmp_path / "run"):
        pass
