"""The sections of a study that belong to this package: ensemble, stream, reservoir, checkpoint.

Each checks only itself; ``checks.py`` and ``sample_checks.py`` hold them against each other.

1. No key is accepted that is not listed here.
2. A default stands here and nowhere else.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveFloat, Tag

from pipeline.flow import PolicyName

# One message longer than this holds up all the others (measured: 67 ms for 100 MB).
MAX_BATCH_BYTES = 8_388_608
# They share a node with their actor; none has more CPUs.
MAX_MPI_RANKS = 1024


class Section(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CsvDesign(Section):
    """Parameters of each member, one row each, training members first."""

    csv: Path = Field(
        strict=False, description="CSV file with one column per parameter, relative to the study"
    )


DesignName = Literal["halton", "uniform", "sobol", "latin_hypercube", "grid"]


def _design_tag(value: object) -> str:
    return "csv" if isinstance(value, dict | CsvDesign) else "name"


DesignConfig = Annotated[
    Annotated[DesignName, Tag("name")] | Annotated[CsvDesign, Tag("csv")],
    Discriminator(_design_tag),
]


class EnsembleConfig(Section):
    """Which simulations are run, and how many at once."""

    members: int = Field(ge=1, description="simulations to train on")
    validation: int = Field(default=0, ge=0, description="further ones, never trained on")
    concurrent: int = Field(default=2, ge=1, description="simulations that run at the same time")
    mpi_ranks: int = Field(
        default=1, ge=1, le=MAX_MPI_RANKS, description="MPI processes of one simulation"
    )
    design: DesignConfig = Field(default="halton", description="how parameters are picked")
    max_attempts: int = Field(default=3, ge=1, description="tries before a member has failed")
    max_failed_fraction: float = Field(
        default=0.5, ge=0.0, le=1.0, description="share of failed members that ends the study"
    )
    on_failure: Literal["skip", "redraw"] = Field(
        default="skip", description="whether another member takes the place of a failed one"
    )
    member_timeout: PositiveFloat | None = Field(
        default=None,
        description="seconds one attempt may take beside waiting for room; null: no limit",
    )


class StreamConfig(Section):
    """How snapshots travel from the solvers to the reservoirs."""

    batch_bytes: int = Field(
        default=524_288,
        ge=1,
        le=MAX_BATCH_BYTES,
        description="small samples are put together up to this size",
    )
    linger_ms: float = Field(
        default=50.0, ge=0.0, le=10_000.0, description="longest time a sample waits for others"
    )
    credit_bytes: int = Field(
        default=16_777_216, ge=1, description="bytes a sender may have unacknowledged, per rank"
    )
    initial_state: bool = Field(default=False, description="whether the state at t=0 is a sample")
    every: int = Field(default=1, ge=1, description="only every n-th solver step leaves the solver")
    fields: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the fields that do; null: all"
    )
    input_fields: tuple[str, ...] = Field(
        default=(), description="fields whose initial state goes into every sample, as an input"
    )
    coarsen: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=1, description="cells averaged into one along each axis, or the grid to average to"
    )
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="of the fields, on the way and in the reservoir"
    )
    transport: Literal["auto", "tcp"] = Field(
        default="auto", description="auto: straight into the slots on one node, tcp between nodes"
    )


class ReservoirConfig(Section):
    """What each rank's reservoir holds, and how fast samples go through it."""

    policy: PolicyName = Field(
        default="reservoir", description="which samples are drawn and replaced"
    )
    capacity: int = Field(ge=1, description="slots of one rank")
    watermark: int = Field(ge=1, description="samples of one rank needed before training starts")
    max_reuse: PositiveFloat | None = Field(
        default=None, description="most mean draws per sample; null: as many as there is time for"
    )
    min_reuse: PositiveFloat | None = Field(
        default=None,
        description="mean draws per sample that are made in the end; null: max_reuse, or 1",
    )
    max_surplus: PositiveFloat | None = Field(
        default=None,
        description="draws the solvers may be ahead by, per rank; null: see docs/study.md",
    )


class CheckpointConfig(Section):
    """When checkpoints are taken, and how many of them stay."""

    every_seconds: PositiveFloat | None = Field(
        default=300.0, description="time from one to the next; null: only when the study is stopped"
    )
    keep_last: int = Field(default=2, ge=1, description="how many of the newest stay")
    keep_best: bool = Field(
        default=True, description="whether the one with the least validation error stays, too"
    )
    grace_seconds: PositiveFloat = Field(
        default=45.0, description="time for a last one after SIGTERM or Ctrl-C"
    )


class SourceConfig(Section):
    """A record whose members take part in the study instead of simulated ones."""

    record: Path = Field(
        strict=False, description="run directory of an earlier study, or the record in it"
    )
    live: int = Field(
        default=0, ge=0, description="training members that are simulated nevertheless"
    )
    validation: Literal["recorded", "live"] = Field(
        default="recorded", description="where validation members come from"
    )
    members: tuple[int, ...] | None = Field(
        default=None,
        description="numbers in the record, those for validation first; null: chosen by the seed",
    )
    samples: int | None = Field(
        default=None, description="training samples; counted when the study is read"
    )


class RecordConfig(Section):
    """Which of the samples that were trained on are kept on disk."""

    what: Literal["inserted", "drawn"] = Field(
        default="inserted", description="samples that were stored, or that were drawn"
    )
    fraction: float = Field(default=1.0, gt=0.0, le=1.0, description="share of them that is kept")
    every: int = Field(default=1, ge=1, description="only every n-th sample of a member")
    compression: Literal["none", "zstd"] = Field(
        default="none", description="of the chunks on disk"
    )
