"""Makes sure that solvers, pipeline, trainers and deploy are the packages of this checkout.

The four names are generic: a study's own folder, or another installed distribution, may carry them
too. Called when the command line starts and in every Ray worker, before the rest is imported.

Invariants (``tests/unit/pipeline/test_guards.py``):

1. A package that would come, or has come, from another place than this file's checkout is refused.
2. A name that another installed distribution owns is refused, even while ours still wins.
3. All that is wrong is said at once, each with the place it was found in and how to mend it.
4. Nothing is imported to find out.
"""

import sys
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path

from pipeline.errors import ConfigError

DISTRIBUTION = "headrace"
PACKAGES = ("solvers", "pipeline", "trainers", "deploy")


def project_root() -> Path:
    """The folder that holds the four packages: the checkout, or site-packages in an image."""
    return Path(__file__).resolve().parent.parent


def check_packages() -> None:
    """Refuse to go on with a foreign package under one of our names.

    Takes about 0.1 s, most of it to read which distribution owns what.

    Raises:
        ConfigError: With one line per package that is not ours.
    """
    root = project_root()
    problems = [problem for name in PACKAGES if (problem := _misplaced(name, root)) is not None]
    # Python's own finder alone: dask brings another, which hides files that are not there.
    problems += _foreign_owners(metadata.MetadataPathFinder().find_distributions())
    if problems:
        raise ConfigError(problems)


def _misplaced(name: str, root: Path) -> str | None:
    """What is wrong with the place that ``import name`` takes it from; None when nothing is."""
    expected = root / name / "__init__.py"
    module = sys.modules.get(name)
    # A loaded module is what counts, whatever a new search would find.
    spec = util.find_spec(name) if module is None else module.__spec__
    origin = None if spec is None else spec.origin
    if origin is None:
        return (
            f"package '{name}' is not importable, or is a folder without __init__.py; expected "
            f"{expected}. Install the checkout again: pip install --no-deps -e {root}"
        )
    if Path(origin).resolve() == expected:
        return None
    return (
        f"package '{name}' comes from {origin}, and not from {expected}. Something earlier on the "
        f"import path has the same name: start from another folder, rename that package, or take "
        f"{Path(origin).resolve().parent.parent} out of PYTHONPATH"
    )


def _foreign_owners(installed: Iterable[metadata.Distribution]) -> list[str]:
    """One line for each of our names that another distribution has installed."""
    problems = []
    for distribution in installed:
        owner = distribution.name
        if owner == DISTRIBUTION:
            continue
        problems += [
            f"package '{name}' also belongs to the installed distribution '{owner}'; the two "
            f"overwrite or hide each other: pip uninstall {owner}, or use an environment of its own"
            for name in sorted(_top_level_names(distribution) & set(PACKAGES))
        ]
    return problems


def _top_level_names(distribution: metadata.Distribution) -> set[str]:
    """Import names that a distribution says it brings."""
    declared = distribution.read_text("top_level.txt")
    if declared is not None:
        return set(declared.split())
    return {file.parts[0].removesuffix(".py") for file in distribution.files or ()}
