"""Which parameters each member gets: points of a design, mapped through the distributions.

Members are numbered as the controller numbers them: validation members ``0 .. validation - 1``,
training members from there on.

Invariants (``tests/unit/pipeline/study/test_design.py``):

1. The same study gives the same parameters, in whatever order members are asked for.
2. Validation members are other points than the training members, from the same ranges.
3. With uniform, halton and sobol, more members leave the first ones as they were.
4. No member leaves the range of its distributions.
5. A redrawn member depends on seed, member and attempt alone.
6. A member that is taken from a record has the parameters that stand there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from pipeline.errors import ConfigError
from pipeline.record.replay import RecordedMembers
from pipeline.study.config import StudyConfig
from pipeline.study.design_csv import read_rows
from pipeline.study.distributions import AnyDistribution, grid_levels
from pipeline.study.sections import CsvDesign, SourceConfig
from pipeline.study.source import recorded_numbers

# One child of the root seed for each purpose, so that none disturbs another.
TRAINING, VALIDATION, REDRAW = 0x7121, 0x7A11, 0x2ED2
BESIDE = 0xBE51  # members that are simulated beside those of a record

# A row per member, a column per parameter; "_" because two such arrays may differ in length.
Parameters = Float64[np.ndarray, " _members _parameters"]


@final
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Design:
    """The parameters of every member of a study.

    Attributes:
        names: Parameters in the solver's order; the columns of ``rows``.
        rows: One row per member, those of validation first.
    """

    names: tuple[str, ...]
    rows: Parameters
    _distributions: Sequence[AnyDistribution] | None
    _seed: int

    def values(self, member: int) -> dict[str, float]:
        """A member's parameters by name, in the solver's order."""
        if not 0 <= member < len(self.rows):
            raise IndexError(f"member={member}: the study has {len(self.rows)}")
        return dict(zip(self.names, self.rows[member].tolist(), strict=True))

    def redraw(self, member: int, attempt: int) -> dict[str, float]:
        """Other parameters for a member that failed, uniform over the ranges.

        Raises:
            ValueError: The design is a CSV file, which says nothing of further points.
        """
        if self._distributions is None:
            raise ValueError(
                f"member={member}: a CSV design has no further points. Add rows to the file, or "
                "choose a design that draws"
            )
        rng = _rng(self._seed, REDRAW, member, attempt)
        row = _place(rng.random((1, len(self.names))), self._distributions)[0]
        return dict(zip(self.names, row.tolist(), strict=True))


def design_of(study: StudyConfig) -> Design:
    """Make the design of a study. Reads the CSV file when it has one.

    Raises:
        ConfigError: The CSV file has changed since the study was checked.
    """
    from_csv = isinstance(study.ensemble.design, CsvDesign)
    # Those that a CSV file gave to a record are missing: then nothing is drawn beside it.
    known = [study.parameters[name] for name in study.parameter_names if name in study.parameters]
    if study.source is not None:
        rows = _rows_beside_record(study, study.source, known)
    else:
        rows = _rows_of_csv(study) if from_csv else _drawn_rows(study, known)
    return Design(
        names=study.parameter_names,
        rows=rows,
        _distributions=None if from_csv else known,
        _seed=study.seed,
    )


def _drawn_rows(study: StudyConfig, distributions: Sequence[AnyDistribution]) -> Parameters:
    ensemble, seed = study.ensemble, study.seed
    design = str(ensemble.design)
    if design == "grid":
        training = _grid(distributions, ensemble.members)
        design = "uniform"  # a grid again would have the same points: random ones fill its gaps
    else:
        training = _points(design, distributions, ensemble.members, seed, TRAINING)
    return np.concatenate(
        [_points(design, distributions, ensemble.validation, seed, VALIDATION), training]
    )


def _rows_beside_record(
    study: StudyConfig, source: SourceConfig, distributions: Sequence[AnyDistribution]
) -> Parameters:
    """Parameters of the record's members, and drawn ones for those that are simulated."""
    ensemble, numbers = study.ensemble, recorded_numbers(study)
    rows = np.empty((ensemble.validation + ensemble.members, len(study.parameter_names)))
    record = RecordedMembers(source.record)
    rows[list(numbers)] = record.parameters([*numbers.values()], study.parameter_names)
    # Not the points of the study that made the record, which may have had the same seed.
    newest = max(numbers.values())
    held_out, training = range(ensemble.validation), range(ensemble.validation, len(rows))
    for members, *purpose in ((held_out, VALIDATION), (training, BESIDE, newest)):
        live = [member for member in members if member not in numbers]
        if live:
            rows[live] = _points(
                str(ensemble.design), distributions, len(live), study.seed, *purpose
            )
    return rows


def ranges_of(study: StudyConfig) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each parameter, as the study says or its CSV file has them."""
    given = {name: (each.lowest, each.highest) for name, each in study.parameters.items()}
    if given.keys() >= {*study.parameter_names}:
        return given
    training = design_of(study).rows[study.ensemble.validation :]
    lows, highs = training.min(axis=0).tolist(), training.max(axis=0).tolist()
    found = dict(zip(study.parameter_names, zip(lows, highs, strict=True), strict=True))
    return found | given


def _rows_of_csv(study: StudyConfig) -> Parameters:
    ensemble = study.ensemble
    assert isinstance(ensemble.design, CsvDesign)
    rows, problems = read_rows(
        ensemble.design.csv,
        study.parameter_names,
        study.parameters,
        ensemble.members + ensemble.validation,
    )
    if problems:
        raise ConfigError(problems)
    return np.roll(rows, ensemble.validation, axis=0)  # training members stand first in the file


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def _place(quantiles: Parameters, distributions: Sequence[AnyDistribution]) -> Parameters:
    columns = [each.at(quantiles[:, place]) for place, each in enumerate(distributions)]
    return np.stack(columns, axis=1) if columns else np.empty(quantiles.shape)


def _points(
    kind: str, distributions: Sequence[AnyDistribution], count: int, seed: int, *purpose: int
) -> Parameters:
    """Members' parameters; a constant takes no dimension, so that it weakens no sequence."""
    quantiles = np.full((count, len(distributions)), 0.5)
    varying = [place for place, each in enumerate(distributions) if each.levels != 1]
    if varying and count > 0:
        rng = _rng(seed, *purpose)
        quantiles[:, varying] = _SEQUENCES[kind](count, len(varying), rng)
    return _place(quantiles, distributions)


def _uniform(count: int, dimensions: int, rng: np.random.Generator) -> Parameters:
    return rng.random((count, dimensions))


def _halton(count: int, dimensions: int, rng: np.random.Generator) -> Parameters:
    from scipy.stats import qmc  # loads in 0.5 s: only who draws pays for it

    points: Parameters = qmc.Halton(dimensions, scramble=True, rng=rng).random(count)
    return points


def _sobol(count: int, dimensions: int, rng: np.random.Generator) -> Parameters:
    from scipy.stats import qmc

    # Balanced only in powers of two: draw the next one and take the first points of it.
    power = math.ceil(math.log2(count))
    points: Parameters = qmc.Sobol(dimensions, scramble=True, rng=rng).random_base2(power)
    return points[:count]


def _latin_hypercube(count: int, dimensions: int, rng: np.random.Generator) -> Parameters:
    from scipy.stats import qmc

    points: Parameters = qmc.LatinHypercube(dimensions, rng=rng).random(count)
    return points


_SEQUENCES = {
    "uniform": _uniform,
    "halton": _halton,
    "sobol": _sobol,
    "latin_hypercube": _latin_hypercube,
}


def _grid(distributions: Sequence[AnyDistribution], members: int) -> Parameters:
    """All combinations; ranges are cut into equally many levels, their ends included."""
    in_range = grid_levels(distributions, members)
    assert in_range is not None, "checked when the study was loaded"
    axes = []
    for each in distributions:
        count = in_range if each.levels is None else each.levels
        places = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])
        axes.append(each.at(places))
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
