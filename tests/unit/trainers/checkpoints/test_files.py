import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainers.checkpoints import files as checkpoint_files
from trainers.checkpoints.files import (
    final_folder,
    list_files,
    newest_valid,
    partial_folder,
    remove_partial,
    retain,
    seal,
    select_kept,
    set_aside,
    steps_in,
    verify,
)
from trainers.durable import LOCK_SECONDS, sole_writer

CASES = 200


def written(checkpoints: Path, train_step: int, *, error: float | None = None) -> Path:
    """A small checkpoint of two writers, one of which wrote a folder."""
    partial = partial_folder(checkpoints, train_step)
    store = partial / "rank0" / "store"
    store.mkdir(parents=True)
    rng = np.random.default_rng(train_step)
    (partial / "model").write_bytes(rng.bytes(700))
    for name in ("a", "b", "c"):
        (store / name).write_bytes(rng.bytes(300))
    (store / "empty").write_bytes(b"")
    list_files(partial, "trainer0", [partial / "model"])
    list_files(partial, "reservoir0", [store])
    final = final_folder(checkpoints, train_step)
    seal(partial, final, {"train_step": train_step, "validation_error": error})
    return final


def test_what_was_sealed_is_valid_and_nothing_else_is_left(tmp_path: Path) -> None:
    final = written(tmp_path, 12, error=0.5)
    assert verify(final) is None
    assert [path.name for path in tmp_path.iterdir()] == ["000000012"]
    found, broken = newest_valid(tmp_path)
    assert found is not None
    assert (found.train_step, found.facts["validation_error"], broken) == (12, 0.5, {})
    assert not [path for path in final.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_without_a_manifest_is_not_valid(tmp_path: Path) -> None:
    final = written(tmp_path, 12)
    (final / "manifest.json").unlink()
    assert "never completed" in str(verify(final))


@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_one_that_was_cut_or_changed_anywhere_gives_way_to_the_one_before(
    tmp_path: Path, harm: str
) -> None:
    before, newer = written(tmp_path, 12), written(tmp_path, 30)
    files = [path for path in newer.rglob("*") if path.is_file() and path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    rng = np.random.default_rng(4)
    for _ in range(CASES):
        path = files[rng.choice(len(files), p=np.array(sizes) / sum(sizes))]
        whole = path.read_bytes()
        place = int(rng.integers(len(whole)))
        if harm == "cut":
            path.write_bytes(whole[:place])
        else:
            flipped = whole[place] ^ (1 << int(rng.integers(8)))
            path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        found, broken = newest_valid(tmp_path)
        assert found is not None
        assert found.folder == before
        assert path.name in broken[newer]
        path.write_bytes(whole)
    assert verify(newer) is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    final = written(tmp_path, 12)
    (final / "rank0" / "store" / "b").unlink()
    assert verify(final) == "rank0/store/b is missing"


def test_another_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_files, "FORMAT", 7)
    final = written(tmp_path, 12)
    monkeypatch.undo()
    assert verify(final) == "it has format 7, and this version reads 2"


def test_every_file_is_on_the_disk_before_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    written(tmp_path, 12)
    manifest = next(place for place, name in enumerate(synced) if "manifest" in name)
    assert {"model", "a", "b", "c", "store"} <= set(synced[:manifest])
    assert synced[-1] == tmp_path.name


@pytest.mark.parametrize(
    ("errors", "last", "best", "stay"),
    [
        ([(5, 0.3), (9, 0.1), (12, 0.2), (20, None)], 2, True, {9, 12, 20}),
        ([(5, 0.3), (9, 0.1), (12, 0.2), (20, None)], 2, False, {12, 20}),
        ([(5, None), (9, None)], 1, True, {9}),
        ([(5, 0.1), (9, 0.1)], 1, True, {5, 9}),
        ([], 3, True, set()),
    ],
)
def test_the_last_ones_and_the_best_stay(
    errors: list[tuple[int, float | None]], last: int, best: bool, stay: set[int]
) -> None:
    assert select_kept(errors, last=last, best=best) == stay


def test_retain_removes_the_others_and_what_was_set_aside(tmp_path: Path) -> None:
    for train_step, error in ((5, 0.3), (9, 0.1), (12, 0.2), (20, None)):
        written(tmp_path, train_step, error=error)
    (tmp_path / "notes.txt").write_text("precious")
    (final_folder(tmp_path, 20) / "model").write_bytes(b"")
    found, broken = newest_valid(tmp_path)
    assert found is not None
    assert found.train_step == 12
    set_aside(broken)
    assert steps_in(tmp_path) == [5, 9, 12]
    written(tmp_path, 20)
    retain(tmp_path, last=2, best=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000009", "000000012", "000000020", "notes.txt",
    ]  # fmt: skip


def test_what_a_killed_study_left_half_written_is_removed(tmp_path: Path) -> None:
    written(tmp_path, 5)
    (partial_folder(tmp_path, 9) / "rank0").mkdir(parents=True)
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000005"]


def test_without_a_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "none") == (None, {})


def test_who_resumes_waits_for_the_ranks_of_a_killed_study(tmp_path: Path) -> None:
    hold = """
import sys, time
from pathlib import Path
from trainers.durable import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", hold, str(tmp_path / "checkpoints")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "held\n"
        with (
            pytest.raises(TimeoutError, match="processes of an earlier run"),
            sole_writer(tmp_path / "checkpoints", timeout=0.2),
        ):
            pytest.fail("two at a time")
        rank.kill()
        with sole_writer(tmp_path / "checkpoints", LOCK_SECONDS):
            pass
