"""Where in its parameter space a surrogate is wrong: members sorted by one parameter at a time.

A parameter's *effect* is the share of the variance of the members' errors that its ranges explain,
corrected for the number of ranges (epsilon squared; Kelley 1935, doi:10.1073/pnas.21.9.554): 0
where the error does not depend on it, 1 where nothing else matters.

Invariants (``tests/unit/pipeline/stats/test_regions.py``):

1. Every member whose error is known lies in exactly one range of each parameter.
2. Ranges are equally wide; equally wide in the logarithm for a log-uniform parameter.
3. The seed of a random draw and what is the same in every member have no ranges.
4. A parameter that only a CSV file gives has the range of the members' values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.study.config import StudyConfig
from pipeline.study.distributions import AnyDistribution, LogUniform
from trainers.base import ValidationResult

FEWEST_RANGES, MOST_RANGES, MEMBERS_PER_RANGE = 3, 5, 6

Values = Float64[np.ndarray, " member"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRange:
    """The members in one range of a parameter.

    Attributes:
        low: Lower end, in the parameter's unit.
        high: Upper end of it.
        members: How many lie there.
        mean: Of their relative errors; None where there is no member.
        max: The largest of them.
    """

    low: float
    high: float
    members: int
    mean: float | None
    max: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorsOf:
    """How the members' errors depend on one parameter.

    Attributes:
        name: Of the parameter.
        unit: Of it.
        effect: Share of the errors' variance that its ranges explain, 0 to 1.
        ranges: In ascending order.
    """

    name: str
    unit: str
    effect: float
    ranges: tuple[ErrorRange, ...]


def errors_by_region(
    study: StudyConfig,
    parameters: Mapping[int, Mapping[str, float]],
    errors: Mapping[int, float],
) -> tuple[ErrorsOf, ...]:
    """The members' errors by each parameter that varies, the strongest effect first.

    Args:
        study: Whose members they are.
        parameters: Of each member, by name.
        errors: Relative error of each member; nan where it is unknown.
    """
    known = [m for m, error in errors.items() if m in parameters and np.isfinite(error)]
    if not known:
        return ()
    values = np.array([errors[member] for member in known])
    count = min(MOST_RANGES, max(FEWEST_RANGES, len(known) // MEMBERS_PER_RANGE))
    found = []
    for parameter in study.solver.parameters():
        at = np.array([parameters[member][parameter.name] for member in known])
        edges = _range_edges(study.parameters.get(parameter.name), at, count)
        if parameter.seed or edges is None:
            continue
        places = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, count - 1)
        found.append(
            ErrorsOf(
                name=parameter.name,
                unit=parameter.unit,
                effect=_effect(places, values, count),
                ranges=tuple(
                    _range(edges[place], edges[place + 1], values[places == place])
                    for place in range(count)
                ),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.effect))


def _range_edges(
    given: AnyDistribution | None, at: Values, count: int
) -> Float64[np.ndarray, " edges"] | None:
    """Ends of ``count`` ranges of a parameter; None where it is the same in every member."""
    low, high = (at.min(), at.max()) if given is None else (given.lowest, given.highest)
    if low == high:
        return None
    spaced = np.geomspace if isinstance(given, LogUniform) else np.linspace
    return spaced(low, high, count + 1)


def parameters_of(events: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Member -> its parameters, from the events of a journal: those of its last attempt."""
    return {
        int(event["member"]): dict(event["parameters"])
        for event in events
        if event["event"] == "start" and "parameters" in event
    }


def member_errors(result: ValidationResult) -> dict[int, float]:
    """Relative error of each member: of its rollout where the task steps."""
    return result.member_rollout or result.member_relative_l2


def _range(low: float, high: float, errors: Values) -> ErrorRange:
    return ErrorRange(
        low=float(low),
        high=float(high),
        members=len(errors),
        mean=float(errors.mean()) if len(errors) else None,
        max=float(errors.max()) if len(errors) else None,
    )


def _effect(places: Int64[np.ndarray, " member"], errors: Values, count: int) -> float:
    """Epsilon squared: 1 - (variance inside the ranges) / (variance of all), each unbiased."""
    used = len(np.unique(places))
    if len(errors) <= used or np.ptp(errors) <= 1e-12 * np.max(np.abs(errors)):
        return 0.0  # nothing to explain, but for rounding
    total = float(((errors - errors.mean()) ** 2).sum())
    groups = [errors[places == place] for place in range(count)]
    inside = sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group))
    return max(0.0, 1.0 - inside / (len(errors) - used) * (len(errors) - 1) / total)
