"""A class in your own Python file: twenty lines around a petsc4py TS that you already have.

Equation:    yours. Domain, boundary conditions, scheme and stability are your own, too.
Class:       has parameters (a list of solvers.base.Parameter), spec (a solvers.base.FieldSpec),
             steps and dt, and a method run(parameters, comm) that yields snapshots:
             `yield from solvers.stepping.stream(ts)`. docs/own_solver.md shows one.
             Instead of steps and dt it may say max_snapshots and end_time. A method close() is
             called at the end, where there is one.
Settings:    every other key of the section is an argument of its __init__.
Loading:     when a study is checked, the file runs once in a process of its own; then in every
             solver process. PETSc may be imported at its top, or inside run() so that a study can
             be checked where there is no PETSc. Files beside it can be imported.
Order:       yours. What is added is one rounding to float32.
Behaviour:   a snapshot of another shape, out of order or not finite ends the member, and so does
             one that does not come, unless the class says max_snapshots, which is the most. So
             does an exception, which is shown with its line in your file; the same parameters would
             raise it again, so there is no second attempt, but for OSError and MemoryError.
Good values: steps so that snapshots differ by more than a rounding.
Source:      docs/own_solver.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

import numpy as np

from solvers.base import Snapshot, SolverBug, SolverFailed
from solvers.config import member_values
from solvers.configs.own import OwnConfig
from solvers.own.ask import announced
from solvers.own.load import Unusable, load_class, make, user_part
from solvers.petsc import PETSc, last_line, require_finite

# Another try may go well: a full disk, a licence server, memory that others use.
_PASSING = (OSError, MemoryError)
# Of the last time: steps of dt are summed up with rounding.
_TIME_TOLERANCE = 1e-6


@final
class Own:
    """The solver of ``kind: own``: runs somebody's class, and holds it to its announcement.

    Args:
        config: With what the class announced when the study was checked.

    Raises:
        ValueError: The file has changed since then, or is wrong here.
    """

    def __init__(self, config: OwnConfig) -> None:
        self._config = config
        self.spec, self.max_snapshots = config.spec(), config.max_snapshots
        try:
            self._made = make(load_class(config.file, config.class_), config.settings, config.file)
            now = announced(self._made, config.settings, config.file)
        except Unusable as error:
            raise ValueError(str(error)) from error
        if now != config.announced:
            raise ValueError(
                f"{config.path}: {config.class_} announces something else than when the study was "
                "checked. Leave the file alone while a study starts, and start it again"
            )

    def run(self, parameters: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        """Yield the class's own snapshots, each checked.

        Raises:
            SolverFailed: The member cannot be completed; ``SolverBug`` for a Python exception.
            ValueError: Wrong parameter names.
        """
        return self._member(member_values(self._config.parameters(), parameters), comm)

    def close(self) -> None:
        """Close what the class holds. Safe to call twice."""
        made, self._made = self._made, None
        close = getattr(made, "close", None)
        if close is not None:
            close()

    def _member(self, values: Mapping[str, float], comm: object) -> Iterator[Snapshot]:
        if self._made is None:
            raise RuntimeError(f"{self._config.class_}: this solver was closed")
        theirs: Iterator[Any] | None = None
        expected, before = 0, -np.inf
        try:
            theirs = self._begun(self._made.run(values, comm))
            for given in theirs:
                snapshot = self._checked(given, expected, before)
                expected, before = snapshot.step + 1, snapshot.time
                yield snapshot
        except (SolverFailed, GeneratorExit):
            raise
        except PETSc.Error as error:
            raise self._petsc_failed(error, expected) from error
        except (Exception, SystemExit) as error:
            raise self._bug(error, expected) from error
        finally:
            # What is left of a member that is given up half way goes now, not some time.
            if theirs is not None and hasattr(theirs, "close"):
                theirs.close()
        # Of max_snapshots fewer may come: that is what the class says at most.
        least = 1 if hasattr(self._made, "max_snapshots") else self.max_snapshots
        if expected < least:
            raise SolverBug(
                f"{self._config.class_}.run yielded only {expected} of the {self.max_snapshots} "
                "snapshots that it announced. The initial state comes first, then a snapshot for "
                "each step. Yield the others, lower steps, or say max_snapshots instead of steps"
            )

    def _begun(self, returned: object) -> Iterator[Any]:
        """What ``run`` gave, when it is something that yields."""
        if isinstance(returned, Iterable) and not isinstance(returned, tuple):
            return iter(returned)
        raise SolverBug(
            f"{self._config.class_}.run returned a {type(returned).__name__}, but must yield "
            "snapshots. Write 'yield from stream(ts)', or 'yield' before each snapshot"
        )

    def _checked(self, given: object, step: int, before: float) -> Snapshot:
        """What the class yielded, when it is what it announced."""
        run = f"{self._config.class_}.run yielded"
        if not isinstance(given, Snapshot):
            raise SolverBug(
                f"{run} a {type(given).__name__}, not a solvers.base.Snapshot(step, time, fields). "
                "Write 'yield from stream(ts)', with stream from solvers.stepping"
            )
        fields = np.asarray(given.fields)
        if fields.shape != self.spec.sample_shape:
            raise SolverBug(
                f"{run} fields of shape {fields.shape} in snapshot {step}, but its spec announces "
                f"(channel, *grid) = {self.spec.sample_shape}. Make the two agree"
            )
        if given.step != step or not given.time > before:
            raise SolverBug(
                f"{run} step {given.step} and time {given.time:g} s after time {before:g} s, but "
                f"steps are 0, 1, 2, ... (now {step}), and times grow. Number them so"
            )
        if step >= self.max_snapshots:
            raise SolverBug(
                f"{run} more than the {self.max_snapshots} snapshots that it announced (the "
                "initial state, and one for each of its steps). Raise steps, or stop earlier"
            )
        if given.time > (1.0 + _TIME_TOLERANCE) * self._config.end_time:
            raise SolverBug(
                f"{run} time {given.time:g} s in snapshot {step}, but announced "
                f"{self._config.end_time:g} s as the last (steps * dt, or end_time). Does the TS "
                "choose its own steps, as rk does? Give it equal ones: "
                "PETSc.Options()['ts_adapt_type'] = 'none' before ts.setFromOptions()"
            )
        require_finite(fields.astype(np.float64), step=step, time=given.time)
        return given._replace(fields=np.array(fields, np.float32, order="C"))

    def _petsc_failed(self, error: PETSc.Error, step: int) -> SolverFailed:
        """PETSc gave up, unless it was one of the class's own callbacks that raised."""
        raised = error.__cause__
        if isinstance(raised, Exception):
            return self._bug(raised, step)
        what, _ = user_part(error, self._config.file)
        where = what.rpartition(" (")[2] if what.endswith(")") else ""
        line = f"PETSc failed at snapshot {step}: {last_line(error)}"
        return SolverFailed(f"{line} ({where}" if where else line)

    def _bug(self, error: BaseException, step: int) -> SolverBug:
        what, story = user_part(error, self._config.file)
        return SolverBug(
            f"{self._config.class_} raised at snapshot {step}: {what}",
            story=story,
            passing=isinstance(error, _PASSING),
        )
