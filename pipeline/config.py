"""The study: everything one run needs, read from YAML and checked before any process starts.

The only reader of YAML. ``load`` reads a file, ``parse`` the same content as plain dicts.

Invariants (``tests/unit/test_study_config.py``):

1. A study that loads is consistent: keys, types, ranges, and the parts against each other.
2. All errors are listed at once, each with path, value, limit and remedy.
3. What is resolved reads back from its own JSON unchanged, and needs no other file for it.
4. Nothing heavy is imported: a study can be checked on a machine without Ray, torch or PETSc.
5. Somebody's own solver is asked once what it is, by ``parse``; what it said is kept in the study.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from pipeline import checks
from pipeline.design_csv import read_rows
from pipeline.distributions import Distribution
from pipeline.errors import ConfigError
from pipeline.known_keys import without
from pipeline.problems import from_validation
from pipeline.sections import (
    CheckpointConfig,
    CsvDesign,
    EnsembleConfig,
    RecordConfig,
    ReservoirConfig,
    Section,
    SourceConfig,
    StreamConfig,
)
from pipeline.source import taken, with_sections
from pipeline.streamed import streamed_spec
from pipeline.yaml_values import YamlProblem, parse_yaml, set_value
from solvers.announce import with_announcement
from solvers.base import FieldSpec
from solvers.config import SolverConfig
from solvers.user_file import Unusable
from trainers.config import StepsAfter, TrainerConfig
from trainers.model_checks import own_model_problems

if TYPE_CHECKING:
    import pipeline.stream.wire


class StudyConfig(Section):
    """One run of the whole system."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="name of the study"
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="root of all random numbers")
    deterministic: bool = Field(
        default=False, description="whether a loss curve on CPUs must not depend on timing"
    )
    solver: SolverConfig
    parameters: dict[str, Distribution] = Field(
        default_factory=dict, description="a distribution for each parameter of the solver"
    )
    ensemble: EnsembleConfig
    stream: StreamConfig = StreamConfig()
    reservoir: ReservoirConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    record: RecordConfig | None = Field(
        default=None, description="which samples are kept on disk; null: none"
    )
    source: SourceConfig | None = Field(
        default=None, description="a record to take members from; null: all are simulated"
    )

    @model_validator(mode="after")
    def _check(self) -> "StudyConfig":
        found = checks.problems(self._sections())
        if found:
            raise ConfigError(found)
        return self

    def _sections(self) -> dict[str, Any]:
        sections: dict[str, Any] = {name: getattr(self, name) for name in checks.SECTIONS}
        sections |= {f"{name}?": section for name, section in sections.items()}
        sections["given"] = {name: each.model_dump() for name, each in self.parameters.items()}
        sections["deterministic"] = self.deterministic
        sections["source"] = self.source
        return sections

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of the solver, which is the order of every parameter array."""
        return tuple(parameter.name for parameter in self.solver.parameters())

    @property
    def window(self) -> int:
        """Consecutive snapshots in a sample."""
        return self.trainer.task.window

    @property
    def spec(self) -> FieldSpec:
        """Names, units and grid of what leaves the solver."""
        return streamed_spec(self.solver.spec(), self.stream)

    @property
    def samples_per_member(self) -> int:
        """Samples that a completed member yields."""
        return checks.samples_per_member(self.solver, self.stream, self.trainer)

    @property
    def expected_samples(self) -> int:
        """Training samples of the whole ensemble when no member fails."""
        if self.source is not None and self.source.samples is not None:
            return self.source.samples
        return self.ensemble.members * self.samples_per_member

    @property
    def simulates(self) -> bool:
        """Whether a solver runs at all."""
        source = self.source
        if source is None or source.live:
            return True
        return source.validation == "live" and self.ensemble.validation > 0

    def validation_capacity(self, rank: int) -> int:
        """Validation samples that arrive at one rank: whole members, member % ranks == rank."""
        members = range(rank, self.ensemble.validation, self.trainer.ranks)
        return len(members) * self.samples_per_member

    def sample_layout(self) -> "pipeline.stream.wire.SampleLayout":
        """Shape of what lies in a slot."""
        from pipeline.stream.wire import (
            SampleLayout,  # brings zmq, which checking a study does not need
        )

        return SampleLayout(
            window=self.window,
            sample_shape=self.spec.sample_shape,
            num_parameters=len(self.parameter_names),
            dtype=self.stream.dtype,
        )

    @property
    def sample_bytes(self) -> int:
        """Field bytes of one sample."""
        return checks.sample_bytes(self.solver, self.stream, self.trainer)

    @property
    def slots_bytes(self) -> int:
        """Shared memory of all ranks together, training and validation slots."""
        ranks = self.trainer.ranks
        slots = ranks * self.reservoir.capacity + sum(map(self.validation_capacity, range(ranks)))
        return slots * checks.slot_bytes(self.solver, self.stream, self.trainer)

    @property
    def max_train_steps(self) -> int | None:
        """Most train steps that ``max_reuse`` allows; None without a limit."""
        if self.reservoir.max_reuse is None:
            return None
        draws = self.expected_samples * max(self.reservoir.max_reuse, 1.0)
        return self._train_steps(draws / self.trainer.ranks)

    @property
    def expected_train_steps(self) -> int | None:
        """Train steps that the solvers' waiting makes sure of; None where nothing is known.

        With ``max_surplus`` the solvers have waited, when production ends, until all but that many
        of the allowed draws were made; then comes what ``trainer.after_production`` says.
        """
        reservoir, most = self.reservoir, self.max_train_steps
        if most is None or reservoir.max_reuse is None or reservoir.max_surplus is None:
            return most
        samples = self.expected_samples / self.trainer.ranks
        draws = samples * reservoir.max_reuse - reservoir.max_surplus
        drained = self.trainer.after_production.kind != "stop"
        draws = max(draws, 0.0) + (min(samples, reservoir.capacity) if drained else 0.0)
        return min(most, self._train_steps(draws))

    def _train_steps(self, draws: float) -> int:
        """Train steps of so many draws of one rank, and those that follow after the drain."""
        after, group = self.trainer.after_production, self.trainer.batch * self.trainer.accumulate
        return -int(-draws // group) + (after.steps if isinstance(after, StepsAfter) else 0)

    @property
    def record_bytes(self) -> int:
        """Upper bound of the record on disk, without compression; 0 without a record."""
        if self.record is None:
            return 0
        held = self.trainer.ranks * self.reservoir.capacity
        samples = self.expected_samples
        if self.record.what == "reservoir":
            samples = min(samples, held)
        # Parameters, times, member, number, step and draws stand beside the fields.
        numbers = 8 * (len(self.parameter_names) + self.window + 3) + 4
        kept = math.ceil(samples * self.record.fraction / self.record.every)
        return kept * (self.sample_bytes + numbers)

    def warnings(self) -> list[str]:
        """What is allowed, but probably not meant."""
        return checks.warnings(self._sections())

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists; ``StudyConfig.model_validate`` reads them back."""
        return self.model_dump(mode="json")


def load(path: Path | str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study.

    Args:
        path: YAML file. Paths in it are relative to its folder.
        overrides: ``"a.b=c"``, applied in order; ``c`` is read as YAML.

    Raises:
        ConfigError: With every error of the file.
    """
    path = Path(path)
    tree, found = _read(path), []
    for override in overrides:
        try:
            set_value(tree, override)
        except YamlProblem as error:
            found.append(f"--set {override}: {error}")
    if found:
        raise ConfigError(found)
    return parse(tree, folder=path.parent)


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
    return {name: _tuples(section) for name, section in with_sections(tree, Path(record)).items()}


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
    return {**tree, "solver": _tuples(with_announcement(solver, folder))}


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
    changed = {key: _tuples(value) for key, value in tree.items()}
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


def _tuples(value: object) -> object:
    """Lists as tuples: strict validation takes no list for the tuples of a frozen model."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(inner) for inner in value)
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
    """What ``pipeline.checks`` takes: the sections that are right, and all that can be repaired."""
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
