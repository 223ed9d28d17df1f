"""How the commands speak: lines on standard error, files that are new, exit codes.

1. An error that is meant for people is a line for each thing that is wrong, and never a traceback.
2. No file is overwritten.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pipeline.errors import ConfigError, HeadraceError

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: somebody who is not at the keyboard wants the program to end."""


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
