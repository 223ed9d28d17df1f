"""What a study comes to: its summary, and its part of the surrogate's card."""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from statistics import fmean
from typing import Any

from pipeline.guards import DISTRIBUTION
from pipeline.stats.breakeven import breakeven
from pipeline.stats.regions import ErrorsOf
from pipeline.stats.stats import StudyStats, Summary
from pipeline.stats.watch import query_of
from pipeline.study.config import StudyConfig
from trainers.results import QueryTime


def summarise(
    name: str,
    stats: StudyStats,
    *,
    query: QueryTime | None = None,
    regions: tuple[ErrorsOf, ...] = (),
) -> Summary:
    """The study's result, from its last statistics.

    Args:
        name: Of the study.
        stats: The last ones.
        query: How long the finished surrogate takes; None: as the ranks said while they trained.
        regions: The members' errors by parameter.
    """
    query = query_of(stats.ranks) if query is None else query
    inserted = sum(r.inserted for r in stats.reservoirs)
    drawn = sum(r.drawn for r in stats.reservoirs)
    first_steps = [r.first_step_seconds for r in stats.ranks if r.first_step_seconds is not None]
    shares = [r.effective_share for r in stats.reservoirs if r.effective_share is not None]
    validation = next((r.validation for r in stats.ranks if r.validation is not None), None)
    return Summary(
        name=name,
        members_completed=stats.members.completed,
        members_failed=stats.members.failed,
        samples_inserted=inserted,
        samples_unique=sum(r.unique for r in stats.reservoirs),
        samples_drawn=drawn,
        reuse_mean=drawn / inserted if inserted else 0.0,
        train_steps=max((r.train_step for r in stats.ranks), default=0),
        wall_seconds=stats.elapsed_seconds,
        first_step_seconds=max(first_steps, default=None),
        trainer_wait_seconds=sum(r.wait_seconds for r in stats.ranks) / max(len(stats.ranks), 1),
        solver_wait_seconds=stats.solver_wait_seconds,
        bytes_streamed=sum(r.bytes_received for r in stats.reservoirs),
        notes=notes_of(stats),
        one_step=None if validation is None else validation.one_step,
        rollout=None if validation is None else validation.rollout,
        errors_by_region=regions,
        query=query,
        cost=stats.cost,
        breakeven=breakeven(stats.cost, query),
        samples_recorded=sum(r.recorded for r in stats.reservoirs),
        record_dropped=sum(r.record_dropped for r in stats.reservoirs),
        record_problem=next((r.record_problem for r in stats.reservoirs if r.record_problem), None),
        draws_by_tenth=tuple(
            fmean(tenth)
            for tenth in zip(*(r.draws_by_tenth for r in stats.reservoirs), strict=False)
        ),
        effective_share=fmean(shares) if shares else None,
    )


def notes_of(stats: StudyStats) -> tuple[str, ...]:
    """What the ranks want people to know, each sentence once."""
    return tuple(dict.fromkeys(note for rank in stats.ranks for note in rank.notes))


PACKAGES = (DISTRIBUTION, "numpy", "ray", "petsc4py", "safetensors")


def hash_of(tree: Mapping[str, Any]) -> str:
    """Of a study, or of a section of it, as ``resolved.json`` has it."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def study_facts(study: StudyConfig, summary: Summary) -> dict[str, Any]:
    """The card's ``study``."""
    tree, result = study.as_json(), summary.as_json()
    held_out = 0 if summary.one_step is None else summary.one_step.spread.members
    return {
        "name": study.name,
        "hash": hash_of(tree),
        "seed": study.seed,
        "solver": tree["solver"].get("kind"),
        "solver_hash": hash_of(tree["solver"]),
        "solver_settings": tree["solver"],
        "members": summary.members_completed - held_out,
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
