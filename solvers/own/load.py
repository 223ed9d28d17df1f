"""Loads a class from somebody's own Python file, and makes an object of it.

A study's settings are the arguments of the class's ``__init__``.

1. Nothing heavy is imported here; what the file imports is its own affair.
2. The file is loaded under a name that no other module has; its folder comes last on ``sys.path``,
   so that its siblings are found and hide nothing.
3. Everything that is wrong raises ``Unusable`` with the file, the line and what to write.
4. A setting reaches ``__init__`` only under a name that it has, and with the type annotated there.
"""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import json
import sys
import traceback
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from solvers.configs.own import OWN_KEYS

_MAX_MESSAGE = 500


class Unusable(Exception):
    """A file or a class that cannot be a solver.

    Attributes:
        problems: One line per error, each with the key of the study, or the file and its line.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


def load_class(file: Path, name: str) -> type[Any]:
    """The class ``name`` of ``file``, which is run to find it.

    Raises:
        Unusable: There is no such file or class, or the file cannot be run.
    """
    _check_source(file, name)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"headrace_own_{digest}_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise Unusable([f"solver.path={file}: is no Python file. Name one that ends in .py"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look it up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise Unusable([_while_loading(error, file)]) from error
    return typing.cast("type[Any]", getattr(module, name))


def _check_source(file: Path, name: str) -> None:
    """What can be said of the file without running it."""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except OSError as error:
        line = f"solver.path={file}: cannot be read ({error.strerror}). Correct the path"
        raise Unusable([line]) from None
    except (SyntaxError, ValueError) as error:
        where = f"{file}:{getattr(error, 'lineno', 1)}"
        raise Unusable(
            [f"{where}: SyntaxError: {getattr(error, 'msg', error)}. Correct it"]
        ) from None
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assigned = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    if name not in classes and name not in assigned:
        there = f"It has {', '.join(classes)}. " if classes else "It has no class at all. "
        line = f"solver.class={name}: {file} has no such class. {there}Choose or write one"
        raise Unusable([line])


def make(cls: type[Any], settings: Mapping[str, Any], file: Path) -> Any:  # noqa: ANN401 - theirs
    """An object of the class with the study's settings.

    Raises:
        Unusable: A setting is unknown, missing or of the wrong type, or ``__init__`` raised.
    """
    values = _checked_settings(cls, settings)
    try:
        return cls(**values)
    except (Exception, SystemExit) as error:
        what, _ = user_part(error, file)
        line = f"solver: {cls.__name__}({_written(settings)}) cannot be made: {what}. Correct it"
        raise Unusable([line]) from error


def _checked_settings(cls: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    known, open_ended = arguments_of(cls)
    if settings.keys() & set(OWN_KEYS):
        open_ended = False
    problems = []
    values = {}
    for name, value in settings.items():
        if name not in known and not open_ended:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            names = ", ".join(("path", "class", *known))
            problems.append(
                f"solver.{name}={json.dumps(value, default=str)}: unknown key. {hint}Known keys of "
                f"solver: {names}. Rename or remove it, or add it to {cls.__name__}.__init__"
            )
            continue
        try:
            values[name] = _typed(cls, name, value)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            problems.append(
                f"solver.{name}={json.dumps(value, default=str)}: wrong type for "
                f"{cls.__name__}.__init__({known[name]}). {said}"
            )
    problems += [
        f"solver.{name}=nothing: required by {cls.__name__}.__init__, but missing. Add '{name}: ..."
        f"' to the study, or a default value to __init__"
        for name, argument in known.items()
        if argument.default is argument.empty and name not in settings
    ]
    problems += [
        f"solver.{name}: {cls.__name__}.__init__ cannot have a setting of that name, because "
        f"a study says {', '.join(OWN_KEYS)} of every solver. Rename it"
        for name in known.keys() & set(OWN_KEYS)
    ]
    if problems:
        raise Unusable(problems)
    return values


def arguments_of(cls: type[Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The arguments of ``__init__`` by name, and whether it takes any others."""
    if cls.__init__ is object.__init__:
        return {}, False
    arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
    kinds = inspect.Parameter
    named = {
        argument.name: argument
        for argument in arguments
        if argument.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    return named, any(argument.kind is kinds.VAR_KEYWORD for argument in arguments)


def _typed(cls: type[Any], name: str, value: object) -> object:
    """The value as the annotation wants it: YAML knows no tuples."""
    try:
        annotation = typing.get_type_hints(cls.__init__, include_extras=True).get(name)
        if annotation is None:
            return value
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return value  # an annotation for readers only


def user_part(error: BaseException, file: Path) -> tuple[str, str]:
    """What happened and where, in one line; and the traceback through the user's own files."""
    message = str(error).strip().partition("\n")[0][:_MAX_MESSAGE]
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame
        for frame in frames
        if Path(frame.filename).is_relative_to(file.parent)
        and "site-packages" not in frame.filename
    ]
    if not theirs:
        return what, "".join(traceback.format_list(frames[-3:])) + what
    last = theirs[-1]
    shown = "".join(traceback.format_list(theirs))
    return f"{what} ({last.filename}:{last.lineno}, in {last.name})", shown + what


def _while_loading(error: BaseException, file: Path) -> str:
    what, _ = user_part(error, file)
    if isinstance(error, ModuleNotFoundError) and error.name in ("petsc4py", "mpi4py"):
        remedy = "It is not installed here: import it inside run(), or check the study where it is"
    else:
        remedy = "Correct it"
    return f"solver.path={file}: cannot be loaded: {what}. {remedy}"


def _written(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.40}" for name, value in settings.items())
