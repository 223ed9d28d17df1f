"""Paths of sockets are short enough wherever TMPDIR points, in folders that are private."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from pipeline.actors import cluster
from pipeline.errors import ConfigError
from pipeline.stream import sockets
from pipeline.stream.sockets import MAX_PATH, is_private, make_private, new_socket, socket_folder


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of 90 characters at least."""
    folder = tmp_path / ("x" * 62)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_socket_can_be_bound_below_a_long_folder(long: Path) -> None:
    path = new_socket()
    assert not path.is_relative_to(long)
    assert is_private(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.unlink()
    path.parent.rmdir()


def test_rays_folder_is_short_and_private(long: Path) -> None:
    folder = cluster.ray_folder()
    assert not folder.is_relative_to(long)
    assert is_private(folder.parent)
    assert len(f"{folder}{cluster._RAY_SOCKET}") <= MAX_PATH


def test_the_limit_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    room = MAX_PATH - len(os.fsencode(tmp_path))
    assert socket_folder(room) == tmp_path
    assert socket_folder(room + 1) == sockets.SHORT


def test_what_the_operator_names_is_checked_before_anything_starts(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(ConfigError, match=r"characters: .*at most 4\d .*RAY_TMPDIR"):
        cluster.ray_folder()


def test_without_a_short_folder_the_remedy_is_named(
    long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "SHORT", long / "nowhere")
    with pytest.raises(ConfigError, match=r"longer than 107\. .* in TMPDIR"):
        new_socket()


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="need a folder of mode 700"):
        make_private(tmp_path / "link")
