"""Reads a study from YAML or from plain dicts, and lists every error in it at once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.study import checks
from pipeline.study.config import StudyConfig
from pipeline.study.design_csv import read_rows
from pipeline.study.distributions import Distribution
from pipeline.study.known_keys import without
from pipeline.study.problems import from_validation
from pipeline.study.sections import (
    CsvDesign,
    EnsembleConfig,
    ReservoirConfig,
    SourceConfig,
    StreamConfig,
)
from pipeline.study.source import taken, with_sections
from pipeline.study.yaml_values import YamlProblem, parse_yaml, set_values
from solvers.config import SolverConfig
from solvers.own.announce import with_announcement
from solvers.own.load import Unusable
from trainers.config import TrainerConfig
from trainers.configs.model_checks import own_model_problems


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
    try:
        tree = _with_own_solver(tree, folder)
    except Unusable as error:
        rest = {name: section for name, section in tree.items() if name != "solver"}
        raise ConfigError(error.problems + _problems_of(rest)) from None
    try:
        tree = _with_source(tree)
    except ConfigError as error:
        lines = [f"source.record={line}" for line in error.problems]
        rest = {name: each for name, each in tree.items() if name not in ("source", "solver")}
        raise ConfigError(lines + _problems_of(rest)) from None
    try:
        study = StudyConfig.model_validate(tree, strict=True)
    except ValidationError as error:
        sections = _sections_of(tree)
        found = from_validation(error, tree, StudyConfig) + checks.problems(sections)
        raise ConfigError(found + _file_problems(sections)) from None
    except ConfigError as error:
        raise ConfigError(error.problems + _file_problems(_sections_of(tree))) from None
    found = _file_problems(_sections_of(tree))
    if study.source is not None:
        source, lines = taken(study)
        study = study.model_copy(update={"source": source})
        found += lines
    if found:
        raise ConfigError(found)
    return study


def _with_source(tree: dict[str, Any]) -> dict[str, Any]:
    """The same study with what it leaves to a record, where it has one."""
    source = tree.get("source")
    record = source.get("record") if isinstance(source, dict) else None
    if not isinstance(record, str | Path):
        return tree
    return {name: as_tuples(section) for name, section in with_sections(tree, Path(record)).items()}


def _with_own_solver(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same study with what a solver of the user's own announces, where it has one.

    Raises:
        Unusable: With everything that is wrong with that solver.
    """
    solver = tree.get("solver")
    if isinstance(solver, str) and ".py" in solver:
        solver = {"path": solver}
    if not isinstance(solver, dict):
        return tree
    if solver.get("kind", "own" if "path" in solver else "") != "own":
        return tree
    return {**tree, "solver": as_tuples(with_announcement(solver, folder))}


def _problems_of(rest: Mapping[str, Any]) -> list[str]:
    """What is wrong with a study that has no solver, besides that."""
    try:
        StudyConfig.model_validate(rest, strict=True)
    except ValidationError as error:
        found = from_validation(error, rest, StudyConfig) + checks.problems(_sections_of(rest))
        return [line for line in found if not line.startswith("solver=")]
    return []


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


def _with_absolute_paths(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same study with absolute paths: Ray's workers have another working directory."""
    changed = {key: as_tuples(value) for key, value in tree.items()}
    ensemble = changed.get("ensemble")
    design = ensemble.get("design") if isinstance(ensemble, dict) else None
    if isinstance(ensemble, dict) and isinstance(design, dict):
        csv = design.get("csv")
        if isinstance(csv, str | Path):
            design = {**design, "csv": folder / Path(csv).expanduser()}
            changed["ensemble"] = {**ensemble, "design": design}
    source = changed.get("source")
    if isinstance(source, dict) and isinstance(source.get("record"), str | Path):
        record = folder / Path(source["record"]).expanduser()
        changed["source"] = {**source, "record": record}
    solver = changed.get("solver")
    if isinstance(solver, dict) and solver.get("kind") == "program":
        root = solver.get("root", ".")
        if isinstance(root, str):
            changed["solver"] = {**solver, "root": str(folder / Path(root).expanduser())}
    trainer = changed.get("trainer")
    model = trainer.get("model") if isinstance(trainer, dict) else None
    if isinstance(trainer, dict) and isinstance(model, dict) and isinstance(model.get("path"), str):
        model = {**model, "path": str(folder / Path(model["path"]).expanduser())}
        changed["trainer"] = {**trainer, "model": model}
    return changed


def as_tuples(value: object) -> object:
    """Lists as tuples: strict validation takes no list for the tuples of a frozen model."""
    if isinstance(value, dict):
        return {key: as_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(as_tuples(inner) for inner in value)
    return value


_SECTION_TYPES: dict[str, TypeAdapter[Any]] = {
    "solver": TypeAdapter(SolverConfig),
    "parameters": TypeAdapter(dict[str, Distribution]),
    "ensemble": TypeAdapter(EnsembleConfig),
    "stream": TypeAdapter(StreamConfig),
    "reservoir": TypeAdapter(ReservoirConfig),
    "trainer": TypeAdapter(TrainerConfig),
}


_SOURCE: TypeAdapter[SourceConfig | None] = TypeAdapter(SourceConfig | None)


def _sections_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What ``checks`` takes: the sections that are right, and all that can be repaired."""
    sections: dict[str, Any] = {}
    for name, adapter in _SECTION_TYPES.items():
        written = tree.get(name, {})
        try:
            sections[name] = adapter.validate_python(written, strict=True)
        except ValidationError as error:
            with suppress(ValidationError):
                repaired = _repaired(name, written, error)
                sections[f"{name}?"] = adapter.validate_python(repaired, strict=True)
        else:
            sections[f"{name}?"] = sections[name]
    if isinstance(tree.get("deterministic", False), bool):
        sections["deterministic"] = tree.get("deterministic", False)
    with suppress(ValidationError):
        sections["source"] = _SOURCE.validate_python(tree.get("source"), strict=True)
    if isinstance(tree.get("parameters", {}), dict):
        sections["given"] = tree.get("parameters", {})
    return sections


def _repaired(name: str, section: object, error: ValidationError) -> object:
    """A section without its wrong values: defaults, or the least there is, stand in for them."""
    for details in error.errors(include_url=False):
        section = without(section, details["loc"])
    if isinstance(section, Mapping):
        section = {**_LEAST.get(name, {}), **section}
    return section


_LEAST = {"ensemble": {"members": 1}}


def _file_problems(sections: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files that a study names."""
    lines = []
    if "trainer?" in sections and sections["trainer?"].model.kind == "own":
        lines = own_model_problems(sections["trainer?"].model)
    return _csv_problems(sections) + [f"trainer.model.{line}" for line in lines]


def _csv_problems(sections: Mapping[str, Any]) -> list[str]:
    """What is wrong with the design's CSV file, where it has one."""
    if not {"solver?", "parameters", "ensemble"} <= sections.keys():
        return []
    ensemble = sections["ensemble"]
    if sections.get("source") is not None or not isinstance(ensemble.design, CsvDesign):
        return []
    names = [parameter.name for parameter in sections["solver?"].parameters()]
    rows = ensemble.members + ensemble.validation
    return read_rows(ensemble.design.csv, names, sections["parameters"], rows)[1]
