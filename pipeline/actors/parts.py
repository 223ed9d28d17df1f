"""From a study to the parts of a reservoir: bookkeeping, order, bounds and record."""

from typing import Any

import numpy as np

from pipeline.record.layout import MADE_FROM, RecordLayout
from pipeline.reservoir.book import Reservoir
from pipeline.reservoir.ordered_book import OrderedReservoir
from pipeline.stream.intake import Bounds
from pipeline.stream.order import Turn
from pipeline.study.config import StudyConfig

_RESERVOIR_SEED = 0x2E5E  # of the root seed: draws and evictions of a reservoir
# Times the credit of all senders: what a killed one has sent may still wait beside its successor's.
_WAITING = 2


def record_layout(study: StudyConfig) -> RecordLayout:
    """The arrays of a study's record."""
    return RecordLayout(
        sample=study.sample_layout(), spec=study.spec, parameters=study.solver.parameters()
    )


def record_attributes(study: StudyConfig, rank: int) -> dict[str, Any]:
    """What else one rank's group says of itself."""
    assert study.record is not None
    return {
        "study": study.name,
        "seed": study.seed,
        "rank": rank,
        "ranks": study.trainer.ranks,
        "solver": study.solver.kind,
        "validation": study.ensemble.validation,
        "samples_per_member": study.samples_per_member,
        "stride": study.trainer.task.stride,
        "record": study.record.model_dump(mode="json"),
        MADE_FROM: study.model_dump(mode="json", include={"solver", "parameters", "stream"}),
    }


def turns_of(study: StudyConfig, rank: int) -> tuple[Turn | None, Turn | None]:
    """The order in which training and validation samples are stored here; None: as they come."""
    if not study.deterministic:
        return None, None
    held_out, samples = study.ensemble.validation, study.samples_per_member
    ranks, training = study.trainer.ranks, range(held_out, held_out + study.ensemble.members)
    return (
        Turn(members=training, samples=samples, rank=rank, ranks=ranks),
        Turn(members=range(held_out), samples=samples, rank=rank, ranks=ranks, whole=True),
    )


def reservoir_of(study: StudyConfig, rank: int, turn: Turn | None) -> Reservoir | OrderedReservoir:
    """The bookkeeping of one rank's slots, as the study wants it."""
    settings, limits = study.reservoir, study.limits
    rng = np.random.default_rng([study.seed, _RESERVOIR_SEED, rank])
    if turn is not None:
        return OrderedReservoir(
            policy=settings.policy,
            capacity=settings.capacity,
            flow=limits.flow_control(),
            rng=rng,
            batch=study.trainer.batch,
            spread=lambda: turn.spread,
        )
    return Reservoir(
        policy=settings.policy,
        capacity=settings.capacity,
        flow=limits.flow_control(),
        rng=rng,
        most_leased=limits.leasable,
        drain=study.trainer.after_production.kind != "stop",
    )


def bounds_of(study: StudyConfig) -> Bounds:
    """What the study's own senders can send at most."""
    senders = study.ensemble.concurrent * study.ensemble.mpi_ranks
    members = study.ensemble.validation + study.ensemble.members
    if (
        study.ensemble.on_failure == "redraw"
    ):  # whose number is one of a failed member and ``members``
        members *= 2 + int(study.ensemble.max_failed_fraction * members)
    return Bounds(
        members=members,
        samples=study.samples_per_member,
        waiting_bytes=_WAITING * senders * study.stream.credit_bytes,
    )
