"""Observers that cannot change what they look at: what is only shown costs a study nothing.

1. An exception of an observer never reaches the study; the first one is logged with its traceback.
2. An observer that failed is called again: a display may come back, a figure may arrive later.
"""

import logging
from collections.abc import Callable
from typing import final

from pipeline.stats.stats import StudyStats

_log = logging.getLogger(__name__)


@final
class Harmless:
    """Calls an observer, and outlives whatever it raises."""

    def __init__(self, observer: Callable[[StudyStats], object]) -> None:
        self._observer, self._told = observer, False

    def __call__(self, stats: StudyStats) -> None:
        """Show ``stats``."""
        try:
            self._observer(stats)
        except Exception:  # noqa: BLE001 - anybody's code
            if not self._told:
                _log.exception("an observer failed; the study goes on: %r", self._observer)
            self._told = True
