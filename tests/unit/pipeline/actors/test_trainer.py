from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.actors import trainer
from pipeline.actors.trainer import RayReservoir


def remote(method: Callable[..., Any]) -> SimpleNamespace:
    """A method of an actor that answers at once."""
    return SimpleNamespace(remote=method)


def test_a_reservoir_that_cannot_write_its_part_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_answer", lambda answer: answer)
    begun: list[tuple[Path, int]] = []
    answers = [(False, None), (True, None), (True, "disk full")]
    actor: Any = SimpleNamespace(
        begin_checkpoint=remote(lambda folder, batches: begun.append((folder, batches))),
        checkpoint_done=remote(lambda: answers.pop(0)),
    )
    reservoir = RayReservoir(actor, loop_began_after=0.0)
    reservoir.begin_checkpoint(Path("a"), 7)
    assert begun == [(Path("a"), 7)]
    assert not reservoir.checkpoint_done()
    assert reservoir.checkpoint_done()
    with pytest.raises(OSError, match="disk full"):
        reservoir.checkpoint_done()
