"""Validation results that nobody measured, for the tests of those who show them."""

from collections.abc import Sequence

from trainers.results import Errors, FieldError, Spread


def made_errors(
    members: Sequence[float] = (0.1, 0.3),
    *,
    mse: float = 4.0,
    relative_l2: float = 0.05,
    nrmse: float = 0.2,
    fields: Sequence[tuple[str, str]] = (("temperature", "K"),),
) -> Errors:
    """The same error of each field, and one error of each member."""
    spread = Spread.of(members)
    assert spread is not None
    of = [
        FieldError(name=name, unit=unit, mse=mse, relative_l2=relative_l2, nrmse=nrmse)
        for name, unit in fields
    ]
    return Errors(fields=tuple(of), spread=spread)
