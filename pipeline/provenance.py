"""What only the study knows of its surrogate: added to the surrogate's card when the study ends.

A hash is the SHA-256 of JSON with sorted keys and no spaces: the same study, the same hash.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pipeline.guards import DISTRIBUTION
from pipeline.stats import Summary
from pipeline.study.config import StudyConfig

PACKAGES = (DISTRIBUTION, "numpy", "ray", "petsc4py", "safetensors")


def hash_of(tree: Mapping[str, Any]) -> str:
    """Of a study, or of a section of it, as ``resolved.json`` has it."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def study_facts(study: StudyConfig, summary: Summary) -> dict[str, Any]:
    """The card's ``study``."""
    tree, result = study.as_json(), summary.as_json()
    return {
        "name": study.name,
        "hash": hash_of(tree),
        "seed": study.seed,
        "solver": tree["solver"].get("kind"),
        "solver_hash": hash_of(tree["solver"]),
        "solver_settings": tree["solver"],
        "members": summary.members_completed,
        "members_failed": summary.members_failed,
        "validation_members": study.ensemble.validation,
        "samples": summary.samples_inserted,
        "samples_drawn": summary.samples_drawn,
        "wall_seconds": summary.wall_seconds,
        "errors_by_region": result["errors_by_region"],
        "breakeven": result["breakeven"],
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an image may have PETSc from elsewhere
            continue
    return found
