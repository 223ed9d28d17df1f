"""Reads JSON as strictly as parsers outside Python do."""

import json
from typing import Any


def strict_json(text: str) -> Any:  # noqa: ANN401 - whatever the text holds
    """Parse; bare NaN and Infinity, which are no JSON, are refused."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
