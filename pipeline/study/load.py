"""Reads a study from YAML or from plain dicts, and lists every error in it at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.study.checks import study_problems
from pipeline.study.config import StudyConfig
from pipeline.study.design_csv import read_rows
from pipeline.study.known_keys import node_at, without
from pipeline.study.problems import from_validation
from pipeline.study.sections import CsvDesign
from pipeline.study.source import take_members, with_sections
from pipeline.study.unchecked import PartialStudy, SectionMissing, UncheckedStudy
from pipeline.study.yaml_values import YamlProblem, parse_yaml, set_values
from solvers.own.announce import with_announcement
from solvers.own.load import Unusable
from trainers.configs.model_checks import own_model_problems
from trainers.configs.models import OwnModelConfig


def load(path: Path | str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study.

    Args:
        path: YAML file. Paths in it are relative to its folder.
        overrides: ``"a.b=c"``, applied in order; ``c`` is read as YAML.

    Raises:
        ConfigError: With every error of the file.
    """
    path = Path(path)
    tree = _read(path)
    set_values(tree, overrides)
    return parse(tree, folder=path.parent)


def check(path: Path | str, overrides: Sequence[str] = ()) -> list[str]:
    """Read a study, and say what it allows, but probably does not mean.

    Raises:
        ConfigError: With every error of the file.
    """
    return load(path, overrides).warnings()


def parse(tree: Mapping[str, Any], *, folder: Path | str = ".") -> StudyConfig:
    """Make a study of plain dicts and lists, as YAML has them.

    Args:
        tree: The sections of a study.
        folder: What relative paths are relative to.

    Raises:
        ConfigError: With every error.
    """
    folder = Path(folder).resolve()
    tree = _with_absolute_paths(tree, folder)
    for complete, unknown in ((_with_own_solver, {"solver"}), (_with_source, {"source", "solver"})):
        try:
            tree = complete(tree, folder)
        except ConfigError as error:
            rest = {name: each for name, each in tree.items() if name not in unknown}
            raise ConfigError(error.problems + _problems_besides_solver(rest)) from None
    study = _checked(tree)
    if study.source is not None:
        source, found = take_members(study)
        if found:
            raise ConfigError(found)
        study = study.model_copy(update={"source": source})
    return study


def _checked(tree: Mapping[str, Any]) -> StudyConfig:
    """A study of which nothing is left to be filled in.

    Raises:
        ConfigError: With every error, but for what its record may not have.
    """
    right, repaired = _partial_studies(tree)
    files = list(_file_problems(right, repaired))
    try:
        study = StudyConfig.model_validate(tree, strict=True)
    except ValidationError as error:
        found = from_validation(error, tree, StudyConfig) + study_problems(right, repaired)
        raise ConfigError(found + files) from None
    except ConfigError as error:
        raise ConfigError(error.problems + files) from None
    if files:
        raise ConfigError(files)
    return study


def _problems_besides_solver(rest: Mapping[str, Any]) -> list[str]:
    """What is wrong with a study that has no solver, besides that."""
    try:
        _checked(rest)
    except ConfigError as error:
        return [line for line in error.problems if not line.startswith("solver=")]
    return []


def _with_own_solver(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same study with what a solver of the user's own announces, where it has one.

    Raises:
        ConfigError: With everything that is wrong with that solver.
    """
    solver = tree.get("solver")
    if isinstance(solver, str) and ".py" in solver:
        solver = {"path": solver}
    if not isinstance(solver, dict):
        return tree
    if solver.get("kind", "own" if "path" in solver else "") != "own":
        return tree
    try:
        return {**tree, "solver": as_tuples(with_announcement(solver, folder))}
    except Unusable as error:
        raise ConfigError(error.problems) from None


def _with_source(tree: dict[str, Any], _: Path) -> dict[str, Any]:
    """The same study with what it leaves to a record, where it has one.

    Raises:
        ConfigError: There is no record, or one of another solver.
    """
    record = node_at(("source", "record"), tree)
    if not isinstance(record, Path):
        return tree
    return {name: as_tuples(section) for name, section in with_sections(tree, record).items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be read ({error.strerror}). `headrace init` writes a study"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8 text"]
        ) from None
    except YamlProblem as error:
        raise ConfigError([f"{path}: {error}"]) from None
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else f"a {type(tree).__name__}"
        remedy = "a study is made of sections (name:, solver:, ...). `headrace init` writes one"
        raise ConfigError([f"{path}: holds {kind}, but {remedy}"])
    return tree


_PATHS: tuple[tuple[tuple[str, ...], type[Path | str]], ...] = (
    (("ensemble", "design", "csv"), Path),
    (("source", "record"), Path),
    (("trainer", "model", "path"), str),
)


def _with_absolute_paths(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A copy with absolute paths: Ray's workers have another working directory."""
    changed: dict[str, Any] = {key: as_tuples(value) for key, value in tree.items()}
    paths = _PATHS
    if node_at(("solver", "kind"), changed) == "program":
        changed["solver"].setdefault("root", ".")
        paths = (*paths, (("solver", "root"), str))
    for (*section, key), kind in paths:
        node = node_at(tuple(section), changed)
        path = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and isinstance(path, str | Path):
            node[key] = kind(folder / Path(path).expanduser())
    return changed


def as_tuples(value: object) -> object:
    """Lists as tuples: strict validation takes no list for the tuples of a frozen model."""
    if isinstance(value, dict):
        return {key: as_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(as_tuples(inner) for inner in value)
    return value


_SECTIONS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(hint)
    for name, hint in get_type_hints(UncheckedStudy, include_extras=True).items()
    if name in UncheckedStudy.model_fields
}
# Sections that others are held against where some of their values are wrong; their least values.
_REPAIRED: dict[str, dict[str, Any]] = {"solver": {}, "ensemble": {"members": 1}, "trainer": {}}


def _partial_studies(tree: Mapping[str, Any]) -> tuple[PartialStudy, PartialStudy]:
    """What ``study_problems`` takes: the sections that are right, and all that can be repaired."""
    right: dict[str, Any] = {}
    repaired: dict[str, Any] = {}
    for name, adapter in _SECTIONS.items():
        field = UncheckedStudy.model_fields[name]
        default = {} if field.is_required() else field.get_default(call_default_factory=True)
        section = tree.get(name, default)
        try:
            right[name] = adapter.validate_python(section, strict=True)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                section = without(section, details["loc"])
            if name in _REPAIRED and isinstance(section, Mapping):
                with suppress(ValidationError):
                    section = {**_REPAIRED[name], **section}
                    repaired[name] = adapter.validate_python(section, strict=True)
    if isinstance(given := tree.get("parameters", {}), dict):
        repaired["parameters"] = given
    return PartialStudy.of(right), PartialStudy.of(right | repaired)


def _file_problems(right: PartialStudy, repaired: PartialStudy) -> Iterator[str]:
    """What is wrong with the files that a study names."""
    with suppress(SectionMissing):
        ensemble = right.ensemble
        if isinstance(ensemble.design, CsvDesign) and right.source is None:
            rows = ensemble.members + ensemble.validation
            names = repaired.parameter_names
            yield from read_rows(ensemble.design.csv, names, right.parameters, rows)[1]
    with suppress(SectionMissing):
        if isinstance(repaired.trainer.model, OwnModelConfig):
            for line in own_model_problems(repaired.trainer.model):
                yield f"trainer.model.{line}"
