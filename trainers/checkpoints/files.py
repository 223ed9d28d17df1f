"""The files of a checkpoint: sealed by a manifest written last, verified before they are used.

Several processes write their parts into ``checkpoints/.STEP.partial/``; each says in a listing what
it wrote. When all have, the listings become ``manifest.json`` and the folder becomes ``STEP``.

Invariants (``tests/unit/trainers/checkpoints/test_files.py``):

1. A checkpoint that was cut short, or of which a byte has changed, is not valid.
2. Every file is on the disk (fsync) before the manifest is, and that before the folder's name.
3. The newest valid checkpoint is found whatever else lies in the folder.
4. The last ``keep_last`` stay, and the best; everything older goes.
5. One study writes here at a time: ranks that outlive a killed driver for a moment keep another
   that resumes it waiting.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainers.durable import synchronise, write_durably

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
_PARTIAL: Final = ".partial"
_BROKEN: Final = ".broken"
_LISTING: Final = ".listing-"
_CHUNK: Final = 4 << 20
Digest = dict[str, int | str]  # size and SHA-256


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are all as they were written.

    Attributes:
        folder: Where it lies.
        train_step: After which it was taken.
        facts: What was said of it when it was sealed.
    """

    folder: Path
    train_step: int
    facts: dict[str, Any]


def final_folder(checkpoints: Path, train_step: int) -> Path:
    """Where the checkpoint of a train step lies once it is complete."""
    return checkpoints / f"{train_step:09d}"


def partial_folder(checkpoints: Path, train_step: int) -> Path:
    """Where it is written."""
    return checkpoints / f".{train_step:09d}{_PARTIAL}"


def digest_of(content: memoryview) -> Digest:
    """The digest of a file that has this content, contiguous."""
    return {"bytes": content.nbytes, "sha256": hashlib.sha256(content.cast("B")).hexdigest()}


def list_files(
    folder: Path, part: str, paths: Iterable[Path], known: Mapping[Path, Digest] | None = None
) -> None:
    """Bring a writer's files to the disk, and say in its listing what they are.

    Args:
        folder: The partial checkpoint.
        part: Name of the writer, of its own.
        paths: Files, and folders with all that is in them.
        known: Digests of files that need not be read again.
    """
    files, known = [inner for path in paths for inner in _files_in(path)], known or {}
    folders = {each for path in files for each in path.parents if each.is_relative_to(folder)}
    for path in (*files, *folders):
        synchronise(path)
    listed = {str(path.relative_to(folder)): known.get(path) or _digest(path) for path in files}
    write_durably(folder / f"{_LISTING}{part}.json", _text(listed))


def seal(partial: Path, final: Path, facts: dict[str, Any]) -> None:
    """Make one valid checkpoint of what all writers have listed.

    Args:
        partial: Folder they wrote to; gone afterwards.
        final: Where the checkpoint lies afterwards; must not exist.
        facts: Plain JSON, kept with it.
    """
    files: dict[str, Any] = {}
    listings = sorted(partial.glob(f"{_LISTING}*.json"))
    for listing in listings:
        files |= json.loads(listing.read_text(encoding="utf-8"))
    content = {"format": FORMAT, "facts": facts, "files": dict(sorted(files.items()))}
    for listing in listings:
        listing.unlink()
    write_durably(partial / MANIFEST, _manifest(content))
    os.rename(partial, final)
    synchronise(final.parent)


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when every byte of it is as it was written."""
    try:
        written = (folder / MANIFEST).read_bytes()
    except OSError:
        return f"there is no {MANIFEST}: it was never completed"
    try:
        content = json.loads(written)
        intact = _manifest(content["content"]).encode() == written
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        return f"{MANIFEST} is damaged"
    content = content["content"]
    if content["format"] != FORMAT:
        return f"it has format {content['format']}, and this version reads {FORMAT}"
    for name, digest in content["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != digest["bytes"]:
            return f"{name} has {size} bytes, {digest['bytes']} were written"
        if _digest(path) != digest:
            return f"{name} has another content than was written"
    return None


def facts_of(folder: Path) -> dict[str, Any]:
    """What was said of a checkpoint when it was sealed."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    facts: dict[str, Any] = content["content"]["facts"]
    return facts


def newest_valid(checkpoints: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint that is valid, and what is wrong with each that is newer."""
    broken: dict[Path, str] = {}
    for train_step in reversed(steps_in(checkpoints)):
        folder = final_folder(checkpoints, train_step)
        wrong = verify(folder)
        if wrong is None:
            return Checkpoint(folder=folder, train_step=train_step, facts=facts_of(folder)), broken
        broken[folder] = wrong
    return None, broken


def set_aside(broken: Iterable[Path]) -> None:
    """Take the names away from checkpoints that are not valid; the next ``retain`` removes them."""
    for folder in broken:
        shutil.rmtree(folder.with_name(f".{folder.name}{_BROKEN}"), ignore_errors=True)
        folder.rename(folder.with_name(f".{folder.name}{_BROKEN}"))


def remove_partial(checkpoints: Path) -> None:
    """Remove what a killed study has left half-written."""
    for folder in checkpoints.glob(f".*{_PARTIAL}"):
        shutil.rmtree(folder, ignore_errors=True)


def steps_in(checkpoints: Path) -> list[int]:
    """Train steps of which there is a checkpoint, valid or not, ascending."""
    with suppress(FileNotFoundError):
        return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    return []


def select_kept(errors: Sequence[tuple[int, float | None]], *, last: int, best: bool) -> set[int]:
    """Which checkpoints stay.

    Args:
        errors: Train step and validation error of each, ascending by train step.
        last: Number of the newest that stay.
        best: Whether the one with the smallest error stays, too.
    """
    stay = {train_step for train_step, _ in errors[-last:]}
    known = [(error, train_step) for train_step, error in errors if error is not None]
    if best and known:
        stay.add(min(known)[1])
    return stay


def retain(checkpoints: Path, *, last: int, best: bool) -> None:
    """Remove the checkpoints that are not to stay."""
    errors: list[tuple[int, float | None]] = []
    for train_step in steps_in(checkpoints):
        error = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            error = facts_of(final_folder(checkpoints, train_step))["validation_error"]
        errors.append((train_step, error))
    stay = select_kept(errors, last=last, best=best)
    gone = [final_folder(checkpoints, step) for step, _ in errors if step not in stay]
    for folder in [*gone, *checkpoints.glob(f".*{_BROKEN}")]:
        # Without a manifest nobody takes what is left for a checkpoint.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _files_in(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.is_file())
    return [path]


def _digest(path: Path) -> Digest:
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            sha.update(block)
            size += len(block)
    return {"bytes": size, "sha256": sha.hexdigest()}


def _text(content: object) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _manifest(content: dict[str, Any]) -> str:
    """A manifest vouches for itself, too."""
    digest = hashlib.sha256(_text(content).encode()).hexdigest()
    return _text({"content": content, "sha256": digest})
