"""Hands on a surrogate: as programs that run without this package, in a folder of its own if asked.

1. The folder of a surrogate that is handed on is complete: weights, card, programs.
2. What can be made again is written over; nothing else is.
"""

import shutil
import sys
from pathlib import Path

from pipeline.errors import ConfigError

COPIED = ("model.safetensors", "card.json", "card.md")


def export(run: Path, *, onnx: bool, out: Path | None) -> None:
    """Write ``surrogate.pt2``, and ``surrogate.onnx`` if asked.

    Args:
        run: Run directory of a study that has ended, or its folder ``model/``.
        onnx: Whether ONNX is wanted, too.
        out: A new folder for them, with weights and card; None: beside those.

    Raises:
        ConfigError: There is no surrogate, ``out`` holds something, or the network cannot be
            written in that form.
    """
    from trainers.surrogate import card
    from trainers.surrogate.export import load_surrogate  # brings torch
    from trainers.surrogate.program import check_onnx, write_onnx, write_program

    try:
        folder = card.find(run)
        surrogate = load_surrogate(folder)
        if onnx:
            check_onnx()
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError([str(error)]) from None
    target = folder if out is None else _filled(out, folder)
    wanted = {"surrogate.pt2": write_program} | ({"surrogate.onnx": write_onnx} if onnx else {})
    for name, write in wanted.items():
        try:
            write(surrogate, target / name)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        sys.stdout.write(f"wrote {target / name}\n")


def _filled(out: Path, folder: Path) -> Path:
    """The new folder ``out``, with what the old one has."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        line = f"--out {out}: exists and is not empty. Choose a new folder, or remove this one"
        raise ConfigError([line])
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    return out
