"""All that a study says, and what follows from it; nothing is checked between its sections here.

1. What follows needs the sections that it is made of, and no other.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn, Self

from pydantic import Field

from pipeline.flow import Limits
from pipeline.slots.layout import SampleLayout
from pipeline.stream import wire
from pipeline.study.distributions import Distribution
from pipeline.study.sections import (
    CheckpointConfig,
    EnsembleConfig,
    RecordConfig,
    ReservoirConfig,
    Section,
    SourceConfig,
    StreamConfig,
)
from pipeline.study.streamed import snapshots_of, streamed_spec
from solvers.base import FieldSpec
from solvers.config import SolverConfig
from trainers.config import StepsAfter, TrainerConfig

_ORDERED_FIRST: Final = 8  # members that fields are normalised by in a deterministic study


class UncheckedStudy(Section):
    """The sections of a study."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="name of the study"
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="root of all random numbers")
    deterministic: bool = Field(
        default=False, description="whether a loss curve on CPUs must not depend on timing"
    )
    solver: SolverConfig
    parameters: dict[str, Distribution] = Field(
        default_factory=dict, description="a distribution for each parameter of the solver"
    )
    ensemble: EnsembleConfig
    stream: StreamConfig = StreamConfig()
    reservoir: ReservoirConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    record: RecordConfig | None = Field(
        default=None, description="which samples are kept on disk; null: none"
    )
    source: SourceConfig | None = Field(
        default=None, description="a record to take members from; null: all are simulated"
    )

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of the solver, which is the order of every parameter array."""
        return tuple(parameter.name for parameter in self.solver.parameters())

    def sees_logarithm(self, name: str) -> bool:
        """Whether the network sees the logarithm of a parameter."""
        given = self.parameters.get(name)
        scale = "linear" if given is None else given.scale
        return self.trainer.parameter_scales.get(name, scale) == "log"

    @property
    def window(self) -> int:
        """Consecutive snapshots in a sample."""
        return self.trainer.task.window

    @property
    def time_step(self) -> float:
        """Announced seconds from one snapshot that leaves the solver to the next; 0 if steady."""
        return self.stream.every * self.solver.end_time / max(1, self.solver.max_snapshots - 1)

    @property
    def spec(self) -> FieldSpec:
        """Names, units and grid of what leaves the solver."""
        return streamed_spec(self.solver.spec(), self.stream)

    @property
    def snapshots(self) -> int:
        """Snapshots of a member that may become samples."""
        return snapshots_of(self.solver.max_snapshots, self.stream)

    @property
    def samples_per_member(self) -> int:
        """Samples of a completed member: windows that start ``stride`` snapshots apart."""
        return (self.snapshots - self.window) // self.trainer.task.stride + 1

    @property
    def expected_samples(self) -> int:
        """Training samples of the whole ensemble when no member fails."""
        if self.source is not None and self.source.samples is not None:
            return self.source.samples
        return self.ensemble.members * self.samples_per_member

    @property
    def first_members(self) -> int:
        """Members, counted from 0, that fields are normalised by, and that training waits for.

        Those of validation; without any, as many of the first as run at once and find room whole.
        """
        ensemble, room = self.ensemble, self.trainer.ranks * self.reservoir.capacity
        # Stored in order, they find room however many run at once, which must change nothing.
        most = _ORDERED_FIRST if self.deterministic else ensemble.concurrent
        return ensemble.validation or min(ensemble.members, most, room // self.samples_per_member)

    @property
    def recorded_members(self) -> int:
        """Members that are taken from a record."""
        if self.source is None:
            return 0
        held_out = self.ensemble.validation if self.source.validation == "recorded" else 0
        return self.ensemble.members - self.source.live + held_out

    @property
    def simulates(self) -> bool:
        """Whether a solver runs at all."""
        source = self.source
        if source is None or source.live:
            return True
        return source.validation == "live" and self.ensemble.validation > 0

    @property
    def cpus(self) -> int:
        """CPUs that it takes at once: one for each mpi_rank of a solver, and for each rank."""
        return self.ensemble.concurrent * self.ensemble.mpi_ranks + self.trainer.ranks

    def validation_capacity(self, rank: int) -> int:
        """Validation samples that arrive at one rank: whole members, member % ranks == rank."""
        members = range(rank, self.ensemble.validation, self.trainer.ranks)
        return len(members) * self.samples_per_member

    def sample_layout(self) -> SampleLayout:
        """Shape of what lies in a slot."""
        return SampleLayout(
            window=self.window,
            sample_shape=self.spec.sample_shape,
            num_parameters=len(self.solver.parameters()),
            dtype=self.stream.dtype,
        )

    @property
    def sample_bytes(self) -> int:
        """Field bytes of one sample."""
        return self.sample_layout().nbytes

    @property
    def message_bytes(self) -> int:
        """Length of the longest message: samples put together, or a piece of a large one."""
        return wire.largest_message(self.sample_layout(), self.stream.batch_bytes)

    @property
    def slots_bytes(self) -> int:
        """Shared memory of all ranks together, training and validation slots."""
        ranks, layout = self.trainer.ranks, self.sample_layout()
        slots = ranks * self.reservoir.capacity + sum(map(self.validation_capacity, range(ranks)))
        # Member, number and step stand beside the fields and the inputs.
        return slots * (layout.nbytes + 8 * (layout.num_inputs + 3))

    @property
    def limits(self) -> Limits:
        """All that decides who waits for whom."""
        stops = self.trainer.after_production.kind == "stop"
        return Limits(
            policy=self.reservoir.policy,
            capacity=self.reservoir.capacity,
            watermark=self.reservoir.watermark,
            max_reuse=self.reservoir.max_reuse,
            max_surplus=self.reservoir.max_surplus,
            min_reuse=0.0 if stops else self.reservoir.min_reuse,
            concurrent=self.ensemble.concurrent,
            batch=self.trainer.batch,
            ranks=self.trainer.ranks,
            mpi_ranks=self.ensemble.mpi_ranks,
        )

    @property
    def max_train_steps(self) -> int | None:
        """Most train steps that ``max_reuse`` allows; None without a limit."""
        if self.reservoir.max_reuse is None:
            return None
        draws = self.expected_samples * max(self.reservoir.max_reuse, 1.0)
        return self._train_steps(draws / self.trainer.ranks)

    @property
    def expected_train_steps(self) -> int | None:
        """Train steps to expect; None where nothing is known.

        ``min_reuse`` is reached in the end, and with ``max_surplus`` the solvers wait until all but
        that many of the allowed draws are made.
        """
        reservoir, most = self.reservoir, self.max_train_steps
        samples = self.expected_samples / self.trainer.ranks
        draws = samples * self.limits.reuse_reached
        if most is None or reservoir.max_reuse is None:
            return None if reservoir.min_reuse is None else self._train_steps(draws)
        if reservoir.max_surplus is None:
            return most
        draws = max(draws, samples * reservoir.max_reuse - reservoir.max_surplus)
        return min(most, self._train_steps(draws))

    def _train_steps(self, draws: float) -> int:
        """Train steps of so many draws of one rank, and those that are asked for after them."""
        after, group = self.trainer.after_production, self.trainer.batch * self.trainer.accumulate
        return -int(-draws // group) + (after.steps if isinstance(after, StepsAfter) else 0)

    @property
    def record_bytes(self) -> int:
        """Upper bound of the record on disk, without compression; 0 without a record."""
        if self.record is None:
            return 0
        # Parameters, times, member, number, step and draws stand beside the fields.
        numbers = 8 * (len(self.parameter_names) + self.window + 3) + 4
        kept = math.ceil(self.expected_samples * self.record.fraction / self.record.every)
        return kept * (self.sample_bytes + numbers)


class SectionMissing(Exception):
    """A section that is needed is wrong by itself."""


class PartialStudy(UncheckedStudy):
    """Those sections of a study that are right by themselves; looking at another raises."""

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Self:
        """Take sections as they are, without a default for what is not there."""
        study = cls.model_construct()
        study.__dict__.clear()
        study.__dict__.update(sections)
        return study

    def __getattr__(self, name: str) -> NoReturn:
        if name in UncheckedStudy.model_fields:
            raise SectionMissing(name)
        raise AttributeError(name)
