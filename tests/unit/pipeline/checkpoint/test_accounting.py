"""Samples and members of a run directory: missing, there once, or twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.accounting import (
    RecordAccount,
    members_of,
    record_of,
    samples_due,
    samples_of,
)
from pipeline.checkpoint.store import Snapshot, store_path, write
from pipeline.reservoir.state import Counters, HeldRows, ReservoirState
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots
from tests.record_rig import add, open_rank
from tests.small_study import MEMBERS, STEPS, VALIDATION, small_study
from trainers.checkpoints.files import final_folder, list_files, partial_folder, seal

LAYOUT = SampleLayout(window=1, sample_shape=(1, 3, 5), num_parameters=2)
Pairs = Sequence[tuple[int, int]]


def snapshot(slots: Slots, stored: Pairs, held: Pairs, inserted: int) -> Snapshot:
    """A rank that knows some samples, of which it holds some."""
    where = np.arange(len(held))
    slots.members[where] = [member for member, _ in held]
    slots.samples[where] = [sample for _, sample in held]
    bits: dict[int, np.ndarray] = {}
    for member, sample in stored:
        bits.setdefault(member, np.zeros(11, np.bool_))[sample] = True
    nothing, fresh = np.empty(0, np.int64), np.zeros(len(held), np.bool_)
    return Snapshot(
        state=ReservoirState(
            held=HeldRows(slots=where, draws=1 * fresh, numbers=np.arange(fresh.size)),
            counters=Counters(inserted=inserted, drawn=0),
            rng=dict(np.random.default_rng(5).bit_generator.state),
        ),
        validation=nothing,
        stored=bits,
        validation_stored={},
    )  # fmt: skip


def checkpoint(run: Path, ranks: Sequence[tuple[Pairs, Pairs, int]], train_step: int = 8) -> None:
    partial = partial_folder(run / "checkpoints", train_step)
    for rank, (stored, held, inserted) in enumerate(ranks):
        with Slots.create(run / f"headrace-{rank}", capacity=9, layout=LAYOUT) as slots:
            write(
                store_path(partial, rank), snapshot(slots, stored, held, inserted),
                training=slots, validation=None, copied=lambda _: None,
            )  # fmt: skip
        list_files(partial, f"rank{rank}", [store_path(partial, rank)])
    seal(partial, final_folder(run / "checkpoints", train_step), {"ranks": len(ranks)})


EVEN, ODD = [(2, 0), (2, 2), (3, 0)], [(2, 1), (3, 1)]


def test_samples_that_are_there_once_are_counted(tmp_path: Path) -> None:
    checkpoint(tmp_path, [(EVEN, EVEN[1:], 3), (ODD, ODD, 2)])
    account = samples_of(tmp_path)
    assert account is not None
    assert (account.train_step, account.stored, account.twice) == (8, 5, 0)


@pytest.mark.parametrize(
    ("ranks", "twice"),
    [
        ([(EVEN, EVEN, 3), ([*ODD, (2, 2)], ODD, 3)], 1),  # two ranks know it
        ([(EVEN, [*EVEN, (3, 0), (2, 0)], 3), (ODD, ODD, 2)], 2),  # two slots hold it
        ([(EVEN, EVEN, 3), (ODD, [*ODD, (3, 0)], 2)], 1),  # of two ranks
        ([(EVEN, EVEN, 5), (ODD, ODD, 2)], 2),  # more insertions than samples
    ],
)
def test_samples_that_are_there_twice_are_found(
    ranks: list[tuple[Pairs, Pairs, int]], twice: int, tmp_path: Path
) -> None:
    checkpoint(tmp_path, ranks)
    account = samples_of(tmp_path)
    assert account is not None
    assert (account.stored, account.twice) == (5, twice)


def test_the_newest_valid_checkpoint_counts(tmp_path: Path) -> None:
    assert samples_of(tmp_path) is None
    checkpoint(tmp_path, [(ODD, ODD, 2)], 4)
    checkpoint(tmp_path, [(EVEN, EVEN, 3)], 9)
    (tmp_path / "checkpoints" / "000000012").mkdir()
    account = samples_of(tmp_path)
    assert account is not None
    assert (account.train_step, account.stored) == (9, 3)


def test_the_rows_of_a_record_are_counted(tmp_path: Path) -> None:
    assert record_of(tmp_path) is None
    record = open_rank(tmp_path)
    add(record, [(3, 0), (3, 1), (4, 0)])
    record.close(complete=True)
    assert record_of(tmp_path) == RecordAccount(recorded=3, twice=0, complete=True)
    record = open_rank(tmp_path, keep=3)
    add(record, [(3, 1), (5, 0)])
    record.close()
    assert record_of(tmp_path) == RecordAccount(recorded=4, twice=1, complete=False)


def completed(member: int, samples: int = STEPS) -> dict[str, Any]:
    return {"event": "completed", "member": member, "samples": samples}


def resumed(members: int) -> dict[str, Any]:
    return {"event": "resumed", "completed": members}


def test_members_of_the_last_part_are_added_to_those_of_its_checkpoint() -> None:
    assert members_of([completed(1), completed(2)]).finished == 2
    account = members_of([completed(1), completed(2), resumed(1), completed(2), completed(5)])
    assert (account.finished, account.twice) == (3, 0)


def test_a_member_that_ends_twice_in_one_part_is_counted_twice() -> None:
    account = members_of([resumed(3), completed(7), completed(8), completed(7)])
    assert (account.finished, account.twice) == (5, 1)


def test_members_have_as_many_samples_as_they_said_or_the_study_says() -> None:
    study = small_study(ensemble={"max_attempts": 1})
    assert samples_due([], study) == MEMBERS * STEPS
    events = [
        completed(0, 5),  # a validation member
        completed(VALIDATION, STEPS - 3),
        {"event": "failed", "member": VALIDATION + 1, "attempt": 1, "reason": "diverged"},
    ]
    assert samples_due(events, study) == (MEMBERS - 1) * STEPS - 3
