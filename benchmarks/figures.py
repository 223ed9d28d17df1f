"""A measured figure and the bar it has to pass; what every benchmark returns.

1. ``ok`` says whether the value is on the right side of the bar.
2. A figure prints as one JSON line.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of ``make bench``.

    Attributes:
        name: The claim, and the case where it has several, e.g. ``ingest_16k.direct``.
        value: What was measured.
        unit: Of value and bar.
        bar: What it has to reach, or to stay below.
        ok: Whether it does.
    """

    name: str
    value: float
    unit: str
    bar: float
    ok: bool

    @classmethod
    def at_least(cls, name: str, value: float, bar: float, unit: str) -> Self:
        """A figure that has to reach its bar."""
        return cls(name=name, value=value, unit=unit, bar=bar, ok=value >= bar)

    @classmethod
    def at_most(cls, name: str, value: float, bar: float, unit: str) -> Self:
        """A figure that has to stay below its bar."""
        return cls(name=name, value=value, unit=unit, bar=bar, ok=value <= bar)

    def as_line(self) -> str:
        """One JSON object, four significant digits."""
        facts = asdict(self)
        facts["value"] = float(f"{self.value:.4g}")
        return json.dumps(facts)
