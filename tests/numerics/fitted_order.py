"""How fast errors fall with the resolution, and whether that is the order a scheme promises."""

from collections.abc import Sequence

import numpy as np

TOLERANCE = 0.15


def assert_order(expected: float, resolutions: Sequence[float], errors: Sequence[float]) -> None:
    """``errors`` fall like ``resolutions ** expected``, fitted and between neighbours."""
    logs, sizes = np.log(errors), np.log(resolutions)
    fitted = float(np.polyfit(sizes, logs, 1)[0])
    between = np.diff(logs) / np.diff(sizes)
    report = f"fitted order {fitted:.3f}, between neighbours {between}, errors {errors}"
    assert abs(fitted - expected) <= TOLERANCE, report
    assert np.all(np.abs(between - expected) <= 2 * TOLERANCE), report
