"""Asks an object of somebody's own class what it simulates, before anything runs.

The class (``docs/own_solver.md``) has ``parameters``, ``spec``, ``steps`` and ``dt`` (or, instead
of these two, ``max_snapshots`` and ``end_time``), and a method ``run(parameters, comm)``.

1. All that is missing or wrong is said at once, with the file, the class's line and an example.
"""

import ast
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from solvers.base import FieldSpec, Parameter
from solvers.configs.own import Announced, AnnouncedParameter
from solvers.own.load import Unusable, arguments_of

_PARAMETERS = "a list of solvers.base.Parameter"
_EXAMPLES = {
    "parameters": 'parameters = [Parameter(name="speed", unit="m/s", low=0.5, high=2.0, '
    'description="of the wave")]',
    "spec": 'self.spec = FieldSpec(names=("u",), units=("1",), shape=(64,), spacing=(0.1,))',
    "steps": "self.steps = 100",
    "max_snapshots": "self.max_snapshots = 101",
    "dt": "self.dt = 0.01",
    "end_time": "self.end_time = 1.0",
    "run": "def run(self, parameters, comm): ... yield from stream(ts)",
}
_FIELDS = tuple(AnnouncedParameter.model_fields)


def announced(made: object, settings: Mapping[str, Any], file: Path) -> Announced:
    """What an object says of itself.

    Raises:
        Unusable: An attribute is missing or wrong.
    """
    asked = _Asked(made, file)
    parameters, spec, (most, end) = asked.parameters(), asked.spec(), asked.extent()
    asked.run()
    if asked.problems or spec is None:
        raise Unusable(asked.problems)
    return Announced(
        about=inspect.getdoc(type(made)) or f"{type(made).__name__} has no docstring.",
        settings=_effective(type(made), settings),
        parameters=parameters,
        names=spec.names,
        units=spec.units,
        shape=tuple(int(points) for points in spec.shape),
        spacing=tuple(float(step) for step in spec.spacing),
        inputs=spec.inputs,
        max_snapshots=most,
        end_time=end,
    )


@final
class _Asked:
    """Reads attributes, and keeps what is wrong with them."""

    def __init__(self, made: object, file: Path) -> None:
        self._made, self._file, self._name = made, file, type(made).__name__
        found = _class_in(type(made), file)
        self._where = f"{file}:{1 if found is None else found.lineno}"
        self.problems: list[str] = []

    def parameters(self) -> tuple[AnnouncedParameter, ...]:
        found = []
        for each in self._get("parameters", (list, tuple), _PARAMETERS) or ():
            if not isinstance(each, Parameter):
                self._wrong("parameters", each, _PARAMETERS)
                return ()
            if not each.low <= each.high:  # written so that NaN is refused too
                self._wrong("parameters", each, "made with low <= high")
                return ()
            found.append(AnnouncedParameter(**{name: getattr(each, name) for name in _FIELDS}))
        names = [each.name for each in found]
        if len(set(names)) < len(names):
            self._wrong("parameters", names, "a list in which no name stands twice")
        return tuple(found)

    def spec(self) -> FieldSpec | None:
        spec: FieldSpec | None = self._get("spec", (FieldSpec,), "a solvers.base.FieldSpec")
        if spec is None:
            return None
        if not 1 <= len(spec.shape) <= 3 or min(spec.shape) < 1:
            self._wrong("spec", spec.shape, "of 1 to 3 axes with at least 1 point each")
        if not all(step > 0 for step in spec.spacing):
            self._wrong("spec", spec.spacing, "of positive spacings [m]")
        if not spec.names:
            self._wrong("spec", spec.names, "of at least one channel")
        return spec

    def extent(self) -> tuple[int, float]:
        """Snapshots of a member, and the time of the last one."""
        count = "max_snapshots" if hasattr(self._made, "max_snapshots") else "steps"
        time = "end_time" if hasattr(self._made, "end_time") else "dt"
        given = self._get(count, (int,), "a whole number of at least 1", lambda n: n >= 1)
        seconds = self._get(
            time, (int, float), "a number of seconds above 0", lambda s: 0 < s < math.inf
        )
        if given is None or seconds is None:
            return 1, 1.0
        most = int(given) + (count == "steps")
        return most, float(seconds) if time == "end_time" else seconds * max(1, most - 1)

    def run(self) -> None:
        run = getattr(self._made, "run", None)
        try:
            inspect.signature(run).bind({}, None)  # type: ignore[arg-type]  # None raises as well
        except TypeError:
            self._wrong("run", run, "a method that takes (parameters, comm) and yields snapshots")
            return
        if _gives_nothing(type(self._made), self._file):
            self.problems.append(
                f"{self._where}: {self._name}.run has no 'yield', so no snapshot ever comes. Write "
                "'yield from stream(ts)', or 'yield' before each snapshot"
            )

    def _get(
        self,
        name: str,
        types: tuple[type, ...],
        what: str,
        fits: Callable[[Any], bool] = lambda value: True,
    ) -> Any:  # noqa: ANN401 - theirs
        if not hasattr(self._made, name):
            self.problems.append(
                f"{self._where}: class {self._name} has no {name!r}, {what}. Write for example "
                f"'{_EXAMPLES[name]}'"
            )
            return None
        value = getattr(self._made, name)
        if isinstance(value, types) and not isinstance(value, bool) and fits(value):
            return value
        self._wrong(name, value, what)
        return None

    def _wrong(self, name: str, value: object, what: str) -> None:
        self.problems.append(
            f"{self._where}: {self._name}.{name}={value!r:.80}: must be {what}. Write for example "
            f"'{_EXAMPLES[name]}'"
        )


def _class_in(cls: type, file: Path) -> ast.ClassDef | None:
    """The text of a class; None where another file defines it."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            return node
    return None


def _gives_nothing(cls: type, file: Path) -> bool:
    """Whether the method ``run`` of a class neither yields nor returns anything."""
    found = _class_in(cls, file)
    for method in found.body if found is not None else ():
        if isinstance(method, ast.FunctionDef) and method.name == "run":
            inner = list(ast.walk(method))
            returns = any(isinstance(node, ast.Return) and node.value for node in inner)
            return not returns and not any(
                isinstance(node, ast.Yield | ast.YieldFrom) for node in inner
            )
    return False


def _effective(cls: type, settings: Mapping[str, Any]) -> dict[str, str]:
    """Every setting with its value, defaults included."""
    defaults = {
        name: repr(argument.default)
        for name, argument in arguments_of(cls)[0].items()
        if argument.default is not argument.empty
    }
    return defaults | {name: repr(value) for name, value in settings.items()}
