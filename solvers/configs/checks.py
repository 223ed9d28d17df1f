"""Checks of single settings that several PDEs share.

1. Every refusal says the limit and what to write instead.
"""

from collections.abc import Callable
from typing import TypeVar

_Grid = TypeVar("_Grid", bound=tuple[int, ...])


def three_points(grid: _Grid) -> _Grid:
    """The grid, when no axis is too short for a difference stencil.

    Raises:
        ValueError: An axis has fewer than three points.
    """
    if min(grid) < 3:
        axes = ", ".join("zyx"[-len(grid) :])
        raise ValueError(
            f"need at least 3 points per axis ({axes}). "
            f"Give at least {[max(3, points) for points in grid]}"
        )
    return grid


def options_like(example: str) -> Callable[[str], str]:
    """A check that a text reads like PETSc options; ``example`` is what it suggests."""

    def starts_with_a_dash(options: str) -> str:
        if options.strip() and not options.lstrip().startswith("-"):
            raise ValueError(f"PETSc options start with '-'. Write for example '{example}'")
        return options

    return starts_with_a_dash
