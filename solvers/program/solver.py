"""Any PETSc program, unmodified: PETSc itself writes its vectors into a named pipe.

Equation:    the program's. Domain, boundary conditions, scheme and stability are its own, too.
Parameters:  each becomes an option (``{viscosity: "-nu {value}"}``), on the command line or in a
             file.
Stream:      ts_monitor_solution: every step of a TS, with its time, the initial state first. The
             program must call TSSetFromOptions.
             snes_view_solution, ksp_view_solution: what every SNES or KSP ends with
             (...SetFromOptions again). vec_view: the vectors shown with VecViewFromOptions.
             PETSc tells no times here: vector k counts as time k dt. One steady solve: steps 0,
             one snapshot of step 0, which a study takes in with `stream: {initial_state: true}`.
Layout:      PETSc writes a DMDA's vector in natural order, whatever the number of ranks: x fastest
             of the axes, the components of a point side by side (interlaced). Other vectors come
             as the program numbers them: blocked, or axes such as xyc (x slowest).
Ranks:       mpi_ranks of the program's own MPI, under the launcher; rank 0 runs on this machine.
Order:       the program's. What is added is one rounding to float32.
Behaviour:   every member is a new process in a working folder of its own. The program waits when
             the study does. It fails alone: a status other than 0, a stream that is cut short, too
             long, or not of real double vectors, a value that is not finite, or no vector in
             step_timeout; the failure shows PETSc's reason and the last lines. SNES and KSP that
             do not converge are made errors where they are what is streamed.
             Nothing of it is left after any end of headrace, killed processes included. A member
             whose program somebody else has killed is tried again.
Good values: every, so that snapshots differ by more than a rounding; step_timeout, ten slow steps.
Source:      PETSc manual, "Viewers: Looking at PETSc Objects"; docs/program.md.

A step that TS repeats at the same time, because an event rolled it back, is counted, not yielded.
"""

import math
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float32

from solvers.base import Snapshot, SolverFailed, SolverKilled
from solvers.config import member_values
from solvers.configs.program import ProgramConfig
from solvers.pdes.base import OneMemberAtATime
from solvers.program.command import find_command, launched_words
from solvers.program.foreign import PIPE, ForeignProgram
from solvers.program.leashed import clean_environment
from solvers.program.petsc_binary import Record, StreamRefused, VectorReader

_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
_OPTIONS_FILE = "options.petscrc"
# Without these the program would write what did not converge as if it were a solution.
_STRICT = {
    "snes_view_solution": ("snes_error_if_not_converged", "snes_converged_reason"),
    "ksp_view_solution": ("ksp_error_if_not_converged", "ksp_converged_reason"),
}


@final
class Program:
    """The solver of ``kind: program``.

    Args:
        config: The program, its options and its stream.
    """

    def __init__(self, config: ProgramConfig) -> None:
        self._config = config
        self.spec, self.max_snapshots = config.spec(), config.max_snapshots
        self._members = OneMemberAtATime()
        self._running: ForeignProgram | None = None

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Start the program, and yield a snapshot for every n-th vector that it writes.

        Args:
            parameters: A value for each of the options.
            comm: A communicator of one rank: the program has its own MPI.

        Raises:
            SolverFailed: The program failed, or its stream is not what was announced.
            SolverKilled: Somebody else has killed it.
            ValueError: Wrong parameter names, a program that is not there, or several ranks.
        """
        values = member_values(self._config.parameters(), parameters)
        if (size := int(getattr(comm, "size", 1))) != 1:
            raise ValueError(
                f"ensemble.mpi_ranks={size}: a program starts its own ranks. Leave it 1, and set "
                f"solver.mpi_ranks to {size}"
            )
        self._stop()
        environment = clean_environment(os.environ, starts=launched_words(self._config)[0])
        command = find_command(self._config, environment["PATH"])
        return self._member(command, values, environment, self._members.begin())

    def close(self) -> None:
        """End the program. Safe to call twice."""
        self._members.begin()
        self._stop()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _member(
        self,
        command: Sequence[str],
        values: Mapping[str, float],
        environment: Mapping[str, str],
        turn: int,
    ) -> Iterator[Snapshot]:
        self._members.check(turn, step=0)
        program = self._running = self._start(command, values, environment)
        series = _Series(self._config)
        try:
            for record in self._records(program):
                snapshot = series.take(record)
                if snapshot is not None:
                    yield snapshot
                    self._members.check(turn, step=snapshot.step + 1)
        except StreamRefused as error:
            program.stop()
            kind = SolverKilled if _killed(program, self._config) else SolverFailed
            raise kind(_story(str(error), program, series)) from error
        except TimeoutError as error:
            program.stop()
            what = (
                f"no vector, and no end, came in step_timeout={self._config.step_timeout:g} s. "
                "Raise it if the program is only slow"
            )
            raise SolverFailed(_story(what, program, series)) from error
        finally:
            program.stop()

    def _records(self, program: ForeignProgram) -> Iterator[Record]:
        """Every vector until the program ends well.

        Raises:
            StreamRefused: What it wrote, or how it ended, makes the member fail.
            TimeoutError: It did not write or end in time.
        """
        config = self._config
        reader = VectorReader(length=config.length, timed=config.timed, most=config.steps + 1)
        # The time that our own receiver takes is not the program's, and bytes that complete no
        # vector prolong nothing.
        left = config.step_timeout
        while True:
            started = time.monotonic()
            data = program.read(deadline=started + left)
            if not data:
                break
            left -= time.monotonic() - started
            for record in reader.feed(data):
                yield record
                left = config.step_timeout
        if program.returncode != 0:
            raise StreamRefused(_ending(program))
        yield from reader.finish()
        if reader.vectors == 0:
            raise StreamRefused(
                f"it ended without a vector: it did not look at -{config.prefix}{config.stream}, "
                "which needs ...SetFromOptions on that object, and its prefix if it has one"
            )

    def _start(
        self, command: Sequence[str], values: Mapping[str, float], environment: Mapping[str, str]
    ) -> ForeignProgram:
        config = self._config
        within = Path(config.path(config.folder) if config.folder else tempfile.gettempdir())
        within.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="headrace-member-", dir=within))
        try:
            options = self._options(values, folder)
            if config.options_by == "file":
                lines = "\n".join(map(shlex.join, options)) + "\n"
                (folder / _OPTIONS_FILE).write_text(lines, encoding="utf-8")
                options = [["-options_file", str(folder / _OPTIONS_FILE)]]
            words = [*command, *(word for option in options for word in option)]
            return ForeignProgram(
                words, folder=folder, keep=config.keep_folders, environment=environment
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _options(self, values: Mapping[str, float], folder: Path) -> list[list[str]]:
        """Later ones win in PETSc: the study's over ours, and nothing over the stream."""
        config = self._config
        options = [config.options[name].words(value) for name, value in values.items()]
        options += [[f"-{config.prefix}{name}"] for name in _STRICT.get(config.stream, ())]
        options.append(shlex.split(config.petsc_options))
        viewer = f"binary:{folder / PIPE}"
        # Both write into the same pipe, one after the other: every vector has its own time.
        monitors = ["ts_monitor", config.stream] if config.timed else [config.stream]
        return [*options, *([f"-{config.prefix}{name}", viewer] for name in monitors)]


@final
class _Series:
    """From vectors to snapshots: layout, every n-th, growing times, finite values."""

    def __init__(self, config: ProgramConfig) -> None:
        self._config = config
        # sorted: z, y, x
        grid = dict(zip(sorted(set(config.axes) - {"c"}, reverse=True), config.grid, strict=True))
        sizes = {"c": len(config.components), **grid}
        self._shape = tuple(sizes[axis] for axis in config.axes)
        self._order = tuple(config.axes.index(axis) for axis in sizes)
        self._snapshots = 0
        self.vectors = 0  # with a time of their own
        self.time = -math.inf

    def take(self, record: Record) -> Snapshot | None:
        """The snapshot of a vector, unless it is not asked for.

        Raises:
            StreamRefused: Its time or a value cannot be.
        """
        now = record.time if record.time is not None else record.number * self._config.dt
        if now == self.time:
            return None
        if not (math.isfinite(now) and now > self.time):
            raise StreamRefused(
                f"vector {record.number} has time {now:g} s after {self.time:g} s, but one member "
                "is one TSSolve forward in time"
            )
        number, self.vectors, self.time = self.vectors, self.vectors + 1, now
        if number % self._config.every:
            return None
        snapshot = Snapshot(self._snapshots, now, self._fields(record))
        self._snapshots += 1
        return snapshot

    def _fields(self, record: Record) -> Float32[np.ndarray, " channel *grid"]:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and refused
            whole = record.values.reshape(self._shape).transpose(self._order)
            fields = whole.astype(np.float32, order="C")
        if not np.isfinite(fields).all():
            wrong = int(np.count_nonzero(~np.isfinite(fields)))
            raise StreamRefused(
                f"field is not finite in vector {record.number}: {wrong} of {fields.size} values "
                "are NaN, infinite or beyond float32"
            )
        return fields


def _story(what: str, program: ForeignProgram, series: _Series) -> str:
    """Why a member failed, for a person who has only this."""
    where = f"{series.vectors} vectors" + (
        f", the last of time {series.time:g} s" if series.vectors else ""
    )
    reason = f" PETSc: {program.output.reason}." if program.output.reason is not None else ""
    return f"program failed after {where}: {what}.{reason} Its last lines:\n{program.output}"


def _killed(program: ForeignProgram, config: ProgramConfig) -> bool:
    """Whether it was ended by a signal that no program sends to itself by a fault."""
    code = program.returncode
    if code is None or code < 0:  # the leash
        return code is not None
    # A launcher ends with the bare number of the signal that has killed one of its ranks.
    return code - 128 in _FROM_OUTSIDE or (config.mpi_ranks > 1 and code in _FROM_OUTSIDE)


def _ending(program: ForeignProgram) -> str:
    code = program.returncode
    if code is not None and code < 0:
        return "it was killed together with what watches over it"
    killed = f" (signal {code - 128})" if code is not None and 128 < code < 160 else ""
    return f"it ended with status {code}{killed}"
