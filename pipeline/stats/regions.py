"""Where in its parameter space a surrogate is wrong: members sorted by one parameter at a time.

A parameter's *effect* is the share of the variance of the members' errors that its ranges explain,
corrected for the number of ranges (epsilon squared; Kelley 1935, doi:10.1073/pnas.21.9.554): 0
where the error does not depend on it, 1 where nothing else matters.

Invariants (``tests/unit/pipeline/stats/test_regions.py``):

1. Every member whose parameters are known lies in exactly one range of each parameter; those that
   have diverged are counted there, and left out of means and effects.
2. Ranges are equally wide; equally wide in the logarithm for a log-uniform parameter.
3. The seed of a random draw and what is the same in every member have no ranges.
4. A parameter that only a CSV file gives has the range of the members' values.
5. With fewer than ``EFFECT_MEMBERS`` members an effect would be noise, and is None.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.study.config import StudyConfig
from pipeline.study.distributions import AnyDistribution, LogUniform

FEWEST_RANGES, MOST_RANGES, MEMBERS_PER_RANGE = 3, 5, 6
EFFECT_MEMBERS = 30

Values = Float64[np.ndarray, " member"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRange:
    """The members in one range of a parameter.

    Attributes:
        low: Lower end, in the parameter's unit.
        high: Upper end, in the parameter's unit.
        members: Number of members there.
        diverged: Those among them whose prediction is not finite.
        mean: Mean error of the others; None where there are none.
        max: Largest error of the others.
        fields: Mean error of the others in each field.
    """

    low: float
    high: float
    members: int
    mean: float | None
    max: float | None
    diverged: int = 0
    fields: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorsOf:
    """How the members' errors depend on one parameter.

    Attributes:
        name: Name of the parameter.
        unit: Unit of the parameter.
        effect: Share of the errors' variance that its ranges explain, 0 to 1; None with too few
            members.
        ranges: Ranges in ascending order.
    """

    name: str
    unit: str
    effect: float | None
    ranges: tuple[ErrorRange, ...]


def errors_by_region(
    study: StudyConfig,
    parameters: Mapping[int, Mapping[str, float]],
    errors: Mapping[int, Sequence[float]],
) -> tuple[ErrorsOf, ...]:
    """The members' errors by each parameter that varies, the strongest effect first.

    Args:
        study: Whose members they are.
        parameters: Of each member, by name.
        errors: Errors of each member, one for each predicted field, as shares of the field's
            standard deviation; infinite where it has diverged.
    """
    known = [member for member in errors if member in parameters]
    if not known:
        return ()
    names = study.spec.names[: len(errors[known[0]])]
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
                effect=_effect(places, values.mean(1), count),
                ranges=tuple(
                    _range(edges[place], edges[place + 1], values[places == place], names)
                    for place in range(count)
                ),
            )
        )
    return tuple(sorted(found, key=lambda one: -(one.effect or 0.0)))


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


def _range(
    low: float, high: float, errors: Float64[np.ndarray, " member field"], names: Sequence[str]
) -> ErrorRange:
    finite = errors[np.isfinite(errors).all(1)]
    some = len(finite) > 0
    return ErrorRange(
        low=float(low),
        high=float(high),
        members=len(errors),
        diverged=len(errors) - len(finite),
        mean=float(finite.mean()) if some else None,
        max=float(finite.mean(1).max()) if some else None,
        fields=dict(zip(names, finite.mean(0).tolist(), strict=False)) if some else {},
    )


def _effect(places: Int64[np.ndarray, " member"], errors: Values, count: int) -> float | None:
    """Epsilon squared: 1 - (variance inside the ranges) / (variance of all), each unbiased."""
    finite = np.isfinite(errors)
    places, errors = places[finite], errors[finite]
    if len(errors) < EFFECT_MEMBERS:
        return None
    used = len(np.unique(places))
    if np.ptp(errors) <= 1e-12 * np.max(np.abs(errors)):
        return 0.0  # nothing to explain, but for rounding
    total = float(((errors - errors.mean()) ** 2).sum())
    groups = [errors[places == place] for place in range(count)]
    inside = sum(float(((group - group.mean()) ** 2).sum()) for group in groups if len(group))
    return max(0.0, 1.0 - inside / (len(errors) - used) * (len(errors) - 1) / total)
