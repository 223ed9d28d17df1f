"""Keeps the files that a study is made of, as they were when it began, in its run directory.

They are the design's CSV, the file of one's own solver and network, and a program with the files
that its command names.

Invariants (``tests/unit/pipeline/checkpoint/test_inputs.py``):

1. A study that is resumed computes with what it began with, whatever became of the originals.
2. Originals that are unchanged are used themselves, with all that lies beside them.
3. A Python file brings along the modules beside it that it imports, and those that they import.
4. Of a file above ``LARGEST`` only the hash is kept: once it has changed, the study cannot go on.
"""

import ast
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pipeline.control.rundir import RunPaths
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from trainers.durable import write_atomically

LISTED: Final = "inputs.json"
LARGEST: Final = 256 << 20


def keep(out: Path, study: StudyConfig) -> None:
    """Copy the files of a study that begins into its run directory."""
    folder, listed = RunPaths(out).inputs, dict[str, dict[str, str | None]]()

    def copy(key: str, file: Path) -> Path:
        if not file.is_file():
            return file
        digests = {}
        for each in _with_imports(file):
            name = str(each.relative_to(file.parent))
            kept = folder / key / name
            if each.stat().st_size <= LARGEST:
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(each, kept)
            digests[name] = _digest(kept) or _digest(each)
        listed[key] = digests
        return file

    _each_file(study, copy)
    if listed:
        write_atomically(folder / LISTED, json.dumps(listed, indent=2) + "\n")


def as_begun(out: Path, study: StudyConfig) -> tuple[StudyConfig, list[str]]:
    """The study with copies in place of files that have changed since, and a line about each.

    Raises:
        ConfigError: A file has changed, and there is no whole copy of it.
    """
    folder = RunPaths(out).inputs
    path = folder / LISTED
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lines: list[str] = []
    lost: list[str] = []

    def choose(key: str, file: Path) -> Path:
        digests = listed.get(key, {})
        changed = [name for name, each in digests.items() if _digest(file.parent / name) != each]
        if not changed:
            return file
        what = f"{', '.join(changed)} in {file.parent}: not what the study began with"
        copies = folder / key
        if any(_digest(copies / name) != each for name, each in digests.items()):
            lost.append(f"{what}, and {copies} holds no whole copy. Restore it, or begin anew")
        lines.append(f"{what}. It goes on with the copy in {copies}")
        return copies / file.name

    tree = _each_file(study, choose)
    if lost:
        raise ConfigError(lost)
    return (StudyConfig.model_validate(tree) if lines else study), lines


def _each_file(study: StudyConfig, put: Callable[[str, Path], Path]) -> dict[str, Any]:
    """The study as plain data, with what ``put`` makes of each file that it names."""
    tree = study.as_json()
    design, solver, model = tree["ensemble"]["design"], tree["solver"], tree["trainer"]["model"]
    if isinstance(design, dict):
        design["csv"] = str(put("design", Path(design["csv"])))
    if solver["kind"] == "own":
        solver["path"] = str(put("solver", Path(solver["path"])))
    if model["kind"] == "own":
        model["path"] = str(put("model", Path(model["path"])))
    if study.solver.kind == "program":
        words = study.solver.command_words()
        for place, word in enumerate(words):
            # A link is an interpreter in most cases, which runs only from where it lies.
            if Path(word).is_absolute() and not Path(word).is_symlink():
                words[place] = str(put(f"program-{place}", Path(word)))
        solver["command"] = shlex.join(words)
    return tree


def _with_imports(file: Path) -> list[Path]:
    """A file and, where it is Python, the modules of its folder that it needs."""
    found: list[Path] = []
    left = [file]
    while left:
        each = left.pop()
        if each not in found:
            found.append(each)
            for name in _imported(each):
                left += [file.parent / f"{name}.py", *(file.parent / name).rglob("*.py")]
            left = [path for path in left if path.is_file()]
    return found


def _imported(file: Path) -> Iterator[str]:
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None
