"""The type checker of the test run: beartype, but for what it cannot check on single methods."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

P = ParamSpec("P")
T = TypeVar("T")

# As mypy does: an int is a float is a complex.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Check ``function``'s annotations, unless it speaks of ``Self``.

    beartype understands ``Self`` only on a class that it decorates as a whole, and jaxtyping's
    import hook decorates method by method.
    """
    try:
        return _check(function)
    except BeartypeDecorHintPep673Exception:
        return function
