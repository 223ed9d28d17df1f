"""Nothing that is only shown changes an outcome: encodings, readers who have gone, full disks."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy import cli
from deploy.speaking import only_shown, say, speak_anywhere


def ascii_stream(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(descriptor, "w"), encoding="ascii", write_through=True)


@contextmanager
def ascii_readers() -> Iterator[list[int]]:
    """The reading ends of standard output and error, whose encoding is ASCII."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    streams, before = [ascii_stream(out_end), ascii_stream(err_end)], (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = streams
    readers = [out, err]
    try:
        yield readers
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close()
        for reader in readers:
            os.close(reader)


def test_any_text_survives_any_encoding() -> None:
    with ascii_readers() as (out, err):
        speak_anywhere()
        sys.stdout.write("41.5 K² ├─ \udcff\n")  # a byte of a file name that is not UTF-8
        sys.stdout.flush()
        say("2.1 m²")
        assert os.read(out, 100) == b"41.5 K? ?? ?\n"
        assert os.read(err, 100) == b"2.1 m?\n"


def test_a_command_that_prints_units_ends_well_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["headrace", "describe"])
    monkeypatch.setattr(
        "deploy.commands.describe.listing", lambda *, measured: iter(["momentum [m²/s]"])
    )
    with ascii_readers() as (out, _):
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        assert os.read(out, 100) == b"momentum [m?/s]\n"


def test_a_reader_who_has_gone_costs_nothing() -> None:
    with ascii_readers() as readers:
        speak_anywhere()
        while readers:
            os.close(readers.pop())
        say("the study goes on")
        with only_shown():
            sys.stdout.write("result\n")
        sys.stdout.flush()  # as at the end of the process


def test_a_full_disk_under_the_log_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="ascii") as full:
        monkeypatch.setattr(sys, "stderr", full)
        speak_anywhere()
        say("the study goes on")
        sys.stderr.flush()
