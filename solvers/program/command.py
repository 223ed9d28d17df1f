"""The command that starts a member of ``kind: program``, and where its programs lie; no PETSc."""

import shlex
import shutil
from pathlib import Path

from solvers.configs.program import ProgramConfig


def launched_words(config: ProgramConfig) -> list[str]:
    """The words of the command that starts a member: launcher, program, arguments."""
    launcher = shlex.split(config.launcher.format(mpi_ranks=config.mpi_ranks))
    return [*(launcher if config.mpi_ranks > 1 else []), *config.command_words()]


def find_command(config: ProgramConfig, path: str) -> list[str]:
    """Launcher and program as absolute paths, and all arguments.

    Args:
        config: The settings of the solver.
        path: Folders to look in, as in ``PATH``.

    Raises:
        ValueError: One of the two is not there, or cannot be run.
    """
    words = launched_words(config)
    place = len(words) - len(config.command_words())
    words[place] = _find(words[place], path, setting="command")
    if place:
        words[0] = _find(words[0], path, setting="launcher")
    return words


def _find(program: str, path: str, *, setting: str) -> str:
    found = shutil.which(program, path=path)
    if found is not None:
        return found
    if Path(program).is_file():
        raise ValueError(f"solver.{setting}: {program} is not executable. Run 'chmod +x' on it")
    raise ValueError(
        f"solver.{setting}: no program {program!r} that can be run (PATH={path}). Correct the "
        "path (./ starts at the study's folder), or build it"
    )
