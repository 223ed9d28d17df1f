"""Starts a study that was asked for on the command line, and tells what comes of it.

1. All that is wrong with a study, its output folder and this machine is said at once, before any
   process starts.
2. Results go to standard output, everything else to standard error.
3. SIGTERM ends a study as Ctrl-C does: processes and shared memory are removed first.
"""

import os
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from deploy import overview
from deploy.speaking import Terminated, say
from pipeline import journal, machine, rundir
from pipeline.config import StudyConfig, load
from pipeline.errors import ConfigError, StudyFailed
from trainers.libraries import missing_libraries

if TYPE_CHECKING:
    from pipeline.driver import Observer

RUNS = Path("runs")
MAX_STORIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Watching:
    """How a person follows the study.

    Attributes:
        progress: Show it on standard error.
        metrics_host: Address of the metrics endpoint.
        metrics_port: Its port, 0 for any; None for no endpoint.
    """

    progress: bool
    metrics_host: str
    metrics_port: int | None


def warn(study: StudyConfig) -> None:
    """Say what is allowed, but probably not meant."""
    for line in study.warnings():
        say(f"warning: {line}")


def ready_to_run(
    path: Path, overrides: Sequence[str], out: Path | None, environment: Mapping[str, str]
) -> StudyConfig:
    """The study, when nothing at all speaks against starting it.

    Raises:
        ConfigError: With everything that does.
    """
    found = rundir.problems(out) if out is not None else []
    try:
        study = load(path, overrides)
    except ConfigError as error:
        raise ConfigError([*error.problems, *found]) from None
    # In a cluster its nodes decide, and Ray knows them: pipeline.run asks it.
    if "RAY_ADDRESS" not in environment:
        found += machine_problems(study)
    # The folder is shared by all nodes: what is free here is free there.
    found += machine.record_problems(study.record_bytes, (RUNS if out is None else out).resolve())
    if found:
        raise ConfigError(found)
    return study


def machine_problems(study: StudyConfig) -> list[str]:
    """Why this machine cannot run a study."""
    found = machine.problems(
        ranks=study.trainer.ranks,
        device=study.trainer.device,
        # Asked only when it matters: the driver may take seconds to answer.
        gpus=machine.gpus() if study.trainer.device == "cuda" else 0,
        capacity=study.reservoir.capacity,
        slots_bytes=study.slots_bytes,
        shared_memory_free=machine.shared_memory_free(),
    )
    return found + missing_libraries(study.trainer.loggers)


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


def run_study(study: StudyConfig, folder: Path, *, source: str, watching: Watching) -> None:
    """Run a study to its end, and write its report.

    Args:
        study: What to run.
        folder: Its run directory, absolute.
        source: The study as it was written.
        watching: How a person follows it.

    Raises:
        StudyFailed: After the report of what there was.
    """
    from deploy.report import write_report  # drawing and Ray load slowly: only who runs waits
    from pipeline.run import run

    say(f"{study.name}: results go to {folder}")
    say(f"shared memory: {overview.memory(study)}")
    unit = study.spec.units[0]
    try:
        with sigterm_unwinds(), observers(study, unit, watching) as watch:
            result = run(study, out=folder, source_text=source, observers=watch)
    except StudyFailed:
        say_failures(folder)
        say(f"report: {write_report(folder)}")
        raise
    say_failures(folder)
    report = write_report(folder)
    Console().print(overview.summary(result.summary, unit=unit))
    sys.stdout.write(f"report  {report}\nmodel   {folder / 'model'}\n")


def say_failures(folder: Path) -> None:
    """Say why members failed, each reason once: those that come with a story of their own."""
    told: dict[str, tuple[int, str]] = {}
    path = folder / "journal.jsonl"
    for event in journal.read(path) if path.is_file() else ():
        if event["event"] == "failed" and "details" in event:
            told.setdefault(str(event["details"]), (int(event["member"]), str(event["reason"])))
    for details, (member, reason) in list(told.items())[:MAX_STORIES]:
        say(f"member {member} failed: {reason}")
        say(textwrap.indent(details.rstrip(), "    "))
    if len(told) > MAX_STORIES:
        say(f"{len(told) - MAX_STORIES} more kinds of failures are in {path}")


@contextmanager
def observers(study: StudyConfig, unit: str, watching: Watching) -> Iterator[Sequence["Observer"]]:
    """What watches the study while the block lasts: progress display, metrics endpoint."""
    from deploy.metrics import MetricsServer
    from deploy.progress import ProgressDisplay

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
            watch.append(stack.enter_context(ProgressDisplay(name=study.name, unit=unit)))
        yield watch


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Turn SIGTERM into an exception that unwinds the block, as Ctrl-C does.

    Ray lets a ``KeyboardInterrupt`` pass through its calls, but not as the object that was raised,
    and it ends the process at once on ``SystemExit``; so the signal is noted beside it.

    Raises:
        Terminated: SIGTERM was received.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if received:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
