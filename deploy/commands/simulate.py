"""Shows one member of a study: its parameters, its snapshots in figures, and as pictures.

1. The member is the one that ``headrace run`` would simulate under that number.
2. What is printed is bounded: ``TABLE_ROWS`` lines, evenly spaced, the first and the last included.
3. A picture is not overwritten, which is said before the simulation starts; a member that fails
   leaves the pictures of what there was.
"""

import itertools
import math
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deploy import figures
from deploy.cluster import machine
from deploy.speaking import say
from pipeline.errors import ConfigError, StudyFailed
from pipeline.members.one_member import built, parameters_of
from pipeline.study.config import StudyConfig
from pipeline.study.problems import counted
from solvers.base import Parameter, Snapshot, SolverBug, SolverFailed
from trainers.surrogate.card import shown_unit

if TYPE_CHECKING:
    from deploy.commands.strips import Member

TABLE_ROWS = 21


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Which pictures to leave.

    Attributes:
        folder: Where.
        plot: A strip of snapshots as PNG.
        animate: A film as GIF.
    """

    folder: Path
    plot: bool
    animate: bool

    def paths(self, name: str, member: int) -> dict[str, Path]:
        """The files to write, by kind: new ones, numbered where there are pictures already."""
        kinds = [kind for kind, asked in (("png", self.plot), ("gif", self.animate)) if asked]
        stem = f"{name}-member-{member}"
        for number in itertools.count(1):
            suffix = "" if number == 1 else f"-{number}"
            paths = {kind: self.folder / f"{stem}{suffix}.{kind}" for kind in kinds}
            if not any(path.exists() for path in paths.values()):
                break
        return paths


def simulate(study: StudyConfig, member: int, pictures: Pictures) -> None:
    """Run one member in this process, and show it.

    Raises:
        ConfigError: There is no such member, or the solver cannot be built
            or has no program.
        StudyFailed: The member failed; after the figures and pictures of what there was.
    """
    values = parameters_of(study, member)
    if found := machine.program_problems(study):
        raise ConfigError(found)
    paths = pictures.paths(study.name, member)
    if pictures.animate and math.prod(study.solver.spec().shape) == 1:
        line = f"--animate: {study.solver.kind} has a single point, and no field. Take --plot"
        raise ConfigError([line])
    part = "validation" if member < study.ensemble.validation else "training"
    heading = f"{study.name}, member {member} ({part})"
    sys.stdout.write(f"{heading}, solver {study.solver.kind}\n\n")
    announced = study.solver.parameters()
    sys.stdout.writelines(line + "\n" for line in _parameter_lines(announced, values))
    title = f"{heading}\n{_in_one_line(announced, values)}"
    drawn: Member | None = None
    if paths:
        from deploy.commands import strips  # drawing loads slowly: only who asks for pictures waits

        drawn = strips.Member(study.solver.spec(), study.solver.max_snapshots, title)
    rows, failure = _follow(study, values, drawn)
    sys.stdout.writelines(line + "\n" for line in _course_lines(study, rows))
    if drawn is not None and rows:
        pictures.folder.mkdir(parents=True, exist_ok=True)
        writers = {"png": strips.write_strip, "gif": strips.write_film}
        for kind, path in paths.items():
            writers[kind](drawn, path)
            sys.stdout.write(f"wrote {path}\n")
    if failure is not None:
        if isinstance(failure, SolverBug) and failure.story:
            say(textwrap.indent(failure.story.rstrip(), "    "))
        raise StudyFailed(f"member {member}: {failure}")


class _Row(NamedTuple):
    """One snapshot in figures."""

    step: int
    time: float
    seconds: float  # that it took, from the last one on
    iterations: int
    refused: int
    ranges: tuple[tuple[float, float, float], ...]  # min, mean, max of each channel


def _follow(
    study: StudyConfig, values: Mapping[str, float], drawn: "Member | None"
) -> tuple[list[_Row], SolverFailed | None]:
    """Run the member to its end or to its failure."""
    rows: list[_Row] = []
    with built(study.solver) as (solver, comm):
        before = time.perf_counter()
        try:
            for snapshot in solver.run(values, comm):
                rows.append(_row(snapshot, time.perf_counter() - before))
                if drawn is not None:
                    drawn.add(snapshot)
                before = time.perf_counter()
        except SolverFailed as error:
            return rows, error
    return rows, None


def _row(snapshot: Snapshot, seconds: float) -> _Row:
    flat = snapshot.fields.reshape(len(snapshot.fields), -1)
    columns = (flat.min(axis=1), flat.mean(axis=1, dtype=np.float64), flat.max(axis=1))
    return _Row(
        snapshot.step,
        snapshot.time,
        seconds,
        snapshot.iterations,
        snapshot.refused,
        tuple((float(a), float(b), float(c)) for a, b, c in zip(*columns, strict=True)),
    )


def _parameter_lines(announced: Sequence[Parameter], values: Mapping[str, float]) -> Iterator[str]:
    rows = [(one.name, f"{values[one.name]:.6g}", shown_unit(one.unit)) for one in announced]
    lines = _aligned([("parameter", "value", "unit"), *rows])
    whats = ("what it is", *(one.description for one in announced))
    yield from (f"{line}  {what}" for line, what in zip(lines, whats, strict=True))
    yield ""


def _in_one_line(announced: Sequence[Parameter], values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{one.name} = {values[one.name]:.4g} {shown_unit(one.unit)}".rstrip() for one in announced
    )


def _course_lines(study: StudyConfig, rows: Sequence[_Row]) -> Iterator[str]:
    spec = study.solver.spec()
    solved = any(row.iterations or row.refused for row in rows)
    header = ["step", "time / s", "seconds", *(("iterations", "refused") if solved else ())]
    for name, unit in zip(spec.names, spec.units, strict=True):
        header += [f"{name} min", "mean", figures.labelled("max", unit)]
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), TABLE_ROWS)).round().astype(int))
    table: list[Sequence[str]] = [header]
    start = 0
    for place in map(int, shown):
        since = rows[start : place + 1]  # what lies between two lines is summed up in the second
        start = place + 1
        cells = [str(since[-1].step), f"{since[-1].time:g}", f"{sum(r.seconds for r in since):.3g}"]
        if solved:
            cells += [str(sum(r.iterations for r in since)), str(sum(r.refused for r in since))]
        table.append([*cells, *(f"{value:.5g}" for three in since[-1].ranges for value in three)])
    yield from _aligned(table)
    yield ""
    total = sum(row.seconds for row in rows)
    summed = ": figures of the steps between two lines are summed" if len(shown) < len(rows) else ""
    yield f"{counted(len(rows), 'snapshot')} in {total:.3g} s{summed}"


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
