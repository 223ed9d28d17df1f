"""How the commands speak: lines on standard error, files that are new, exit codes.

1. An error that is meant for people is a line for each thing that is wrong, and never a traceback.
2. No file is overwritten.
3. Nothing that is only shown changes an outcome: any encoding takes it, and a reader who has gone
   (``headrace run ... 2>&1 | head``) or a full disk under a log costs the study nothing.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from typing_extensions import Buffer

from pipeline.errors import ConfigError, HeadraceError

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: somebody who is not at the keyboard wants the program to end."""


class _Shown(io.FileIO):
    """A stream that takes what nobody can read any more."""

    def write(self, data: Buffer, /) -> int:
        """Write, or drop what cannot be written."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def speak_anywhere() -> None:
    """Let standard output take any text, and standard error any text at any time."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = _Shown(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stderr.encoding, "replace", line_buffering=True
        )


@contextmanager
def only_shown() -> Iterator[None]:
    """Show on standard output what lies in files as well; whether that works changes nothing."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        say(f"the result cannot be shown on standard output ({error.strerror})")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the last flush fails


def say(line: str) -> None:
    """Tell the person, not the program that reads the output."""
    sys.stderr.write(line + "\n")


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet."""
    if path.exists():
        line = f"{path}: exists, and is not overwritten. Choose another name, or remove it"
        raise ConfigError([line])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        line = f"{path}: cannot be written ({error.strerror}). Choose another place"
        raise ConfigError([line]) from None
    sys.stdout.write(f"wrote {path}\n")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors that are meant for people, as text and exit code."""
    try:
        yield
    except ConfigError as error:
        for line in error.problems:
            say(f"error: {line}")
        raise typer.Exit(BAD_INPUT) from None
    except HeadraceError as error:
        say(f"failed: {error}")
        raise typer.Exit(FAILED) from None
    except Terminated:
        say("stopped by SIGTERM")
        raise typer.Exit(TERMINATED) from None
    except KeyboardInterrupt:
        say("stopped by Ctrl-C")
        raise typer.Exit(INTERRUPTED) from None
