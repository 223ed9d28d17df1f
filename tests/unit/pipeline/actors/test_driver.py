"""The driver's loop on answers that are there already: no Ray is started."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipeline.actors.driver import Driver
from pipeline.actors.trainer import Training
from pipeline.control.controller import Controller
from pipeline.control.journal import Journal, read
from pipeline.control.rundir import RunDirectory
from pipeline.control.stopping import StopRequest
from pipeline.errors import StudyStopped
from pipeline.stats.stats import ReservoirStats, StudyStats
from pipeline.stats.watch import Watch
from trainers.results import TrainStats


class Reservoir:
    """Answers at once; notes what it is told."""

    def __init__(self, trained: TrainStats | None) -> None:
        self.told: list[str] = []
        self._trained = trained

    def __getattr__(self, name: str) -> SimpleNamespace:
        def call(*_: object) -> object:
            self.told.append(name)
            return (_stats(), self._trained) if name == "stats" else None

        return SimpleNamespace(remote=call)


def _stats() -> ReservoirStats:
    return ReservoirStats(
        rank=0, capacity=10, held=3, unseen=3, leased=0, inserted=3, drawn=0, unique=0, evicted=0,
        due=0, duplicates=0, refused=0, pending=0, bytes_received=0, solver_blocked_seconds=0.0,
        trainer_blocked_seconds=0.0, validation_held=0, production_ended=False,
    )  # fmt: skip


def begun(checkpoint: int | None = None) -> TrainStats:
    return TrainStats(
        rank=0, train_step=1, loss=1.0, learning_rate=1e-3, wait_seconds=0.0,
        first_step_seconds=2.0, validation=None, checkpoint=checkpoint,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trained", "on_disk", "asks", "kept"),
    [
        (None, (), False, None),
        (None, (30,), False, 30),  # resumed, and stopped before it trains again
        (begun(), (), True, None),
        (begun(), (10, 30), True, 30),  # a periodic one, of which no report has told yet
        (begun(40), (), True, 40),  # the disk of another node
    ],
)
def test_a_stop_looks_at_once_whether_training_has_begun(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: TrainStats | None,
    on_disk: tuple[int, ...],
    asks: bool,
    kept: int | None,
) -> None:
    monkeypatch.setattr(ray, "wait", lambda futures, **_: ([], futures))
    monkeypatch.setattr(ray, "get", lambda answers, **_: answers)
    directory, stop, reservoir = RunDirectory(tmp_path / "run"), StopRequest(), Reservoir(trained)
    for step in on_disk:
        (directory.paths.checkpoints / str(step)).mkdir(parents=True)
    journal = Journal(directory.paths.journal)
    ticks = iter(range(10_000))

    def signal(_: StudyStats) -> None:
        if not stop.asked:
            stop.ask()

    driver = Driver(
        controller=Controller(validation=0, members=3, max_attempts=1, max_failed_fraction=1.0),
        solvers=[],
        reservoirs=[reservoir],
        training=Training(["run"]),
        parameters=lambda assignment: {},
        journal=journal,
        run_directory=directory,
        watch=Watch(samples_expected=30),
        observers=[signal],
        clock=lambda: 0.1 * next(ticks),
        stop=stop,
        grace_seconds=3.0,
    )
    assert not stop.ask()
    stop.refused = False
    with pytest.raises(StudyStopped) as stopped:
        driver.run()
    journal.close()
    directory.close()
    assert stopped.value.train_step == kept
    assert ("ask_to_stop" in reservoir.told) == asks
    assert list(read(directory.paths.journal))[-1]["checkpoint"] == kept
