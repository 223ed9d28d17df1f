import logging

import pytest

from pipeline.control.observing import Harmless
from pipeline.stats.stats import StudyStats


def test_what_an_observer_raises_is_told_once_and_it_is_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []

    def watch(stats: StudyStats) -> None:
        seen.append(stats)
        "²".encode("ascii")

    observer = Harmless(watch)
    stats = StudyStats.__new__(StudyStats)
    for _ in range(3):
        observer(stats)
    assert seen == [stats] * 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "watch" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is UnicodeEncodeError


def test_an_interruption_is_none_of_an_observers_failures() -> None:
    def stop(stats: StudyStats) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Harmless(stop)(StudyStats.__new__(StudyStats))
