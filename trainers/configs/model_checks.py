"""What a network cannot do on a grid, found out before anything is built.

Invariants (``tests/unit/trainers/configs/test_model_checks.py``):

1. A network without problems can be built on that grid and predicts fields of its shape.
2. Every line starts with the key it is about, as it is written under ``trainer.model``.
3. No torch: a study is checked on a login node.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainers.configs.models import (
    AnyModelConfig,
    FnoConfig,
    MessagePassingConfig,
    OwnModelConfig,
    TfnoConfig,
    UnetConfig,
    UnoConfig,
)

MAX_AXES = 3

Fourier = FnoConfig | TfnoConfig | UnoConfig


def model_problems(config: AnyModelConfig, grid: Sequence[int]) -> list[str]:
    """What is wrong with a network on a grid.

    Args:
        config: Kind and sizes.
        grid: Points per axis of the fields that it predicts.

    Returns:
        Lines ``key=value: limit, remedy``.
    """
    found: list[str] = []
    if config.kind in ("mlp", "deeponet", "own"):
        return found
    if not 1 <= len(grid) <= MAX_AXES:
        axes = f"for grids of 1 to {MAX_AXES} axes, and the fields have {len(grid)}"
        return [f"kind={config.kind}: {axes}. Take mlp or deeponet"]
    if isinstance(config, FnoConfig | TfnoConfig | UnoConfig):
        found += _mode_problems(config, grid)
    if isinstance(config, UnetConfig | UnoConfig):
        found += _depth_problems(config, grid)
    if isinstance(config, MessagePassingConfig):
        found += _neighbour_problems(config, grid)
    return found


def own_model_problems(config: OwnModelConfig) -> list[str]:
    """What is wrong with the file of a user's own network; it is read, and not run."""
    path = Path(config.path)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        return [f"path={path}: cannot be read ({error.strerror}). Give the path of a Python file"]
    except (SyntaxError, ValueError) as error:
        return [f"path={path}: is not Python ({error}). Give the path of a Python file"]
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if config.class_name in names or _is_bound(tree, config.class_name):
        return []
    known = ", ".join(names) or "none"
    return [
        f"class={config.class_name}: {path} has no such class, but: {known}. Correct class or path"
    ]


def kept_modes(n_modes: int | tuple[int, ...], grid: Sequence[int]) -> tuple[int, ...]:
    """Fourier modes along each axis, never more than it has points."""
    wanted = (n_modes,) * len(grid) if isinstance(n_modes, int) else n_modes
    return tuple(min(modes, points) for modes, points in zip(wanted, grid, strict=True))


def halved(grid: Sequence[int], times: int) -> tuple[int, ...]:
    """Points per axis of a grid that was halved; an odd number is rounded up."""
    return tuple(-(-points // 2**times) for points in grid)


def _mode_problems(config: Fourier, grid: Sequence[int]) -> Iterator[str]:
    if isinstance(config.n_modes, int):
        return
    written = f"n_modes={list(config.n_modes)}"
    if len(config.n_modes) != len(grid):
        yield (
            f"{written}: one number per axis, and the fields have {len(grid)} axes. Give "
            f"{len(grid)}, or a single number for all"
        )
    elif any(modes > points for modes, points in zip(config.n_modes, grid, strict=True)):
        yield (
            f"{written}: the grid of {list(grid)} points has no more modes than points along an "
            "axis. Lower n_modes, or give a single number, which is cut to what each axis has"
        )


def _depth_problems(config: UnetConfig | UnoConfig, grid: Sequence[int]) -> Iterator[str]:
    most = min(grid).bit_length() - 1
    if config.depth > most:
        remedy = f"Lower depth to at most {most}" if most else "Take a kind that halves no grid"
        yield (
            f"depth={config.depth}: the grid of {list(grid)} points can be halved {most} times "
            f"before an axis has less than one point. {remedy}, or refine the grid"
        )


def _neighbour_problems(config: MessagePassingConfig, grid: Sequence[int]) -> Iterator[str]:
    reach = 2 * config.neighbours + 1
    short = [points for points in grid if 1 < points < reach]
    if max(grid) == 1:
        yield (
            f"kind={config.kind}: the grid of {list(grid)} points has no neighbours. Take mlp, or "
            "refine the grid"
        )
    elif config.periodic and short:
        yield (
            f"neighbours={config.neighbours}: a periodic axis of {short[0]} points is shorter than "
            f"the {reach} that one node would see, so it would see some twice. Lower neighbours to "
            f"at most {(short[0] - 1) // 2}, or refine the grid"
        )


def _is_bound(tree: ast.Module, name: str) -> bool:
    """Whether a module gets a name by an import or an assignment; of ``import *`` nobody knows."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound = {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            bound = {target.id for target in node.targets if isinstance(target, ast.Name)}
        else:
            continue
        if name in bound or "*" in bound:
            return True
    return False
