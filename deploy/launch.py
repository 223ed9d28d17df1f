"""Starts a study that was asked for on the command line, and tells what comes of it.

1. All that is wrong with a study, its output folder and this machine is said at once, before any
   process starts.
2. Results go to standard output, everything else to standard error.
3. SIGTERM and Ctrl-C end a study in good order: with a checkpoint once there is something to keep,
   and always without processes and shared memory. Ctrl-C again ends it at once.
"""

import os
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from deploy.cluster import machine
from deploy.speaking import Terminated, only_shown, say
from deploy.watch import tables as overview
from pipeline.checkpoint import inputs, resuming
from pipeline.control import journal, rundir
from pipeline.control.stopping import StopRequest
from pipeline.errors import ConfigError, StudyFailed, StudyStopped, carry_on
from pipeline.study.config import StudyConfig
from pipeline.study.load import load

if TYPE_CHECKING:
    from pipeline.actors.driver import Observer

RUNS = Path("runs")
MAX_STORIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Watching:
    """How a person follows the study.

    Attributes:
        progress: Show it on standard error.
        metrics_host: Address of the metrics endpoint.
        metrics_port: Its port, 0 for any; None for no endpoint.
        latest: Whether ``latest``, beside the run directory, points at it once it is started.
    """

    progress: bool
    metrics_host: str
    metrics_port: int | None
    latest: bool = False


def warn(study: StudyConfig) -> None:
    """Say what is allowed, but probably not meant."""
    for line in study.warnings():
        say(f"warning: {line}")


def ready_to_run(
    path: Path,
    overrides: Sequence[str],
    out: Path | None,
    environment: Mapping[str, str],
    *,
    again: bool = False,
) -> StudyConfig:
    """The study, when nothing at all speaks against starting it.

    Args:
        path: The study.
        overrides: Keys to change.
        out: Its run directory; None for a new one.
        environment: Of this process.
        again: The run directory may hold the study already, to go on with.

    Raises:
        ConfigError: With everything that does.
    """
    found = rundir.problems(out) if out is not None and not again else []
    try:
        study = load(path, overrides)
    except ConfigError as error:
        raise ConfigError([*error.problems, *found]) from None
    found += problems_here(study, environment)
    # The folder is shared by all nodes: what is free here is free there.
    found += machine.record_problems(study.record_bytes, (RUNS if out is None else out).resolve())
    if found:
        raise ConfigError(found)
    return study


def ready_to_resume(
    out: Path, overrides: Sequence[str], environment: Mapping[str, str]
) -> StudyConfig:
    """The study of a run directory, when nothing speaks against going on with it.

    Raises:
        ConfigError: With everything that does.
    """
    study = resuming.changed(resuming.read_study(out), overrides)
    found = problems_here(inputs.as_begun(out, study)[0], environment)
    if found:
        raise ConfigError(found)
    return study


def asks_to_go_on(out: Path) -> bool:
    """Whether somebody at a terminal wants to go on with the study in a folder."""
    if not (sys.stdin.isatty() and rundir.unfinished(out)):
        return False
    sys.stderr.write(f"{out} holds a study that has not ended. Go on with it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def problems_here(study: StudyConfig, environment: Mapping[str, str]) -> list[str]:
    """Why this machine cannot run a study that is to run on it."""
    # In a cluster its nodes decide, and Ray knows them: pipeline.run asks it.
    return [] if "RAY_ADDRESS" in environment else machine.problems_of(study)


def new_folder(runs: Path, name: str, now: datetime) -> Path:
    """``runs/NAME-YYYYMMDD-HHMMSS``, with a number when two studies start in the same second."""
    stem = f"{name}-{now:%Y%m%d-%H%M%S}"
    folder, number = runs / stem, 1
    while folder.exists():
        number += 1
        folder = runs / f"{stem}-{number}"
    return folder


def link_latest(folder: Path) -> None:
    """Point ``latest``, beside ``folder``, at it, whatever it pointed at before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    link, fresh = folder.parent / "latest", folder.parent / f".latest-{os.getpid()}"
    if link.exists() and not link.is_symlink():
        say(f"{link} is no link and stays as it is")
        return
    fresh.symlink_to(folder.name)
    fresh.replace(link)


def _linked_once(folder: Path) -> "Observer":
    """Make the link at the first figures: a study that cannot be started takes nobody's place."""

    def look(stats: object) -> None:
        del stats
        if waiting:
            link_latest(waiting.pop())

    waiting = [folder]
    return look


def run_study(study: StudyConfig, folder: Path, *, source: str | None, watching: Watching) -> None:
    """Run a study to its end, and write its report.

    Args:
        study: What to run.
        folder: Its run directory, absolute.
        source: The study as it was written; None: go on with what is in ``folder``.
        watching: How a person follows it.

    Raises:
        StudyFailed: After the report of what there was.
        Terminated: SIGTERM came before there was a checkpoint.
        KeyboardInterrupt: Ctrl-C.
    """
    from deploy.report.report import (
        write_report,  # drawing and Ray load slowly: only who runs waits
    )
    from pipeline import run

    say(f"{study.name}: results go to {folder}")
    say(f"shared memory: {overview.memory(study)}")
    try:
        with stopped_by_signals() as stop, observers(study, watching) as watch:
            if watching.latest:
                watch.append(_linked_once(folder))
            if source is None:
                result = run.resume(folder, study=study, observers=watch, stop=stop)
            else:
                result = run.run(study, out=folder, source_text=source, observers=watch, stop=stop)
    except StoppedBySignal as stopped:
        with carry_on("report"):
            say(f"report: {write_report(folder)}")
        stopped.say_and_end(folder)
        return
    except StudyFailed:
        if folder.is_dir():  # it was started
            say_failures(folder)
            with carry_on("report"):
                say(f"report: {write_report(folder)}")
            say(resuming.what_was_kept(folder))
        raise
    except KeyboardInterrupt:
        say(resuming.what_was_kept(folder))
        raise
    say_failures(folder)
    lines = [f"model   {rundir.RunPaths(folder).model}\n"]
    with carry_on("report"):
        lines.insert(0, f"report  {write_report(folder)}\n")
    with only_shown():
        Console().print(overview.summary(result.summary))
        sys.stdout.writelines(lines)


def say_failures(folder: Path) -> None:
    """Say why members or the trainer failed, where there is a story to tell, each story once."""
    told: dict[str, str] = {}
    path = rundir.RunPaths(folder).journal
    for event in journal.read(path) if path.is_file() else ():
        if event["event"] in ("failed", "trainer failed") and "details" in event:
            who = f"member {event['member']}" if "member" in event else "trainer"
            told.setdefault(str(event["details"]), f"{who} failed: {event['reason']}")
    for details, line in list(told.items())[:MAX_STORIES]:
        say(line)
        say(textwrap.indent(details.rstrip(), "    "))
    if len(told) > MAX_STORIES:
        say(f"{len(told) - MAX_STORIES} more kinds of failures are in {path}")


@contextmanager
def observers(study: StudyConfig, watching: Watching) -> Iterator[list["Observer"]]:
    """What watches the study while the block lasts: progress display, metrics endpoint."""
    from deploy.watch.metrics import MetricsServer
    from deploy.watch.progress import ProgressDisplay

    with ExitStack() as stack:
        watch: list[Observer] = []
        if watching.metrics_port is not None:
            host, port = watching.metrics_host, watching.metrics_port
            try:
                server = stack.enter_context(MetricsServer(study=study.name, host=host, port=port))
            except OSError as error:
                line = (
                    f"--metrics-port={port}: {host}:{port} cannot be listened on "
                    f"({error.strerror}). Choose another port, or 0 for a free one"
                )
                raise ConfigError([line]) from None
            say(f"metrics: {server.url}")
            watch.append(server)
        if watching.progress:
            watch.append(stack.enter_context(ProgressDisplay(name=study.name)))
        yield watch


class StoppedBySignal(Exception):
    """The study has stopped in good order, because a signal has asked for it."""

    def __init__(self, number: int, train_step: int | None) -> None:
        super().__init__(number, train_step)
        self.number, self.train_step = number, train_step

    def say_and_end(self, folder: Path) -> None:
        """Say what was kept; return only where everything asked for was done.

        Raises:
            Terminated: SIGTERM came, and there is no checkpoint.
            KeyboardInterrupt: Ctrl-C; a script that called this program ends, too.
        """
        say(resuming.what_was_kept(folder))
        if self.number != signal.SIGTERM:
            raise KeyboardInterrupt
        if self.train_step is None:
            raise Terminated


@contextmanager
def stopped_by_signals() -> Iterator[StopRequest]:
    """Let SIGTERM and Ctrl-C ask the study to stop, or unwind the block where it cannot.

    Ray lets a ``KeyboardInterrupt`` pass through its calls, but not as the object that was raised,
    and it ends the process at once on ``SystemExit``; so the signal is noted beside it.

    Raises:
        StoppedBySignal: The study has stopped as it was asked to.
        Terminated: SIGTERM was received, and the block was unwound.
        KeyboardInterrupt: Likewise for Ctrl-C.
    """
    request, received = StopRequest(), list[int]()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if not request.ask():
            raise KeyboardInterrupt
        # Not through sys.stderr, in the middle of which the signal may have come.
        with suppress(OSError):
            os.write(2, b"stopping, with a checkpoint if it trains; Ctrl-C again ends at once\n")

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield request
    except StudyStopped as stopped:
        raise StoppedBySignal(received[0], stopped.train_step) from None
    except KeyboardInterrupt:
        if signal.SIGTERM in received:
            raise Terminated from None
        raise
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
